"""A folder that holds one run: settings, a journal of finished images, and the final files.

The journal has one JSON line per image, appended as soon as the image is done, with a checksum. A
run that was stopped, by any signal, is continued by reading it back. A line that was cut off is
dropped; a damaged line is logged, and its image done again. Arrays of an image are a file
of their own, whose checksum stands in the line.
"""

from __future__ import annotations

import io
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
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
from crate_interp.runs.journal import Entry, JournalEntry
from crate_interp.runs.number_files import naming, write_file, write_json

__all__ = ["RunFolder", "hold_folder", "open_run_folder"]

_logger = logging.getLogger(__name__)

_ADVICE = "; once there is room, the same command goes on from here"
_NAMED = 5  # damaged lines that are named one by one


class _Line(msgspec.Struct):
    """A line of the journal.

    Attributes:
        sha256: Checksum of the bytes of the entry.
        entry: Values kept of one image.
    """

    sha256: str
    entry: msgspec.Raw


class RunFolder:
    """The files of one run; made by `open_run_folder`, which holds the lock."""

    def __init__(self, path: Path, entry: type, name: str = "journal") -> None:
        self.path = path
        self._entry = entry
        self._journal = path / f"{name}.jsonl"
        self._arrays = path / ("arrays" if name == "journal" else name)
        self._sound: set[str] = set()  # checksums of arrays that need not be read again

    def journal(self, name: str) -> RunFolder:
        """Give the same folder with another journal, for another pass over images.

        Its entries are checked to have the keys of `JournalEntry`; those of the journal of the name
        `journal`, to have all that the command declares.
        """
        return self if name == "journal" else RunFolder(self.path, JournalEntry, name)

    def remove_journal(self) -> None:
        """Remove the journal and its arrays, once what was made of them is kept."""
        self._journal.unlink(missing_ok=True)
        shutil.rmtree(self._arrays, ignore_errors=True)

    def finished(self) -> dict[int, Entry]:
        """Read the journal's entries, by image id; damaged lines are logged, and leave the file.

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
            entries[entry["image_id"]] = Entry(entry, self._arrays_of(entry["image_id"]))
            kept.append(line + b"\n")
        if damaged or lines[-1]:
            with naming(self._journal, _ADVICE), write_whole(self._journal) as file:
                file.write(b"".join(kept))
        _tell_of(damaged, self._journal)
        return entries

    def _arrays_of(self, image_id: int) -> Path:
        return self._arrays / f"{image_id}.npz"

    def _entry_in(self, text: bytes, source: str) -> JournalEntry:
        line = parse_json_as(text, _Line, source)
        checksum = checksum_of(bytes(line.entry))
        if checksum != line.sha256:
            raise InputError(
                f"{source}: expected an entry of checksum {shorten(line.sha256)}, found {checksum}"
            )
        checked: JournalEntry = parse_json_as(bytes(line.entry), self._entry, source)
        # Keys that the command has not declared are kept as well.
        entry: Any = parse_json_as(bytes(line.entry), dict[str, Any], source) | checked
        sha256 = entry.get("arrays_sha256")
        if sha256 is not None and sha256 not in self._sound:
            if checksum_of(read_bytes(self._arrays_of(entry["image_id"]))) != sha256:
                raise InputError(f"{source}: its arrays are damaged")
            self._sound.add(sha256)
        return entry  # type: ignore[no-any-return]

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
            path = self._arrays_of(entry["image_id"])
            content = io.BytesIO()
            np.savez(content, **arrays)
            with naming(path, _ADVICE):
                path.parent.mkdir(exist_ok=True)
                with write_whole(path) as file:
                    file.write(content.getbuffer())
            plain = {name: value for name, value in entry.items() if name not in arrays}
            entry = {**plain, "arrays_sha256": checksum_of(content.getvalue())}
            self._sound.add(entry["arrays_sha256"])
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

    def write_file(self, name: str, content: str | bytes) -> None:
        """Write a file of the run as a whole or not at all.

        Raises:
            InputError: As `append`.
        """
        write_file(self.path / name, content, _ADVICE)


def _tell_of(damaged: Sequence[str], journal: Path) -> None:
    for message in damaged[:_NAMED]:
        _logger.warning("%s; the image is done again", message)
    if len(damaged) > _NAMED:
        _logger.warning(
            "%s: %d more lines are damaged, or of an earlier version; their images are done again",
            journal,
            len(damaged) - _NAMED,
        )


@contextmanager
def open_run_folder(
    path: Path, settings: Mapping[str, Any], entry: type = JournalEntry, keep: bool = True
) -> Iterator[RunFolder]:
    """Start a run in `path`, or go on with the one that is there, alone.

    Args:
        path: The run folder; made if missing.
        settings: All that decides the run's results, as plain JSON types.
        entry: Keys of an image in the journal: a `TypedDict` that inherits from `JournalEntry`.
        keep: Whether the folder stays, and so refuses other settings; otherwise a run of other
            settings there is dropped, and the folder goes when the `with` block ends well.

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
            differing = _differences(settings_file, settings)
            if differing and keep:
                raise InputError(
                    f"{settings_file}: a run of other settings ({differing}); choose another "
                    "--output"
                )
            if differing:
                _empty(path)
        if not settings_file.exists():
            folder.write_json("settings.json", settings)
        yield folder
        if not keep:
            _empty(path)
    if not keep:
        (path / ".lock").unlink(missing_ok=True)
        path.rmdir()


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


def _empty(path: Path) -> None:
    """Remove everything in a folder but its lock, the settings last."""
    items = [item for item in path.iterdir() if item.name not in (".lock", "settings.json")]
    for item in items:
        if item.is_dir():
            shutil.rmtree(item)
        else:
            item.unlink()
    (path / "settings.json").unlink(missing_ok=True)


def _differences(path: Path, settings: Mapping[str, Any]) -> str:
    """Settings that are not those of the run in a folder, in words."""
    stored = read_json_as(path, dict[str, Any])
    plain = json.loads(json.dumps(settings, default=str))  # paths
    differing = [name for name in sorted({*stored, *plain}) if stored.get(name) != plain.get(name)]
    return "; ".join(
        f"{shorten(name)[1:-1]} was {shorten(stored.get(name))}, now {shorten(plain.get(name))}"
        for name in differing
    )
