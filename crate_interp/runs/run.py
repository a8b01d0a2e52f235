"""One model of a command at work on the images: each is measured, and kept as soon as it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Container, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crate_interp.data import ImageRecord, ImageSet
from crate_interp.errors import InputError
from crate_interp.hooks import Observer
from crate_interp.runs.engines import Engine
from crate_interp.runs.fold import Accumulator, Fold
from crate_interp.runs.journal import Entry
from crate_interp.runs.passes import Forward, Measure, Pass, SeenImage
from crate_interp.runs.progress import progress_bar
from crate_interp.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from crate_interp.runs.command import ImageCommand

__all__ = ["Run", "SeenImage"]


@dataclass
class Run:
    """One model of a command at work on the images.

    Attributes:
        command: The options, with one model.
        observer: The model.
        images: The images.
        output: Place of the final files: the run folder, or the file that the user names.
        provenance: Weights, settings and versions, which stand beside every number.
        engine: Where the images are worked off.
        reading: Result of `command.reading`.
        folder: Folder that keeps the journal.
        entries: Entries of the images that did not fail, in their order.
        failed: Images that failed, with reasons.
        sums: Sums over the images, of a command that folds them.
        measured: Number of images that this process has kept an entry of.
        parts: Runs of all models of the command, this one among them.
        this_time: Images, seconds and memory of this process.
    """

    command: ImageCommand
    observer: Observer
    images: ImageSet
    output: Path
    provenance: dict[str, Any]
    engine: Engine
    reading: Any = None  # a subclass of `Reading`
    folder: RunFolder = field(init=False)
    entries: Sequence[Entry] = ()
    failed: list[dict[str, Any]] = field(default_factory=list)
    sums: Any = None
    measured: int = 0
    parts: Sequence[Run] = ()
    this_time: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings, as the provenance has them; `model` and `size` among them."""
        return dict(self.provenance["settings"])

    @property
    def batch_size(self) -> int:
        """Number of images in a forward pass."""
        return 1 if self.command.one_by_one else int(self.provenance["settings"]["batch_size"])

    def each(
        self,
        measure: Measure,
        forward: Forward | None = None,
        name: str = "journal",
        images: ImageSet | None = None,
    ) -> Sequence[Entry]:
        """Measure the images that the journal lacks, and keep the entry of each.

        Args:
            measure: See `ImageCommand.measure`.
            forward: See `ImageCommand.forward`, which is the default.
            name: Name of the journal, where a command has several passes.
            images: Other images than those of the run, for a pass of its own.

        Returns:
            Entries of all images that did not fail, in their order; also as `entries`.

        Raises:
            InputError: The journal cannot be written; `strict`, and an image failed.
        """
        images, journal, writing = images or self.images, self.folder.journal(name), 0.0
        with closing(self._measured(images, measure, forward, journal.finished())) as measured:
            for record, values, stages in measured:
                # An entry cannot hold the seconds of its own writing: those of the one before.
                seconds = {**stages, "write": writing}
                started = time.perf_counter()
                journal.append({**_name_of(record), **values, "seconds": seconds})
                writing = time.perf_counter() - started
                self.measured += 1
        self.entries = journal.finished().of(record.image_id for record in images.records)
        return self.entries

    def fold(
        self, measure: Measure, accumulator: Accumulator, forward: Forward | None = None
    ) -> None:
        """Measure the images, and add up what is measured instead of keeping it of each.

        Args:
            measure: See `ImageCommand.measure`; returns what `accumulator` adds, by name.
            accumulator: Sums of no image yet. A stopped run goes on from those that it kept.
            forward: See `ImageCommand.forward`, which is the default.

        Raises:
            InputError: The sums cannot be written, or refuse an image.
        """
        self.sums = accumulator
        with closing(Fold(self.folder.path / "sums.npz", accumulator)) as sums:
            done = set(sums.image_ids)
            with closing(
                self._measured(self.images, measure, forward, done, in_order=True)
            ) as measured:
                for record, values, _ in measured:
                    sums.add(record.image_id, values)
        done = set(sums.image_ids)
        self.entries = [
            Entry(
                {"image_id": record.image_id, "file_name": record.file_name, "seconds": {}},
                self.folder.path,
            )
            for record in self.images.records
            if record.image_id in done
        ]

    @property
    def pictured(self) -> list[Entry]:
        """Entries of the images whose pictures `measure` got; they are the first of `entries`."""
        pictured = self._pictured_ids()
        first = self.entries[: len(pictured)]
        return [entry for entry in first if entry["image_id"] in pictured]

    @property
    def stem(self) -> str:
        """Name of the outputs of a command whose output is a file, without suffix."""
        return self.output.stem

    def _pictured_ids(self) -> frozenset[int]:
        records = self.images.records[: self.reading.pictures]
        return frozenset(record.image_id for record in records)

    def _measured(
        self,
        images: ImageSet,
        measure: Measure,
        forward: Forward | None,
        done: Container[int],
        in_order: bool = False,
    ) -> Generator[tuple[ImageRecord, Mapping[str, Any], dict[str, float]], None, None]:
        """Measure the images that are not done: each with its values and the seconds of stages."""
        pictured = self._pictured_ids() if images is self.images else frozenset[int]()
        work = Pass(measure, forward or self.command.forward, self.reading, pictured)
        outcomes = self.engine.process(self, work, images.records, done, in_order)
        before = sum(record.image_id in done for record in images.records)
        bar = progress_bar(
            desc=self.command.command_name(),
            total=len(images.records),
            initial=before,
            unit="image",
        )
        with closing(outcomes), bar as progress:
            for image in outcomes:
                if image.error is not None:
                    self._fail(image.record, image.error)
                    progress.write(f"failed: {image.error}", file=sys.stderr)
                elif image.result is not None:
                    yield image.record, image.result, image.seconds
                progress.update()

    def _fail(self, record: ImageRecord, error: InputError) -> None:
        if getattr(self.command, "strict", False):
            raise error
        if all(entry["image_id"] != record.image_id for entry in self.failed):
            self.failed.append({**_name_of(record), "reason": str(error)})


def _name_of(record: ImageRecord) -> dict[str, Any]:
    return {"image_id": record.image_id, "file_name": record.file_name}
