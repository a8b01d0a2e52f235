"""A folder that holds one run: settings, a journal of finished images, and the final files.

The journal has one JSON line an image, appended as soon as the image is done. A run that was
stopped, by any signal, is continued by reading it back; a line cut off at the end is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from crate_interp.errors import InputError

__all__ = ["RunFolder", "open_run_folder"]


class RunFolder:
    """The files of one run; made by `open_run_folder`, which holds the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._journal = path / "journal.jsonl"

    def finished(self) -> dict[int, dict[str, Any]]:
        """The journal's entries by image id."""
        if not self._journal.exists():
            return {}
        content = self._journal.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with self._journal.open("r+b") as file:
                file.truncate(len(whole))
        try:
            entries = [json.loads(line) for line in whole.splitlines()]
            return {entry["image_id"]: entry for entry in entries}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self._journal}: a line is no entry of this run ({error})") from None

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add the entry of one image; it survives the end of the process at any later point.

        Raises:
            InputError: The disk is full, or the folder cannot be written any more.
        """
        line = json.dumps(entry) + "\n"
        with _writing(self._journal), self._journal.open("a") as file:
            file.write(line)

    def write_json(self, name: str, content: Any) -> None:
        """Write a file of the run as a whole or not at all.

        Raises:
            InputError: As `append`.
        """
        text = json.dumps(content, indent=1 if isinstance(content, dict) else None)
        part = self.path / f".{name}.part"
        with _writing(self.path / name):
            part.write_text(text + "\n")
            part.replace(self.path / name)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Name the file that cannot be written; the system's message of a full disk does not."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written: {error.strerror}; once there is room, "
            "the same command goes on from here"
        ) from error


@contextmanager
def open_run_folder(path: Path, settings: Mapping[str, Any]) -> Iterator[RunFolder]:
    """Start a run in `path`, or go on with the one that is there, alone.

    Args:
        path: The run folder; made if missing.
        settings: All that decides the run's results, as plain JSON types.

    Raises:
        InputError: The folder holds something else, a run of other settings, or a running one, or
            cannot be written.
    """
    settings_file = path / "settings.json"
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: expected a run folder, found a file")
    if path.is_dir() and not settings_file.exists():
        strange = [entry.name for entry in path.iterdir() if not entry.name.startswith(".")]
        if strange:
            raise InputError(f"{path}: expected a run folder or an empty one, found {strange[0]}")
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / ".lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise InputError(f"{path}: another process is writing this run") from None
    except OSError as error:
        raise InputError(f"{path}: a run cannot be written here: {error.strerror}") from error
    with lock:
        folder = RunFolder(path)
        if settings_file.exists():
            _check_settings(path, json.loads(settings_file.read_text()), settings)
        else:
            folder.write_json("settings.json", settings)
        yield folder


def _check_settings(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    plain = json.loads(json.dumps(wanted))
    differing = [name for name in sorted({*found, *plain}) if found.get(name) != plain.get(name)]
    if differing:
        changes = "; ".join(
            f"{name} was {found.get(name)!r}, now {plain.get(name)!r}" for name in differing
        )
        raise InputError(
            f"{path} holds a run of other settings ({changes}): choose another --output"
        )
