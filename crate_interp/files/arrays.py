"""Arrays of an .npz file, allocated only after its headers have said how large they are."""

from __future__ import annotations

import lzma
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Collection
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import Shaped

from crate_interp.errors import InputError, shorten

__all__ = ["ARCHIVE_DAMAGE", "array_sizes", "read_arrays"]

# What zipfile raises on damaged archives, encrypted ones (RuntimeError) and unknown kinds of them.
ARCHIVE_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,  # UnicodeDecodeError: names
    RuntimeError,
    OverflowError,
    IndexError,
)

MAX_HEADER = 4096
MAX_MEMBERS = 100_000
_HEADER = re.compile(
    r"\{\s*'descr':\s*'([<>=|]?[A-Za-z]\d{0,9})',\s*'fortran_order':\s*(True|False),\s*"
    r"'shape':\s*\(((?:\d{1,19}L?,?\s*)*)\),?\s*\}\s*"
)
_KINDS = "biufU"  # booleans, integers, floats, texts; and 2 bytes of anything, which bfloat16 is


class _Header(NamedTuple):
    dtype: np.dtype[np.generic]
    by_column: bool
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def array_sizes(path: str | os.PathLike[str]) -> dict[str, int]:
    """Read the names of an .npz file's arrays, and the bytes that each says it has.

    Raises:
        InputError: The file is no zip archive, or a name occurs twice.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: member.file_size for name, member in _members(archive).items()}
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except ARCHIVE_DAMAGE as error:
        raise _damaged(path, error) from None


def read_arrays(
    path: str | os.PathLike[str], limit_bytes: int, keys: Collection[str] | None = None
) -> dict[str, Shaped[np.ndarray, ...]]:
    """Read arrays of an .npz file.

    Args:
        path: The file.
        limit_bytes: Most bytes that the arrays may have together; a file that declares more is
            refused before anything is allocated.
        keys: Names of the arrays to read; by default, all.

    Returns:
        Arrays of booleans, integers, floats, texts, or 2 bytes per value (bfloat16, as `V2`).

    Raises:
        InputError: The file is no .npz, or damaged; a key is missing; an array is of another type,
            or larger than its part of the file; all are larger than `limit_bytes`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive)
            missing = [key for key in keys or () if key not in members]
            if missing:
                raise InputError(
                    f"expected an array {shorten(missing[0])}, found {shorten([*members])}"
                )
            chosen = [*members] if keys is None else list(dict.fromkeys(keys))
            total = sum(members[key].file_size for key in chosen)
            if total > limit_bytes:
                raise InputError(
                    f"expected at most {limit_bytes} bytes of arrays, found {total} declared"
                )
            return {key: _read(archive, members[key], key) for key in chosen}
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except ARCHIVE_DAMAGE as error:
        raise _damaged(path, error) from None


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    entries = archive.infolist()
    if len(entries) > MAX_MEMBERS:
        raise InputError(f"expected at most {MAX_MEMBERS} arrays, found {len(entries)}")
    for member in entries:
        if member.filename.endswith(".npy"):
            name = member.filename.removesuffix(".npy")
            if name in members:
                raise InputError(f"{shorten(name)} is in the archive twice")
            members[name] = member
    return members


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, key: str) -> Shaped[np.ndarray, ...]:
    try:
        with archive.open(member) as file:
            header, length = _header(file)
            if length + header.bytes != member.file_size:
                raise InputError(
                    f"expected {header.dtype} of shape {shorten(header.shape)} in "
                    f"{header.bytes} bytes, found {member.file_size - length}"
                )
            values = np.empty(math.prod(header.shape), header.dtype)
            _fill(values.view(np.uint8).data, file)
            file.read(1)  # the end: zipfile compares the checksum there
    except InputError as error:
        raise InputError(f"{shorten(key)}: {error}") from None
    except ARCHIVE_DAMAGE as error:
        raise InputError(f"{shorten(key)} is damaged: {error}") from None
    return values.reshape(header.shape, order="F" if header.by_column else "C")


def _header(file: IO[bytes]) -> tuple[_Header, int]:
    """The header of an .npy file, and its length in bytes."""
    start = file.read(8)
    if start[:6] != b"\x93NUMPY" or len(start) < 8 or start[6] not in (1, 2, 3):
        raise InputError(f"expected an .npy file, found one that begins with {start!r}")
    of_length = file.read(2 if start[6] == 1 else 4)
    length = int.from_bytes(of_length, "little")
    if length > MAX_HEADER:
        raise InputError(f"expected a header of at most {MAX_HEADER} bytes, found {length}")
    text = file.read(length).decode("latin-1")
    fields = _HEADER.fullmatch(text)
    if not fields:
        raise InputError(f"expected the header of a plain array, found {shorten(text)}")
    try:
        dtype = np.dtype(fields[1])
    except TypeError:
        raise InputError(f"expected numbers or texts, found the type {fields[1]!r}") from None
    if dtype.itemsize == 0 or (dtype.kind not in _KINDS and dtype != np.dtype("V2")):
        raise InputError(f"expected numbers or texts, found the type {fields[1]!r}")
    shape = tuple(int(side) for side in re.findall(r"\d+", fields[3]))
    if len(shape) > 32 or any(side >= 1 << 62 for side in shape):
        raise InputError(f"expected the shape of an array, found {shorten(shape)}")
    return _Header(dtype, fields[2] == "True", shape), len(start) + len(of_length) + length


def _fill(buffer: memoryview, file: IO[bytes]) -> None:
    at = 0
    while at < len(buffer):
        piece = file.read(min(1 << 20, len(buffer) - at))
        if not piece:
            raise EOFError(f"expected {len(buffer)} bytes, found {at}")
        buffer[at : at + len(piece)] = piece
        at += len(piece)


def _damaged(path: str | os.PathLike[str], error: Exception) -> InputError:
    if isinstance(error, OSError) and error.strerror:
        return InputError(f"{path}: cannot be read: {error.strerror}")
    return InputError(f"{path}: not an .npz file, or damaged: {error}")
