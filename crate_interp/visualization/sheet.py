"""Many images on one page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from crate_interp.errors import InputError
from crate_interp.visualization.page import EDGE, Page, line_height
from crate_interp.visualization.style import Figure, shortened, wrapped

__all__ = ["overlay_sheet"]

CELL, NARROW_CELL = 2.5, 1.7  # inches: of an image, and about as much where the width is given
GAP = 0.08
TITLE, CAPTION = 9, 7  # points


def overlay_sheet(
    pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    captions: Sequence[str],
    title: str,
    columns: int = 4,
    width: float | None = None,
) -> Figure:
    """A page of images, each with its caption, under one title.

    Args:
        pictures: Of any sizes; those that are higher than most are drawn smaller.
        captions: One each.
        title: Above all.
        columns: At most.
        width: Of the page, inches; it then decides the number of columns.

    Raises:
        InputError: No image, or not one caption an image.
    """
    if not pictures or len(pictures) != len(captions):
        raise InputError(
            f"expected one caption an image, found {len(pictures)} images and "
            f"{len(captions)} captions"
        )
    if width is None:
        columns = min(columns, len(pictures))
        width = columns * (CELL + GAP) - GAP + 2 * EDGE
    else:
        columns = min(max(1, round(width / NARROW_CELL)), len(pictures))
    cell = min((width - 2 * EDGE + GAP) / columns - GAP, 1.5 * CELL)
    rows = [pictures[at : at + columns] for at in range(0, len(pictures), columns)]
    usual = float(np.median([picture.shape[0] / picture.shape[1] for picture in pictures]))
    heights = [cell * min(usual, max(p.shape[0] / p.shape[1] for p in row)) for row in rows]
    heading = wrapped(title, width - 2 * EDGE, TITLE, bold=True)
    top = EDGE + len(heading) * line_height(TITLE) + GAP
    height = top + sum(heights) + len(rows) * (line_height(CAPTION) + GAP)
    page = Page.of(width, height)
    page.lines(EDGE, EDGE, heading, TITLE, fontweight="bold")
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        row, column = divmod(number, columns)
        tall = cell * picture.shape[0] / picture.shape[1]
        scale = min(1.0, heights[row] / tall)
        x = EDGE + column * (cell + GAP)
        y = top + sum(heights[:row]) + row * (line_height(CAPTION) + GAP) + line_height(CAPTION)
        axes = page.axes(x, y, scale * cell, scale * tall)
        axes.imshow(picture, interpolation="lanczos", aspect="auto")
        text = shortened(caption, cell, CAPTION)
        axes.set_title(text, fontsize=CAPTION, loc="left", color="0.35", pad=2)
    return page.figure
