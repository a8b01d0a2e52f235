"""Maps of what each head attends to in an image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from crate_interp import visualization
from crate_interp.commands.attention_figure import COLOURS, AttentionFigure, note_of, on_picture
from crate_interp.runs.outputs import Conclusion, Drawing, Output, Picture

if TYPE_CHECKING:
    from crate_interp.runs.run import Run

__all__ = ["Heads"]


@dataclass(frozen=True, kw_only=True)
class Heads(AttentionFigure):
    """Maps, masks and outlines of each image, and its panels as pictures without words."""

    summary: ClassVar[str] = (
        "maps, masks and outlines of each image, and a folder of its panels (image and each head's "
        "map, PNG without words)"
    )

    def conclude(self, run: Run) -> Conclusion:
        """Draw a figure, and a folder of panels, of each image."""
        return Conclusion(_outputs(run))


def _outputs(run: Run) -> Iterator[Output]:
    settings, reading = run.settings, run.reading
    by = {"mass": "of the mass", "entries": "of patches"}[settings["threshold_by"]]
    kept = f"{settings['threshold']:.0%} {by}"
    note = note_of(run, f"block {reading.block}", COLOURS)
    for entry in run.entries:
        rgb, maps = entry["picture"], on_picture(run, entry, entry["maps"])
        shown = dict(zip(reading.head_names(len(maps)), maps, strict=True))
        query_yx = None
        if reading.pixel_yx is not None:  # the middle of that pixel, in the picture
            y, x = (np.array(reading.pixel_yx) + 0.5) * np.divide(rgb.shape[:2], entry["hw"])
            query_yx = float(y), float(x)
        masks, width = on_picture(run, entry, entry["masks"]), run.command.width_inches
        figure = visualization.head_figure(rgb, shown, masks, kept, note, query_yx, width)
        name = f"{reading.stems[entry['image_id']]}-heads"
        yield Drawing(name, figure)
        yield Picture(f"{name}/image", rgb)
        for head, values in shown.items():
            yield Picture(f"{name}/{head.replace(' ', '-')}", visualization.draw_heat(values))
