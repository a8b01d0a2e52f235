"""What speaks for a class, beside the image.

Shapes: h w the grid of a map, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import colormaps

from crate_interp.errors import InputError
from crate_interp.visualization.page import EDGE, Page, line_height
from crate_interp.visualization.style import NOTE_SIZE, Figure, joined, wrapped

__all__ = ["attribution_figure"]

SIDE, GAP = 1.55, 0.06  # inches
TITLE, NAME = 8, 7  # points
TALLEST = 1.4  # times its width: a higher image is drawn smaller
_BRIGHTEST = 99.5  # percentile of a map; single pixels would leave the rest dark
_SIGNED = "purple: for the class, orange: against it"


def attribution_figure(
    pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    maps: Mapping[str, Sequence[Float[np.ndarray, "h w"]]],
    names: Sequence[str],
    note: str = "",
    width: float | None = None,
) -> Figure:
    """Draw images row by row, each beside its maps, in their own proportions.

    Maps without a negative number are laid over the grey image, each with its largest numbers as
    the brightest. Signed ones are purple where something speaks for the class and orange where it
    speaks against it, white at zero.

    Args:
        pictures: Of any sizes.
        maps: By title, one an image, in its pixels, or on any grid that covers it.
        names: Written below the images, for instance the class.
        note: Below the figure.
        width: Of the page, inches.

    Raises:
        InputError: No image or map, or not one map and name an image.
    """
    counts = {len(pictures), len(names), *(len(column) for column in maps.values())}
    if not pictures or not maps or len(counts) > 1:
        raise InputError(
            f"expected images, with a name and one map of each kind for each, found "
            f"{len(pictures)} images, {len(names)} names and "
            f"{[len(column) for column in maps.values()]} maps"
        )
    columns = 1 + len(maps)
    width = width or columns * (SIDE + GAP) - GAP + 2 * EDGE
    side = (width - 2 * EDGE + GAP) / columns - GAP
    heights = [side * min(TALLEST, rgb.shape[0] / rgb.shape[1]) for rgb in pictures]
    labels = [wrapped(name, width - 2 * EDGE, NAME) for name in names]
    signed = any((values < 0).any() for column in maps.values() for values in column)
    below = wrapped(joined([note, _SIGNED if signed else ""]), width - 2 * EDGE, NOTE_SIZE)
    headings = [wrapped(title, side, TITLE) for title in ("image", *maps)]
    top = EDGE + max(map(len, headings)) * line_height(TITLE) + 0.03
    below_image = [len(lines) * line_height(NAME) + GAP for lines in labels]
    rows = [tall + text for tall, text in zip(heights, below_image, strict=True)]
    foot = top + sum(rows)
    page = Page.of(width, foot + len(below) * line_height(NOTE_SIZE) + EDGE)
    for row, (rgb, lines) in enumerate(zip(pictures, labels, strict=True)):
        y = top + sum(rows[:row])
        shown = [rgb, *(_paint(rgb, column[row]) for column in maps.values())]
        for column, (title, panel) in enumerate(zip(("image", *maps), shown, strict=True)):
            axes = page.axes(EDGE + column * (side + GAP), y, side, heights[row], f"{title} {row}")
            axes.imshow(panel, interpolation="antialiased")
            if row == 0:
                axes.set_title("\n".join(headings[column]), fontsize=TITLE, pad=3)
        page.lines(EDGE, y + heights[row] + 0.02, lines, NAME, color="0.25")
    page.lines(EDGE, foot, below, NOTE_SIZE, color="0.35")
    return page.figure


def _paint(
    rgb: UInt8[np.ndarray, "H W 3"], values: Float[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "H W 3"]:
    height, width = rgb.shape[:2]
    values = values.astype(np.float64)
    largest = float(np.percentile(np.abs(values), _BRIGHTEST)) or 1.0
    if (values < 0).any():
        values = cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST)
        painted = colormaps["PuOr"](0.5 + 0.5 * (values / largest).clip(-1, 1))[..., :3]
        return np.asarray((255 * painted).round(), dtype=np.uint8)
    values = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
    share = (values / largest).clip(0, 1)
    grey = rgb.mean(axis=2, keepdims=True).repeat(3, axis=2) / 255
    heat = colormaps["inferno"](share)[..., :3]
    opacity = (0.5 + 0.4 * share)[..., None]
    return np.asarray((255 * ((1 - opacity) * grey + opacity * heat)).round(), dtype=np.uint8)
