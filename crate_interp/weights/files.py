"""Reads weight files of every kind as a flat dict of tensors, without executing any of them."""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from crate_interp.errors import CheckpointError, InputError, errors_of, shorten
from crate_interp.files import ARCHIVE_DAMAGE, array_sizes, is_file, read_arrays
from crate_interp.weights.checkpoint import Checkpoint
from crate_interp.weights.torch_files import StoredTensor, TorchFile

__all__ = ["read_checkpoint", "read_metadata", "write_safetensors"]

logger = logging.getLogger(__name__)

WRAPPERS = ("state_dict", "model", "teacher")  # where training checkpoints keep the weights
_SIZES = "model_args"  # what language models have beside them: a dict of numbers
PREFIXES = ("module.", "_orig_mod.", "module.", "backbone.")  # of DDP, torch.compile, DINO

# Weights hardly compress: what says that it is much larger than its file is a trap. Heads of zeros
# compress well, and models for tests are small.
_LARGEST_FACTOR = 8
_ALWAYS_ALLOWED = 64 << 20  # bytes
_MAX_HEADER = 16 << 20  # bytes of a safetensors header: thousands of tensors have 1 MB


def read_checkpoint(path: str | os.PathLike[str], *, allow_nonfinite: bool = False) -> Checkpoint:
    """Read a weight file; its content says of which kind it is, not its name.

    JAX `.npz` (only `params/*` is read, or everything where no key has that prefix; bfloat16 is
    kept), PyTorch files (also inside `state_dict`, `model`, or DINO's `teacher`, with the prefixes
    of wrapped models taken off) and safetensors.

    Args:
        path: The file.
        allow_nonfinite: Let weights that are NaN or infinite be loaded, too.

    Returns:
        The tensors, by the file's own keys.

    Raises:
        CheckpointError: There is no such file, it is empty, truncated or no checkpoint, reading it
            would execute code, or it says that it is much larger than it is.
    """
    path = Path(path)
    with errors_of(path):
        if not is_file(path):
            raise CheckpointError("no such file")
        with path.open("rb") as stream:
            start = stream.read(64)
        if not start:
            raise CheckpointError("the file is empty")
        if start.startswith(b"PK\x03\x04"):
            state_dict, metadata = _read_zip(path)
        elif start[8:9] == b"{":
            state_dict, metadata = _read_safetensors(path)
        elif start.startswith(b"\x80"):  # a pickle: PyTorch's format before 1.6
            state_dict, metadata = _read_torch(path)
        else:
            raise CheckpointError(
                f"not a checkpoint: expected .npz, PyTorch or safetensors, found {start[:24]!r}..."
            )
        if not state_dict:
            raise CheckpointError("the file holds no tensors")
    return Checkpoint(state_dict, metadata, path, allow_nonfinite)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read what texts lie beside the tensors of a safetensors file; none in files of other kinds.

    Raises:
        CheckpointError: The file cannot be read.
    """
    path = Path(path)
    with errors_of(path), path.open("rb") as stream:
        is_safetensors = stream.read(9)[8:] == b"{"
        return _read_safetensors(path, with_tensors=False)[1] if is_safetensors else {}


def write_safetensors(
    path: str | os.PathLike[str], state_dict: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write weights as safetensors; the file appears whole or not at all, and replaces another.

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
    except ARCHIVE_DAMAGE as error:
        raise CheckpointError(f"truncated or damaged zip archive ({error})") from error
    if any(name.endswith("/data.pkl") for name in names):
        return _read_torch(path)
    if any(name.endswith(".npy") for name in names):
        return _read_npz(path), {}
    raise CheckpointError(f"a zip archive without weights; it holds {shorten(names[:3])}")


def _read_npz(path: Path) -> dict[str, Tensor]:
    limit = max(_ALWAYS_ALLOWED, _LARGEST_FACTOR * path.stat().st_size)
    keys = array_sizes(path)
    # The optimizer's state beside params/ is larger than the weights: it is never read.
    members = [key for key in keys if key.startswith("params/")] or [*keys]
    arrays = read_arrays(path, limit, members)
    return {key.removeprefix("params/"): _as_tensor(key, array) for key, array in arrays.items()}


def _as_tensor(key: str, array: Shaped[np.ndarray, ...]) -> Tensor:
    if array.dtype == np.dtype("V2"):  # what numpy makes of bfloat16, which it does not know
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    try:
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
    except TypeError:
        raise CheckpointError(
            f"{shorten(key)}: expected numbers that PyTorch has, found {array.dtype}"
        ) from None


def _read_safetensors(
    path: Path, with_tensors: bool = True
) -> tuple[dict[str, Tensor], dict[str, str]]:
    with path.open("rb") as stream:
        length, there = int.from_bytes(stream.read(8), "little"), path.stat().st_size - 8
    if length > min(there, _MAX_HEADER):
        raise CheckpointError(
            f"truncated or damaged safetensors (a header of {length} bytes in a file of "
            f"{there + 8}; expected at most {_MAX_HEADER})"
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as archive:
            keys = archive.keys() if with_tensors else ()
            return {key: archive.get_tensor(key) for key in keys}, dict(archive.metadata() or {})
    except (SafetensorError, AttributeError, KeyError, RuntimeError, TypeError) as error:
        # The other errors are those of number types that PyTorch has not.
        raise CheckpointError(f"truncated or damaged safetensors ({error})") from error


def _read_torch(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    file = TorchFile.read(path)
    stored, metadata = _unwrapped(file)
    total, there = sum(tensor.bytes for tensor in stored.values()), path.stat().st_size
    if total > _LARGEST_FACTOR * there + _ALWAYS_ALLOWED:
        raise CheckpointError(f"its tensors would have {total} bytes, the file has {there}")
    tensors = {}
    for key, tensor in stored.items():
        with errors_of(shorten(key)):
            tensors[key] = file.tensor(tensor)
    return _without_prefixes(tensors), metadata


def _unwrapped(file: TorchFile) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Find the weights in what a PyTorch file holds, and the plain values beside them."""
    content = file.content
    metadata: dict[str, str] = {}
    for _ in range(len(WRAPPERS) + 1):
        if not isinstance(content, dict):
            kind = "Tensor" if isinstance(content, StoredTensor) else type(content).__name__
            raise CheckpointError(f"expected a dict of tensors, found {kind}: not a checkpoint")
        inner = next((key for key in WRAPPERS if isinstance(content.get(key), dict)), None)
        if inner is None:
            break
        scalars = {str(key): _scalar(file, value) for key, value in content.items()}
        sizes = content.get(_SIZES)
        for key, value in sizes.items() if isinstance(sizes, dict) else ():
            scalars[f"{_SIZES}.{key}"] = _scalar(file, value)
        metadata |= {key: scalar for key, scalar in scalars.items() if scalar is not None}
        beside = [str(key) for key in content if key != inner and str(key) not in metadata]
        logger.info("weights read from %r; left aside: %s", inner, ", ".join(beside) or "nothing")
        content = content[inner]
    tensors = {str(key): value for key, value in content.items() if isinstance(value, StoredTensor)}
    if not tensors:
        raise CheckpointError(f"no tensors in it; it holds {shorten([*map(str, content)][:5])}")
    return tensors, metadata


def _scalar(file: TorchFile, value: Any) -> str | None:
    """The text of a value beside the weights, if it is a single one."""
    if isinstance(value, StoredTensor) and value.shape == ():
        value = file.tensor(value).item()
    if type(value) is int and value.bit_length() > 64:
        return None  # Python prints no integer of thousands of digits
    return str(value) if type(value) in (str, bool, int, float) else None


def _without_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        stripped = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
        if len(stripped) < len(tensors):
            raise CheckpointError(f"two tensors have the same name without the prefix {prefix!r}")
        tensors = stripped
    return tensors
