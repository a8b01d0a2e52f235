"""A picture of a figure, and what is drawn on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from crate_interp.errors import InputError
from crate_interp.visualization.outline import BORDER, OUTLINE, draw_outline

__all__ = ["TITLE", "Panel", "draw_panel"]

TITLE = 7  # points


@dataclass(frozen=True, eq=False)
class Panel:
    """An image or a map, its words, and what is drawn on it.

    Attributes:
        image: RGB pixels, or numbers from 0 to 1.
        title: Words above it.
        caption: Words below it; as many as have room.
        colours: Colour map of the numbers.
        covers_hw: Height and width that the image is stretched to, pixels; by default its own.
        mask: Pixels whose outline is drawn.
        point_yx: Place that is marked, pixels from the upper left corner.
        box_xyxy: Box that is framed, pixels from the upper left corner.
    """

    image: UInt8[np.ndarray, "H W 3"] | Float[np.ndarray, "h w"]
    title: str = ""
    caption: str = ""
    colours: str = "gray"
    covers_hw: tuple[int, int] | None = None
    mask: Bool[np.ndarray, "H W"] | None = None
    point_yx: tuple[float, float] | None = None
    box_xyxy: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        if 0 in self.image.shape or (self.mask is not None and self.mask.shape != self.hw):
            mask_hw = None if self.mask is None else self.mask.shape
            raise InputError(
                f"expected an image and a mask of its size, found {self.image.shape} and {mask_hw}"
            )

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width that it covers, pixels."""
        height, width = self.covers_hw or self.image.shape[:2]
        return height, width


def draw_panel(axes: Axes, panel: Panel, title: Sequence[str], inches: float) -> None:
    """Draw a panel on axes of its own, whose unit becomes its pixel.

    Args:
        axes: Empty axes; they keep the upper edge of their place, where the image is longer.
        panel: Panel to draw.
        title: Lines above it.
        inches: Width of the axes.
    """
    height, width = panel.hw
    axes.set_anchor("N")
    axes.imshow(
        panel.image,
        extent=(0, width, height, 0),
        cmap=panel.colours,
        vmin=0,
        vmax=1,
        interpolation="none" if panel.image.shape[:2] != panel.hw else "antialiased",
    )
    axes.set_title("\n".join(title), fontsize=TITLE, pad=2)
    if panel.mask is not None:
        draw_outline(axes, panel.mask)
    if panel.point_yx is not None:
        axes.plot(
            *panel.point_yx[::-1],
            marker="o",
            markersize=5,
            markerfacecolor="none",
            markeredgecolor=OUTLINE,
            path_effects=[withStroke(linewidth=2.5, foreground=BORDER)],
        )
    if panel.box_xyxy is not None:
        x1, y1, x2, y2 = panel.box_xyxy
        # Around the box, not over its own pixels: both lines stand outside.
        for points, colour in ((1.1, BORDER), (0.4, OUTLINE)):
            away = points / 72 * width / inches
            corner, wide, high = (x1 - away, y1 - away), x2 - x1 + 2 * away, y2 - y1 + 2 * away
            axes.add_patch(
                Rectangle(corner, wide, high, fill=False, ec=colour, lw=0.9, joinstyle="miter")
            )
    axes.set(xlim=(0, width), ylim=(height, 0))
