"""Reads weight files of every kind as a flat dict of tensors, without executing any of them."""

from __future__ import annotations

import argparse
import logging
import os
import pickle
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from crate_interp.errors import CheckpointError, InputError

__all__ = ["Checkpoint", "read_checkpoint", "write_safetensors"]

logger = logging.getLogger(__name__)

WRAPPERS = ("state_dict", "model", "teacher")  # where training checkpoints keep the weights
PREFIXES = ("module.", "_orig_mod.", "module.", "backbone.")  # of DDP, torch.compile, DINO


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The weights of a file, their keys as the file has them (less wrappers and prefixes).

    Attributes:
        state_dict: Tensors on the CPU; those of a PyTorch file may be mapped from it, not copied.
        metadata: The safetensors metadata, or what numbers and texts lay beside the weights.
        path: The file.
    """

    state_dict: dict[str, Tensor] = field(repr=False)
    metadata: dict[str, str]
    path: Path


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a weight file; its kind is told by its content, not by its name.

    JAX `.npz` (only `params/*` is read, or everything where no key has that prefix; bfloat16 is
    kept), PyTorch files (also inside `state_dict`, `model`, or DINO's `teacher`, with the prefixes
    of wrapped models taken off) and safetensors.

    Args:
        path: The file.

    Returns:
        The tensors, by the file's own keys.

    Raises:
        CheckpointError: There is no such file, it is empty, truncated or no checkpoint, or reading
            it would execute code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    with path.open("rb") as stream:
        start = stream.read(64)
    try:
        if not start:
            raise CheckpointError("the file is empty")
        if start.startswith(b"PK\x03\x04"):
            state_dict, metadata = _read_zip(path)
        elif start[8:9] == b"{":
            state_dict, metadata = _read_safetensors(path)
        elif start.startswith(b"\x80"):  # a pickle: PyTorch's format before 1.6
            state_dict, metadata = _read_torch(path, mapped=False)
        else:
            raise CheckpointError(
                f"not a checkpoint: expected .npz, PyTorch or safetensors, found {start[:24]!r}..."
            )
        if not state_dict:
            raise CheckpointError("the file holds no tensors")
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error.__cause__
    return Checkpoint(state_dict, metadata, path)


def write_safetensors(
    path: str | os.PathLike[str], state_dict: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write weights as safetensors; the file appears whole or not at all.

    Args:
        path: Where to; a file of that name is replaced.
        state_dict: Tensors by name.
        metadata: Texts by name, kept in the file's header.

    Raises:
        InputError: No tensors, or no such folder.
    """
    path = Path(path)
    if not state_dict:
        raise InputError(f"{path}: no tensors to write")
    if not path.parent.is_dir():
        raise InputError(f"{path}: no folder {path.parent}")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    try:
        partial.touch()
        mode = partial.stat().st_mode  # the user's usual one; safetensors makes files private
        save_file(tensors, partial, metadata=dict(metadata))
        partial.chmod(mode)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _read_zip(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"truncated or damaged zip archive ({error})") from error
    if any(name.endswith("/data.pkl") for name in names):
        return _read_torch(path, mapped=True)
    if any(name.endswith(".npy") for name in names):
        return _read_npz(path), {}
    raise CheckpointError(f"a zip archive without weights; it holds {names[:3]}")


def _read_npz(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as archive:
        # The optimizer's state beside params/ is larger than the weights: it is never read.
        wanted = [key for key in archive.files if key.startswith("params/")] or archive.files
        state_dict = {}
        for key in wanted:
            try:
                state_dict[key.removeprefix("params/")] = _as_tensor(archive[key])
            except (OSError, EOFError, ValueError, TypeError) as error:
                raise CheckpointError(f"{key} cannot be read: {error}") from error
            except (zipfile.BadZipFile, zlib.error) as error:
                raise CheckpointError(f"{key} is damaged: {error}") from error
    return state_dict


def _as_tensor(array: Shaped[np.ndarray, ...]) -> Tensor:
    if array.dtype == np.dtype("V2"):  # what numpy makes of bfloat16, which it does not know
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as archive:
            state_dict = {key: archive.get_tensor(key) for key in archive.keys()}  # noqa: SIM118
            return state_dict, dict(archive.metadata() or {})
    except SafetensorError as error:
        raise CheckpointError(f"truncated or damaged safetensors ({error})") from error


def _read_torch(path: Path, *, mapped: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        # Training scripts keep their arguments beside the weights; a Namespace runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]), path.open("rb") as stream:
            # PyTorch takes a file for safetensors by its name, unless it is open already.
            source = path if mapped and path.suffix != ".safetensors" else stream
            content = torch.load(source, map_location="cpu", weights_only=True, mmap=source is path)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{_refusal(str(error))}") from error
    except Exception as error:  # half a pickle may raise whatever it likes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"truncated or damaged PyTorch file ({reason})") from error
    return _unwrapped(content)


def _refusal(message: str) -> str:
    found = re.search(r"GLOBAL ([\w.]+)", message)
    if found or "weights_only" in message:
        what = f"the pickle asks for {found[1]}" if found else "the pickle asks for more"
        return (
            f"refused: reading it would execute code ({what}, beyond tensors and plain values). "
            "Where its origin is trusted, save its state_dict again as plain tensors"
        )
    return f"not a PyTorch checkpoint ({message.splitlines()[0]})"


def _unwrapped(content: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Find the weights in what a PyTorch file holds, and the plain values beside them."""
    metadata: dict[str, str] = {}
    while isinstance(content, Mapping):
        inner = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        for key, value in content.items():
            scalar = value.item() if isinstance(value, Tensor) and value.ndim == 0 else value
            if isinstance(scalar, str | int | float):
                metadata[str(key)] = str(scalar)
        beside = [str(key) for key in content if key != inner and str(key) not in metadata]
        logger.info("weights read from %r; left aside: %s", inner, ", ".join(beside) or "nothing")
        content = content[inner]
    else:
        raise CheckpointError(
            f"expected a dict of tensors, found {type(content).__name__}: not a checkpoint"
        )
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"no tensors in it; it holds {[str(key) for key in content][:5]}")
    return _without_prefixes(tensors), metadata


def _without_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        stripped = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
        if len(stripped) < len(tensors):
            raise CheckpointError(f"two tensors have the same name without the prefix {prefix!r}")
        tensors = stripped
    return tensors
