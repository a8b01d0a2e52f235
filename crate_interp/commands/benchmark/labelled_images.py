"""Common parts of the benchmarks of labelled images: the images, the feature, the folder."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from crate_interp import data, visualization
from crate_interp.commands.benchmark.examples import masks_of_example
from crate_interp.commands.scored_images import score_histogram, score_pictures
from crate_interp.options import option
from crate_interp.options.choices import Feature
from crate_interp.options.ranges import Index
from crate_interp.runs.command import ImageCommand

if TYPE_CHECKING:
    from jaxtyping import Bool

    from crate_interp.data import ImageSet, LabelledSet
    from crate_interp.runs.journal import Entry
    from crate_interp.runs.run import Run
    from crate_interp.visualization import Section

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

    def score_sections(
        self,
        run: Run,
        name: str,
        scores: Mapping[int, float],
        titles: Sequence[str] = (),
        background: int | None = None,
    ) -> list[Section]:
        """Show how a score is spread over the images, and the best and the worst with the truth.

        Args:
            run: The run.
            name: Name of the score.
            scores: Score of each image that has one, by id, in [0, 1].
            titles: Words for the masks that `example_of` kept of the first images, the truth's
                first; empty if it kept none.
            background: Label that is left out of the truth; `None` for none.
        """
        records = {record.image_id: record for record in run.images.records}

        def masks_of(entry: Entry, hw: tuple[int, int]) -> dict[str, Bool[np.ndarray, "M H W"]]:
            if titles and "arrays_sha256" in entry:
                return masks_of_example(run, entry, titles)
            labels = self.labelled.labels_of(records[entry["image_id"]], hw)
            return {"truth": data.truth_masks(labels, None, background)[0]}

        chart = score_histogram(name, scores)
        return [
            visualization.Section(f"{name} by image", [chart], "by-image"),
            *score_pictures(run, name, scores, masks_of),
        ]
