"""The journal of a run: one JSON line per image, appended as soon as the image is done.

A line has a checksum of its entry. It is looked through for where each image's line begins; a line
is read when its entry is asked for, so that memory does not grow with what was measured. A line
that was cut off is dropped; a damaged line is logged, and its image done again. Arrays of an image
are a file of their own, whose checksum stands in the line.
"""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from crate_interp.errors import InputError, shorten
from crate_interp.files import checksum_of, opened, parse_json_as, read_bytes, write_whole
from crate_interp.runs.journal import EntriesById, Entry, JournalEntry, arrays_of
from crate_interp.runs.number_files import naming

__all__ = ["ADVICE", "JournalFile"]

_logger = logging.getLogger(__name__)

ADVICE = "; once there is room, the same command goes on from here"
_NAMED = 5  # damaged lines that are named one by one
_PIECE = 2**20  # bytes that are copied at once


class _Line(msgspec.Struct):
    """A line of the journal.

    Attributes:
        sha256: Checksum of the bytes of the entry.
        entry: Values kept of one image.
    """

    sha256: str
    entry: msgspec.Raw


class _LineOfAnything(msgspec.Struct):
    entry: dict[str, Any]


class JournalFile:
    """The journal of one pass over images.

    Args:
        path: The file, which need not be there yet.
        arrays: Folder of the arrays.
        entry: Keys of an entry: a `TypedDict` that inherits from `JournalEntry`.
    """

    def __init__(self, path: Path, arrays: Path, entry: type) -> None:
        self._path, self._arrays, self._entry = path, arrays, entry
        self._places: dict[int, int] = {}  # where the entry of each image begins, bytes
        self._lines = self._end = 0  # number and bytes of the lines that were looked through

    def remove(self) -> None:
        """Remove the file and the arrays, once what was made of them is kept."""
        self._path.unlink(missing_ok=True)
        shutil.rmtree(self._arrays, ignore_errors=True)
        self._places, self._lines, self._end = {}, 0, 0

    def finished(self) -> EntriesById:
        """Find the journal's entries, by image id; damaged lines are logged, and leave the file.

        The file is read line by line, and once: later calls read what has been added.

        Raises:
            InputError: The journal cannot be read or written.
        """
        if self._path.exists():
            self._look_through()
        return EntriesById(dict(self._places), self._entries_at)

    def _look_through(self) -> None:
        damaged = _Damaged(self._path)
        with opened(self._path) as file:
            file.seek(self._end)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # where the process was killed, or the disk was full
                self._lines += 1
                place, self._end = self._end, self._end + len(line)
                try:
                    image_id = self._checked(line, f"{self._path}, line {self._lines}")
                except InputError as error:
                    damaged.add(place, self._end, error)
                else:
                    self._places[image_id] = place
            half = self._end < file.seek(0, os.SEEK_END)
        if half:
            with naming(self._path, ADVICE):
                os.truncate(self._path, self._end)
        if damaged.count:
            with naming(self._path, ADVICE):
                damaged.cut_out()
            self._places, self._lines, self._end = {}, 0, 0
            self._look_through()
        damaged.tell()

    def _checked(self, line: bytes, source: str) -> int:
        """Check that a line is as it was written; gives the image's id."""
        entry = self._entry_of(line, source)
        image_id, sha256 = entry["image_id"], entry.get("arrays_sha256")
        if (
            sha256 is not None
            and checksum_of(read_bytes(arrays_of(image_id, self._arrays))) != sha256
        ):
            raise InputError(f"{source}: its arrays are damaged")
        return image_id

    def _entry_of(self, text: bytes, source: str) -> JournalEntry:
        line = parse_json_as(text, _Line, source)
        checksum = checksum_of(line.entry)
        if checksum != line.sha256:
            raise InputError(
                f"{source}: expected an entry of checksum {shorten(line.sha256)}, found {checksum}"
            )
        entry: JournalEntry = parse_json_as(bytes(line.entry), self._entry, source)
        return entry

    def _entries_at(self, places: Iterable[int]) -> Iterator[Entry]:
        with opened(self._path) as file:
            for place in places:
                file.seek(place)
                line, source = file.readline(), f"{self._path}, byte {place}"
                checked = self._entry_of(line, source)
                # Keys that the command has not declared are kept as well.
                values: Any = parse_json_as(line, _LineOfAnything, source).entry | checked
                yield Entry(values, self._arrays)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add the entry of one image; it survives the end of the process at any later point.

        Args:
            entry: Plain values, and arrays, which go to a file of their own.

        Raises:
            InputError: The disk is full, or the folder cannot be written any more.
        """
        arrays: dict[str, Any] = {
            name: value for name, value in entry.items() if isinstance(value, np.ndarray)
        }
        if arrays:
            path = arrays_of(entry["image_id"], self._arrays)
            content = io.BytesIO()
            np.savez(content, **arrays)
            with naming(path, ADVICE):
                path.parent.mkdir(exist_ok=True)
                with write_whole(path) as file:
                    file.write(content.getbuffer())
            plain = {name: value for name, value in entry.items() if name not in arrays}
            entry = {**plain, "arrays_sha256": checksum_of(content.getvalue())}
        text = json.dumps(entry, allow_nan=False)
        line = f'{{"sha256": "{checksum_of(text.encode())}", "entry": {text}}}\n'.encode()
        with naming(self._path, ADVICE), self._path.open("ab") as file:
            place = file.tell()
            file.write(line)
        if place == self._end:  # so that it need not be read again
            self._places[entry["image_id"]] = place
            self._lines, self._end = self._lines + 1, place + len(line)


class _Damaged:
    """Lines of a journal that are not as they were written.

    Args:
        journal: The file.

    Attributes:
        count: Number of the lines.
    """

    def __init__(self, journal: Path) -> None:
        self.count = 0
        self._path = journal
        self._messages: list[str] = []
        self._parts: list[tuple[int, int]] = []  # of the file, bytes; neighbours are one part

    def add(self, start: int, end: int, error: InputError) -> None:
        """Add a line, which has these bytes of the file."""
        self.count += 1
        if len(self._messages) < _NAMED:
            self._messages.append(str(error))
        if self._parts and self._parts[-1][1] == start:
            start, _ = self._parts.pop()
        self._parts.append((start, end))

    def cut_out(self) -> None:
        """Write the journal anew, without them."""
        with self._path.open("rb") as old, write_whole(self._path) as new:
            for start, end in self._parts:
                while (size := min(_PIECE, start - old.tell())) > 0:
                    new.write(old.read(size))
                old.seek(end)
            shutil.copyfileobj(old, new)

    def tell(self) -> None:
        """Log the first ones, and how many more there are."""
        for message in self._messages:
            _logger.warning("%s; the image is done again", message)
        if self.count > _NAMED:
            _logger.warning(
                "%s: %d more lines are damaged, or of an earlier version; their images are done "
                "again",
                self._path,
                self.count - _NAMED,
            )
