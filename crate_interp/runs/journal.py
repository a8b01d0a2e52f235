"""Entries of the journal of a run, one per image, read from its file when they are asked for."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, overload

__all__ = ["Entries", "EntriesById", "Entry", "JournalEntry", "arrays_of"]


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
        arrays: Folder of the files of arrays.
    """

    def __init__(self, values: JournalEntry, arrays: Path) -> None:
        super().__init__(values)
        self._arrays = arrays

    def __missing__(self, name: str) -> Any:
        from crate_interp.files import read_arrays  # not for --help

        if "arrays_sha256" not in self:
            raise KeyError(name)
        path = arrays_of(self["image_id"], self._arrays)
        return read_arrays(path, path.stat().st_size, [name])[name]


def arrays_of(image_id: int, folder: Path) -> Path:
    """Name the file of the arrays of an image."""
    return folder / f"{image_id}.npz"


# Reads the entries that begin at these bytes of the journal, in this order.
Read = Callable[[Iterable[int]], Iterator[Entry]]


class Entries(Sequence[Entry]):
    """Entries in an order; only their places in the journal are in memory.

    Args:
        places: Where each entry begins in the journal, bytes.
        read: Reads entries.
    """

    def __init__(self, places: Iterable[int], read: Read) -> None:
        self._places, self._read = array("q", places), read

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Entry]:
        return self._read(self._places) if self._places else iter(())  # there may be no file yet

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Entries: ...
    def __getitem__(self, index: int | slice) -> Entry | Entries:
        if isinstance(index, slice):
            return Entries(self._places[index], self._read)
        (entry,) = self._read([self._places[index]])
        return entry


class EntriesById(Mapping[int, Entry]):
    """Entries by the id of their image; only their places in the journal are in memory.

    Args:
        places: Where the entry of each image begins in the journal, bytes.
        read: Reads entries.
    """

    def __init__(self, places: Mapping[int, int], read: Read) -> None:
        self._places, self._read = places, read

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[int]:
        return iter(self._places)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._places

    def __getitem__(self, image_id: int) -> Entry:
        (entry,) = self._read([self._places[image_id]])
        return entry

    def of(self, image_ids: Iterable[int]) -> Entries:
        """Entries of these images, in this order, without those that there are none of."""
        places = (self._places.get(image_id) for image_id in image_ids)
        return Entries((place for place in places if place is not None), self._read)
