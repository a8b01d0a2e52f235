"""How far and how widely heads look, by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from crate_interp import analysis, models, visualization
from crate_interp.commands.attention_figure import AttendedImage, AttentionFigure, note_of
from crate_interp.runs.outputs import Conclusion, Drawing, Output, Table

if TYPE_CHECKING:
    from crate_interp.runs.run import Run

__all__ = ["Curves"]

MEASURED = ("distance", "entropy", "rollout_entropy")


@dataclass(frozen=True, kw_only=True)
class Curves(AttentionFigure):
    """Distance, entropy and rollout by block, mean over images."""

    summary: ClassVar[str] = "distance, entropy and rollout by block"
    every_block: ClassVar[bool] = True
    pictures: ClassVar[int] = 0
    numbers: ClassVar = ("rollout", *MEASURED)
    files: ClassVar = ("curves", "rollout")

    def measure(self, image: AttendedImage) -> Mapping[str, Any]:
        """Keep the statistics of all blocks."""
        return image.statistics

    def conclude(self, run: Run) -> Conclusion:
        """Draw one figure, and write means and standard deviations over images."""
        return Conclusion(_outputs(run))


def _outputs(run: Run) -> Iterator[Output]:
    geometry = run.observer.geometry(run.observer.input_hw)
    spacing_hw = geometry.stride_hw or geometry.patch_hw
    patches = geometry.grid_hw[0] * geometry.grid_hw[1]
    prefix = models.prefix_tokens_of(run.observer.model)
    measured = {key: np.stack([entry[key] for entry in run.entries]) for key in MEASURED}
    uniform = analysis.uniform_distance(geometry.grid_hw, spacing_hw)
    figure = visualization.attention_curves(
        **measured,
        uniform=(uniform, log(patches + prefix), log(patches)),
        note=note_of(
            run,
            f"mean over images: {len(run.entries)}",
            f"distance in pixels of the input, a patch has {geometry.patch_hw[0]}",
        ),
        width=run.command.width_inches,
    )
    yield Drawing("curves", figure)
    mean = {key: values.mean(axis=0) for key, values in measured.items()}
    deviation = {key: values.std(axis=0) for key, values in measured.items()}
    yield Table(
        "curves",
        (
            *("block", "head", "distance_pixels", "distance_pixels_std", "distance_patches"),
            *("entropy_nats", "entropy_nats_std"),
        ),
        [
            (
                *(*place, mean["distance"][place], deviation["distance"][place]),
                mean["distance"][place] / geometry.patch_hw[0],
                *(mean["entropy"][place], deviation["entropy"][place]),
            )
            for place in np.ndindex(mean["distance"].shape)
        ],
    )
    rollout = zip(mean["rollout_entropy"], deviation["rollout_entropy"], strict=True)
    rows = [(block, *values) for block, values in enumerate(rollout)]
    yield Table("rollout", ("block", "entropy_nats", "entropy_nats_std"), rows)
