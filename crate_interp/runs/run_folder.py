"""A folder that holds one run: settings, a journal of finished images, and the final files.

The journal has one JSON line an image, appended as soon as the image is done, with a checksum. A
run that was stopped, by any signal, is continued by reading it back. A line that was cut off is
dropped; a line that was damaged is told of, and its image done again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import msgspec
from filelock import FileLock, Timeout

from crate_interp.errors import InputError, shorten
from crate_interp.files import (
    checksum_of,
    parse_json_as,
    read_bytes,
    read_json_as,
    remove_leftovers,
    write_whole,
)
from crate_interp.runs.number_files import naming, write_json

__all__ = ["JournalEntry", "RunFolder", "hold_folder", "open_run_folder"]

_logger = logging.getLogger(__name__)

_ADVICE = "; once there is room, the same command goes on from here"
_TOLD = 5  # damaged lines that are told of one by one


class JournalEntry(TypedDict):
    """What the journal of every command has of an image; each adds keys of its own."""

    image_id: int
    file_name: str
    seconds: dict[str, float]


class _Line(msgspec.Struct):
    """A line of the journal.

    Attributes:
        sha256: Of the bytes of the entry.
        entry: Of one image.
    """

    sha256: str
    entry: msgspec.Raw


class RunFolder:
    """The files of one run; made by `open_run_folder`, which holds the lock."""

    def __init__(self, path: Path, entry: type) -> None:
        self.path = path
        self._entry = entry
        self._journal = path / "journal.jsonl"

    def finished(self) -> dict[int, dict[str, Any]]:
        """Read the journal's entries, by image id; damaged lines are told of, and leave the file.

        Raises:
            InputError: The journal cannot be read or written.
        """
        if not self._journal.exists():
            return {}
        lines = read_bytes(self._journal).split(b"\n")
        entries, kept, damaged = {}, [], []
        for number, line in enumerate(lines[:-1], start=1):  # behind the last newline is no line
            try:
                entry = self._entry_in(line, f"{self._journal}, line {number}")
            except InputError as error:
                damaged.append(str(error))
                continue
            entries[entry["image_id"]] = entry
            kept.append(line + b"\n")
        if damaged or lines[-1]:
            with naming(self._journal, _ADVICE), write_whole(self._journal) as file:
                file.write(b"".join(kept))
        _tell_of(damaged, self._journal)
        return entries

    def _entry_in(self, text: bytes, source: str) -> dict[str, Any]:
        line = parse_json_as(text, _Line, source)
        found = checksum_of(bytes(line.entry))
        if found != line.sha256:
            raise InputError(
                f"{source}: expected an entry of checksum {shorten(line.sha256)}, found {found}"
            )
        entry: dict[str, Any] = parse_json_as(bytes(line.entry), self._entry, source)
        return entry

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add the entry of one image; it survives the end of the process at any later point.

        Raises:
            InputError: The disk is full, or the folder cannot be written any more.
        """
        text = json.dumps(entry, allow_nan=False)
        line = f'{{"sha256": "{checksum_of(text.encode())}", "entry": {text}}}\n'
        with naming(self._journal, _ADVICE), self._journal.open("a", encoding="utf-8") as file:
            file.write(line)

    def write_json(self, name: str, content: Any) -> None:
        """Write a file of the run as a whole or not at all.

        Raises:
            InputError: As `append`.
        """
        write_json(self.path / name, content, _ADVICE)


def _tell_of(damaged: Sequence[str], journal: Path) -> None:
    for message in damaged[:_TOLD]:
        _logger.warning("%s; the image is done again", message)
    if len(damaged) > _TOLD:
        _logger.warning(
            "%s: %d more lines are damaged, or of an earlier version; their images are done again",
            journal,
            len(damaged) - _TOLD,
        )


@contextmanager
def open_run_folder(
    path: Path, settings: Mapping[str, Any], entry: type = JournalEntry
) -> Iterator[RunFolder]:
    """Start a run in `path`, or go on with the one that is there, alone.

    Args:
        path: The run folder; made if missing.
        settings: All that decides the run's results, as plain JSON types.
        entry: What the journal has of an image: a `TypedDict` that inherits from `JournalEntry`.

    Raises:
        InputError: The folder holds something else, a run of other settings, or a running one, or
            cannot be written.
    """
    settings_file = path / "settings.json"
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: expected a run folder, found a file")
    if path.is_dir() and not settings_file.exists():
        strange = [item.name for item in path.iterdir() if not item.name.startswith(".")]
        if strange:
            raise InputError(f"{path}: expected a run folder or an empty one, found {strange[0]}")
    with hold_folder(path):
        folder = RunFolder(path, entry)
        if settings_file.exists():
            _check_settings(path, read_json_as(settings_file, dict[str, Any]), settings)
        else:
            folder.write_json("settings.json", settings)
        yield folder


@contextmanager
def hold_folder(path: Path) -> Iterator[None]:
    """Keep other processes from writing a folder, and clear away what killed ones left in it.

    Args:
        path: The folder; made if missing.

    Raises:
        InputError: Another process writes there, or nobody can.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / ".lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise InputError(f"{path}: another process is writing this run") from None
    except OSError as error:
        raise InputError(f"{path}: a run cannot be written here: {error.strerror}") from error
    with lock:
        remove_leftovers(path)
        yield


def _check_settings(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    plain = json.loads(json.dumps(wanted))
    differing = [name for name in sorted({*found, *plain}) if found.get(name) != plain.get(name)]
    if differing:
        changes = "; ".join(
            f"{shorten(name)[1:-1]} was {shorten(found.get(name))}, now {shorten(plain.get(name))}"
            for name in differing
        )
        raise InputError(
            f"{path / 'settings.json'}: a run of other settings ({changes}); choose another "
            "--output"
        )
