"""Maps of what all heads of all blocks attend to in an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from crate_interp import visualization
from crate_interp.commands.attention_figure import (
    COLOURS,
    AttendedImage,
    AttentionFigure,
    note_of,
    on_picture,
)
from crate_interp.runs.outputs import Conclusion, Drawing

if TYPE_CHECKING:
    from crate_interp.runs.run import Run

__all__ = ["Layers"]

SMALL_HEIGHT = 128  # of a map, pixels


@dataclass(frozen=True, kw_only=True)
class Layers(AttentionFigure):
    """All blocks by all heads of each image."""

    summary: ClassVar[str] = "all blocks by all heads of each image"
    every_block: ClassVar[bool] = True
    numbers: ClassVar = ("layers",)

    def measure(self, image: AttendedImage) -> Mapping[str, Any]:
        """Keep the maps of all blocks."""
        blocks = range(image.activations.num_blocks)
        return {"layers": np.stack([image.maps_of_heads(block) for block in blocks])}

    def conclude(self, run: Run) -> Conclusion:
        """Draw a figure of each image."""
        return Conclusion(_drawings(run))


def _drawings(run: Run) -> Iterator[Drawing]:
    note, width = note_of(run, COLOURS), run.command.width_inches
    for entry in run.entries:
        layers = entry["layers"]
        names = run.reading.head_names(layers.shape[1])
        maps = [on_picture(run, entry, of_block, SMALL_HEIGHT) for of_block in layers]
        figure = visualization.layer_figure(entry["picture"], maps, names, note, width)
        yield Drawing(f"{run.reading.stems[entry['image_id']]}-layers", figure)
