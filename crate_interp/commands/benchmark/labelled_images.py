"""Common parts of the benchmarks of labelled images: the images, the feature, the folder."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from crate_interp.options import option
from crate_interp.options.choices import Feature
from crate_interp.options.ranges import Index
from crate_interp.runs.command import ImageCommand

if TYPE_CHECKING:
    from crate_interp.data import ImageSet, LabelledSet
    from crate_interp.runs.run import Run

__all__ = ["BenchmarkCommand"]


@dataclass(frozen=True, kw_only=True)
class BenchmarkCommand(ImageCommand):
    """A command that scores a model on labelled images; its subclasses say by what."""

    run_folder: ClassVar[bool] = True

    feature: Feature = option("features to use (auto: subspace for CRATE, key for ViT)", "auto")
    block: Index = option("block to read, from 0; negative counts from the last", -1)
    output: Path | None = option(
        "run folder (default: runs/BENCHMARK-MODEL-DATA)", None, presentation=True
    )

    @abstractmethod
    def open_labelled(self) -> LabelledSet:
        """Open the images with their labels.

        Raises:
            InputError: The data lack something, or there is no image.
        """

    @cached_property
    def labelled(self) -> LabelledSet:
        """The images with their labels."""
        return self.open_labelled().limit(self.limit)

    def open_images(self) -> ImageSet:
        """Open the images, and find the file of the labels of each."""
        return self.labelled.images

    def site_of(self, run: Run) -> str:
        """Find the feature that is used.

        Raises:
            InputError: The model has no such feature, or no such block.
        """
        from crate_interp.runs.inference import feature_of

        return feature_of(self.feature, self.block, run.observer).value
