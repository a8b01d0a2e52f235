"""A worker of a cluster: it has a model of its own, and measures the images that it is sent."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from crate_interp.engine import Finished
from crate_interp.errors import InputError
from crate_interp.runs.passes import Pass

if TYPE_CHECKING:
    from crate_interp.data import ImageRecord
    from crate_interp.runs.command import ImageCommand
    from crate_interp.runs.run import Run

__all__ = ["Place", "Sent", "Shard", "Worker"]

_SEND_EVERY = 0.5  # seconds; what a worker has not sent is done again if it dies


@dataclass(frozen=True)
class Place:
    """What a worker takes over from the process that sends it images.

    Attributes:
        folder: Working folder, which relative paths begin at.
        threads: Number of threads of the forward pass.
        workers: Number of threads that read images, and that finish them.
    """

    folder: Path
    threads: int
    workers: int


@dataclass
class Shard:
    """Neighbouring images, whole batches of them, that one worker gets at a time.

    Attributes:
        number: Position among the shards of a pass, from 0.
        records: The images.
        left: Ids of those that are still to be measured.
        trial_of: Shard that the one image is tried out of, alone; what is measured is dropped.
        deaths: Number of workers that died over them.
        taken_apart: Whether the images were tried alone.
        trials: Number of images that are still to be tried alone.
        fatal: Images that kill workers alone.
    """

    number: int
    records: Sequence[ImageRecord]
    left: set[int]
    trial_of: Shard | None = None
    deaths: int = 0
    taken_apart: bool = False
    trials: int = 0
    fatal: list[ImageRecord] = field(default_factory=list)


@dataclass
class Sent:
    """What a worker sends at once.

    Attributes:
        finished: Images that are done.
        logged: Level and text of what was logged.
        error: Why the worker cannot go on, if it cannot.
    """

    finished: list[Finished[Mapping[str, Any]]] = field(default_factory=list)
    logged: list[tuple[int, str]] = field(default_factory=list)
    error: InputError | None = None


class _Log(logging.Handler):
    """Keeps what is logged, for the process that has a user."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._logged: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._logged.append((record.levelno, record.getMessage()))

    def take(self) -> list[tuple[int, str]]:
        """Give what was logged since the last time."""
        logged, self._logged = self._logged, []
        return logged


class Worker:
    """Measures images with a model of its own.

    Making one costs nothing, so that one that takes the place of another is there at once; the
    model is loaded for the first images.

    Args:
        command: The command, with one model.
        place: Where and how it works.
    """

    def __init__(self, command: ImageCommand, place: Place) -> None:
        self._command = command
        self._place = place
        self._log = _Log()
        logging.getLogger("crate_interp").addHandler(self._log)
        if place.folder.is_dir():  # other machines may lack it, where all paths are absolute
            os.chdir(place.folder)

    @cached_property
    def _run(self) -> Run:
        from crate_interp.runs.provenance import provenance_of
        from crate_interp.runs.run import Run

        torch.set_num_threads(self._place.threads)
        observer = self._command.load_observer()
        provenance = provenance_of(self._command, observer)
        nowhere: Any = _NotHere()  # a run of a worker has no folder, and sends it on to no other
        return Run(self._command, observer, nowhere, Path(), provenance, nowhere)

    def about(self, folders: Sequence[str]) -> tuple[str, dict[str, Any] | str]:
        """Load the model, and tell what it is made of.

        Args:
            folders: Folders of the images.

        Returns:
            Name of the machine, and the provenance; or why there is none.
        """
        host = platform.node()
        missing = next((folder for folder in folders if not Path(folder).is_dir()), None)
        if missing is not None:
            return host, f"{missing}: expected the images of the run, found no such folder"
        try:
            return host, self._run.provenance
        except InputError as error:
            return host, str(error)

    def work(self, work: Pass, settings: Mapping[str, Any], shard: Shard) -> Iterator[Sent]:
        """Measure images.

        Args:
            work: What is made of each image.
            settings: Settings of the run.
            shard: The images.

        Yields:
            Images in the order in which they are done, some at a time.
        """
        run = self._run
        run.reading = work.reading
        run.provenance = {**run.provenance, "settings": dict(settings)}
        done = {record.image_id for record in shard.records} - shard.left
        outcomes = work.process(run, shard.records, done, self._place.workers, read_in_threads=True)
        finished: list[Finished[Mapping[str, Any]]] = []
        sent = time.monotonic()
        try:
            with closing(outcomes):
                for image in outcomes:
                    finished.append(_sendable(image))
                    if time.monotonic() - sent > _SEND_EVERY:
                        yield Sent(finished, self._log.take())
                        finished, sent = [], time.monotonic()
        except InputError as error:
            yield Sent(finished, self._log.take(), error)
        else:
            yield Sent(finished, self._log.take())


class _NotHere:
    """Stands for what only the process that the user started has."""

    def __getattr__(self, name: str) -> Any:
        raise InputError(
            f"{name}: a worker has one image, not the set; a command keeps in its `reading` what "
            "`measure` needs of the set"
        )


def _sendable(image: Finished[Mapping[str, Any]]) -> Finished[Mapping[str, Any]]:
    """Bring an image's tensors where another process can have them."""
    if image.result is None:
        return image
    values = {
        name: value.cpu() if isinstance(value, torch.Tensor) else value
        for name, value in image.result.items()
    }
    return replace(image, result=values)
