"""Commands: their options, what they measure of an image, and what they conclude.

A command is one file of `crate_interp/commands/`, or of an installed package: a frozen dataclass
whose fields are its options. Such a file imports rooms, not torch, so that `--help` answers at
once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from crate_interp.errors import InputError
from crate_interp.runs.journal import JournalEntry
from crate_interp.runs.options import ImageOptions, ModelOptions

if TYPE_CHECKING:
    from crate_interp.data import ImageSet, ResizedImage
    from crate_interp.engine import StageClock
    from crate_interp.hooks import Observer, Site
    from crate_interp.runs.finished_run import Comparable, FinishedRun
    from crate_interp.runs.outputs import Conclusion
    from crate_interp.runs.run import Run, SeenImage

__all__ = ["OF_SIGNALS", "Command", "ImageCommand", "ImageFilesCommand", "Reading"]

OF_SIGNALS = 128  # exit codes above it are those of signals


class Command(ABC):
    """A command of `crate-interp`; its options are the fields of a dataclass.

    Attributes:
        group: Heading that it stands under in the list of commands.
        continues: Whether a command that was stopped goes on from where it was.
    """

    group: ClassVar[str]
    continues: ClassVar[bool] = False

    @classmethod
    def kind_for(cls, arguments: Sequence[str]) -> type[Command]:
        """Choose the dataclass that has the options, where they depend on the arguments.

        Args:
            arguments: Arguments of the command line, after the name of the command.
        """
        del arguments
        return cls

    @classmethod
    def command_name(cls) -> str:
        """Name for the user: `benchmark voc2012` for `commands/benchmark/voc2012.py`."""
        own = "crate_interp.commands."
        if not cls.__module__.startswith(own):
            return cls.__name__.lower()  # of another package
        return cls.__module__.removeprefix(own).replace("_", "-").replace(".", " ")

    @classmethod
    def compared(cls, run: FinishedRun) -> Comparable:
        """Give the numbers of a finished run, for `compare`; by default, all of its summary.

        Args:
            run: A run of this command.

        Raises:
            InputError: A file of the run is malformed.
        """
        from crate_interp.runs.finished_run import Comparable, numbers_of

        return Comparable(numbers_of(run.summary), percent=False)

    @abstractmethod
    def run(self) -> int:
        """Do what the command is for, and return the exit code: 1 if something failed."""


@dataclass
class Reading:
    """Sites that a command records of every image; a subclass may keep more for `measure`.

    Attributes:
        sites: Sites to record.
        blocks: Numbers of the blocks to record, from 0; negative ones count from the last.
        pictures: Number of images, from the first on, whose own pixels `measure` gets as well.
        settings: Settings that the options leave to the model, such as a site.
    """

    sites: Sequence[Site | str] = ()
    blocks: Sequence[int] = (-1,)
    pictures: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ImageCommand(Command, ModelOptions):
    """A command over images: `reading`, `measure` of each image, `conclude` of what was kept.

    The frame (`crate_interp.runs.work`) opens images and model, reads ahead, keeps the entry of
    each image as soon as it is measured, goes on with a stopped run, names images that fail, and
    writes files with their provenance.

    Attributes:
        entry: Keys of an entry that are plain values, as a `TypedDict` that inherits from
            `JournalEntry`; what a run goes on from is checked against it.
        run_folder: Whether the output is a folder that keeps journal and settings, and so refuses
            other settings. Otherwise they are kept beside it until the output is complete.
        output_is_file: Whether the output is the figure `NAME.png`, and not a folder.
        several_models: Whether `parts` may give several commands.
        one_by_one: Whether `forward` gets one image at a time, and uses `batch_size` as it likes.
        timed: Whether `summary.json` has the seconds of the stages, which no two runs share.
    """

    continues: ClassVar[bool] = True
    entry: ClassVar[type] = JournalEntry
    run_folder: ClassVar[bool] = False
    output_is_file: ClassVar[bool] = False
    several_models: ClassVar[bool] = False
    one_by_one: ClassVar[bool] = False
    timed: ClassVar[bool] = False

    output: Path | None

    def check(self) -> None:
        """Refuse what can be refused before a model is loaded.

        Raises:
            InputError: An option cannot be used.
        """
        if self.output_is_file and self.output is not None and self.output.suffix.lower() != ".png":
            raise InputError(f"{self.output}: expected a file name that ends in .png")

    def place_of_run(self, output: Path) -> Path:
        """Give the folder that keeps settings and journal; by default it lies in a folder's output.

        Args:
            output: Output that was chosen, or the default one.
        """
        if self.run_folder:
            return output
        if self.output_is_file:
            return output.parent / f".{output.stem}.run"
        return output / ".run"

    @abstractmethod
    def open_images(self) -> ImageSet:
        """Open the images.

        Raises:
            InputError: There is no image.
        """

    def default_name(self) -> str:
        """Start of the name of the run folder, where the user gives no output."""
        return self.command_name().replace(" ", "-")

    def parts(self) -> Sequence[ImageCommand]:
        """Commands of one model each, which are worked off one after the other."""
        return [self]

    def load_observer(self) -> Observer:
        """Load the model, on its device, at its input size.

        Raises:
            InputError: The model or the device cannot be had.
        """
        from crate_interp.runs.inference import load_observer

        return load_observer(self)

    @abstractmethod
    def reading(self, run: Run) -> Reading:
        """Say what to record.

        Raises:
            InputError: The model has no such site, block or head.
        """

    def forward(self, run: Run, images: Sequence[ResizedImage], stage: StageClock) -> Iterable[Any]:
        """Put a batch through the model; one output for each image, by default its activations."""
        with stage("forward"):
            rgb = [image.rgb for image in images]
            return run.observer.each(rgb, run.reading.sites, run.reading.blocks)

    @abstractmethod
    def measure(self, run: Run, image: SeenImage, output: Any) -> Mapping[str, Any]:
        """Measure one image; runs in a thread, of this process or of a worker.

        Args:
            run: Model, settings, and what `reading` returned, where a command keeps what it needs
                of the set of images: a worker has no `run.images`.
            image: The image.
            output: Activations of the image, a batch of one, or what `forward` returns.

        Returns:
            Plain values for the journal, and arrays, which are kept in a file for each image.

        Raises:
            InputError: The image fails; the others go on.
        """

    def collect(self, run: Run) -> None:
        """Measure the images; a command of several passes calls `run.each` for each of them.

        One whose result is a sum over the images calls `run.fold`, and concludes from the sum.
        """
        run.each(self.measure)

    @abstractmethod
    def conclude(self, run: Run) -> Conclusion:
        """Make tables, figures and files of `run.entries`, which are in the order of the images."""

    def run(self) -> int:
        """Work off the images, or go on with a stopped run, and write what is concluded.

        Returns:
            0, or 1 if an image failed.
        """
        from crate_interp.runs.work import work_off

        return work_off(self)


@dataclass(frozen=True, kw_only=True)
class ImageFilesCommand(ImageCommand, ImageOptions):
    """A command over image files and folders, which are its arguments."""

    def open_images(self) -> ImageSet:
        """Open the images, as `open_pictures` does."""
        from crate_interp.runs.inference import open_pictures

        return open_pictures(self)
