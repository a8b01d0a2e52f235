"""The file of a checkpoint: what `torch.save` writes, and the SHA-256 of that behind it."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypedDict

import msgspec
import torch
from torch import Tensor

from crate_interp.errors import CheckpointError, InputError, shorten
from crate_interp.files import checked_as, write_whole
from crate_interp.weights import weights_checksum

__all__ = [
    "Content",
    "is_checkpoint_name",
    "list_checkpoints",
    "read_checkpoint",
    "write_checkpoint",
]

_NAME = re.compile(r"step-\d{8}\.pt")
_MARK = b"\nsha256:"  # and 64 hexadecimal digits: the end of the file
_DIGITS = 64
_CHUNK_BYTES = 1 << 20
# What torch raises of a file that it has not written.
_UNREADABLE = (
    *(OSError, EOFError, RuntimeError, pickle.UnpicklingError, MemoryError, ValueError),
    *(KeyError, TypeError, AttributeError, IndexError, AssertionError),
)


class Content(TypedDict):
    """Content of a checkpoint."""

    model: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    ema: dict[str, Any] | None
    step: Annotated[int, msgspec.Meta(ge=0)]
    best: float | None
    seconds: float


def list_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints in a folder, by step."""
    return sorted(path for path in folder.glob("step-*.pt") if is_checkpoint_name(path.name))


def is_checkpoint_name(name: str) -> bool:
    """Whether a file is named as a checkpoint is."""
    return _NAME.fullmatch(name) is not None


def write_checkpoint(path: Path, content: Content) -> None:
    """Write a checkpoint, as a whole or not at all.

    Raises:
        InputError: It cannot be written, or has NaN or infinity in it.
    """
    if strange := _not_finite(content):
        raise InputError(
            f"{path}: expected finite numbers to save, found NaN or infinity in {strange}; the "
            "checkpoint before it is kept; a lower learning_rate or clip_norm: 1 may help"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as file:
            torch.save(content, file)
            file.flush()
            file.write(_MARK + weights_checksum(Path(file.name)).encode())
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path}: the checkpoint cannot be written: {error}") from error


def read_checkpoint(path: Path) -> Content:
    """Read a checkpoint that is as it was written.

    Raises:
        CheckpointError: It is not, or has NaN or infinity in it.
    """
    try:
        expected, actual = _checksums(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    if expected is None:
        raise CheckpointError(
            f"{path}: not a checkpoint that is whole: expected its checksum at the end, found "
            "none; it was cut off, or is of an earlier version"
        )
    if actual != expected:
        raise CheckpointError(
            f"{path}: not a checkpoint that is whole: expected the checksum {shorten(expected)}, "
            f"found {actual}"
        )
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise CheckpointError(f"{path}: not a checkpoint: {error}") from error
    try:
        content = checked_as(loaded, Content, f"{path}: not a checkpoint of this version")
    except InputError as error:
        raise CheckpointError(str(error)) from None
    if strange := _not_finite(content):
        raise CheckpointError(
            f"{path}: not a checkpoint to go on from: expected finite numbers, found NaN or "
            f"infinity in {strange}"
        )
    if path.name != f"step-{content['step']:08d}.pt":
        raise CheckpointError(f"{path}: not the checkpoint of its name, but of {content['step']}")
    return content


def _checksums(path: Path) -> tuple[str | None, str]:
    """Give the checksum at a file's end, `None` without one, and that of the bytes before it."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        left = max(0, file.seek(0, os.SEEK_END) - len(_MARK) - _DIGITS)
        file.seek(0)
        while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
            digest.update(chunk)
            left -= len(chunk)
        mark = file.read(len(_MARK) + _DIGITS)
    expected = mark[len(_MARK) :].decode("latin-1") if mark.startswith(_MARK) else None
    return expected, digest.hexdigest()


def _not_finite(content: Mapping[Any, Any]) -> str | None:
    """Name a tensor that has NaN or infinity in it, if there is one."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            if (name := _not_finite(value)) is not None:
                return f"{key}.{name}"
        elif isinstance(value, Tensor) and not bool(value.isfinite().all()):
            return str(key)
    return None
