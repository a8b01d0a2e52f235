"""Tokens of every block as matrices: which channels are in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from crate_interp import data, hooks, visualization
from crate_interp.options import option
from crate_interp.runs.command import ImageFilesCommand, Reading
from crate_interp.runs.outputs import Arrays, Conclusion, Drawing

if TYPE_CHECKING:
    from crate_interp.runs.run import Run, SeenImage
    from crate_interp.structures import Activations

__all__ = ["Tokens"]

SHOWN = 6  # images in the figure; the numbers are of all
PICTURE_SIDE = 480  # longest side of an image in the figure, pixels


@dataclass(frozen=True, kw_only=True)
class Tokens(ImageFilesCommand):
    """Draw the tokens of each block: tokens by channels."""

    group: ClassVar[str] = "look inside"
    output_is_file: ClassVar[bool] = True
    one_grid: ClassVar[str] = "the npz has as many tokens of all images"

    output: Path = option("the figure, NAME.png; an npz goes with it", presentation=True)

    def reading(self, run: Run) -> Reading:
        """Read the tokens that leave each block."""
        blocks = range(len(hooks.blocks_of(run.observer.model)))
        return Reading([hooks.Site.TOKENS], blocks, pictures=SHOWN)

    def measure(self, run: Run, image: SeenImage, output: Activations) -> Mapping[str, Any]:
        """Keep how large each channel is, the tokens of an image that the figure shows."""
        tokens = np.stack(
            [output["tokens", block][0].float().cpu().numpy() for block in run.reading.blocks]
        )
        arrays: dict[str, Any] = {"channels": np.abs(tokens).mean(axis=1)}
        if image.picture is not None:
            arrays["tokens"] = tokens
            arrays["picture"] = data.shrunk(image.picture, PICTURE_SIDE)
        return arrays

    def conclude(self, run: Run) -> Conclusion:
        """Draw the matrices of the first images, and write the mean of each channel."""
        shown = run.pictured
        blocks = [f"block {block}" for block in run.reading.blocks]
        note = (
            f"{run.settings['model']}: magnitude of the tokens that leave each block; tokens down, "
            "the class token first, channels across. Colours from 0 to the 99th percentile of "
            "each matrix."
        )
        figure = visualization.token_figure(
            [entry["picture"] for entry in shown],
            [np.abs(entry["tokens"]) for entry in shown],
            blocks,
            note,
            self.width_inches,
        )
        channels = np.stack([entry["channels"] for entry in run.entries])
        names = np.array([entry["file_name"] for entry in run.entries])
        numbers = Arrays(run.stem, {"file_names": names, "mean_magnitude": channels})
        zero = (channels == 0).mean(axis=(0, 2))
        text = "channels that no token of an image uses: " + ", ".join(
            f"{100 * share:.0f} %" for share in zero
        )
        return Conclusion([Drawing(run.stem, figure), numbers], text)
