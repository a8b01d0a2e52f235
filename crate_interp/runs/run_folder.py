"""A folder that holds one run: settings, a journal of finished images, and the final files.

A run that was stopped, by any signal, goes on from its journal (`runs/journal_file.py`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from crate_interp.data.export import Content
from crate_interp.errors import InputError, shorten
from crate_interp.files import (
    read_json_as,
    remove_leftovers,
)
from crate_interp.runs.journal import JournalEntry
from crate_interp.runs.journal_file import ADVICE, JournalFile
from crate_interp.runs.number_files import write_file, write_json

__all__ = ["RunFolder", "hold_folder", "open_run_folder"]


class RunFolder:
    """The files of one run; made by `open_run_folder`, which holds the lock."""

    def __init__(self, path: Path, entry: type) -> None:
        self.path, self._entry = path, entry

    def journal(self, name: str = "journal") -> JournalFile:
        """Give a journal of the run; each pass over images has one of its own.

        The entries of the journal of the name `journal` are checked to have all keys that the
        command declares; those of others, to have the keys of `JournalEntry`.
        """
        if name == "journal":
            return JournalFile(self.path / "journal.jsonl", self.path / "arrays", self._entry)
        return JournalFile(self.path / f"{name}.jsonl", self.path / name, JournalEntry)

    def write_json(self, name: str, content: Any) -> None:
        """Write a file of the run as a whole or not at all.

        Raises:
            InputError: The disk is full, or the folder cannot be written any more.
        """
        write_json(self.path / name, content, ADVICE)

    def write_file(self, name: str, content: Content) -> None:
        """Write a file of the run as a whole or not at all, as `number_files.write_file`.

        Raises:
            InputError: As `write_json`.
        """
        write_file(self.path / name, content, ADVICE)


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
        is_new = not settings_file.exists()
        if is_new:
            folder.write_json("settings.json", settings)
        try:
            yield folder
        except InputError:
            if is_new and _has_settings_alone(path):  # corrected options are no other run's
                settings_file.unlink()
            raise
        if not keep:
            _empty(path)
    if not keep:
        (path / ".lock").unlink(missing_ok=True)
        path.rmdir()


def _has_settings_alone(path: Path) -> bool:
    return {item.name for item in path.iterdir()} <= {"settings.json", ".lock"}


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
