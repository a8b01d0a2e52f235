"""Files that appear whole or not at all, also when the process is killed or the disk is full."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

__all__ = ["checksum_of", "remove_leftovers", "write_whole"]


@contextmanager
def write_whole(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file for writing that takes its name when the `with` block ends without an error.

    Args:
        path: The file; one of that name is replaced.
        mode: `wb`, or `w` for text (UTF-8, newlines as written).

    Raises:
        OSError: The file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        with partial.open(mode, **text) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what `write_whole` left in a folder, or in those in it, when its process was killed.

    Nobody else may be writing there: call it with the folder's lock held.
    """
    for partial in folder.rglob(".*.partial"):
        partial.unlink(missing_ok=True)


def checksum_of(content: bytes) -> str:
    """Compute the SHA-256 of bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
