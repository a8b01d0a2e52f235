"""Entries of the journal of a run, one per image."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

__all__ = ["Entry", "JournalEntry"]


class _WithArrays(TypedDict, total=False):
    arrays_sha256: str


class JournalEntry(_WithArrays):
    """Keys that every command has in the entry of an image; each adds keys of its own."""

    image_id: int
    file_name: str
    seconds: dict[str, float]


class Entry(dict[str, Any]):
    """Entry of an image: plain values, and arrays, which are read when they are asked for.

    Args:
        values: Plain values.
        arrays: File of the arrays.
    """

    def __init__(self, values: JournalEntry, arrays: Path) -> None:
        super().__init__(values)
        self._arrays = arrays

    def __missing__(self, name: str) -> Any:
        from crate_interp.files import read_arrays  # not for --help

        if "arrays_sha256" not in self:
            raise KeyError(name)
        return read_arrays(self._arrays, self._arrays.stat().st_size, [name])[name]
