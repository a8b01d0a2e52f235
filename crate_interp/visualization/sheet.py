"""Tables of images: many on one page, and masks of several kinds side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from crate_interp.errors import InputError
from crate_interp.visualization.grid import Grid, Panel
from crate_interp.visualization.style import Figure

__all__ = ["comparison_figure", "overlay_sheet"]

CELL, NARROW_CELL = 2.5, 1.7  # inches: of an image, and about as much where the width is given


def overlay_sheet(
    pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    captions: Sequence[str],
    title: str,
    columns: int = 4,
    width: float | None = None,
) -> Figure:
    """A page of images, each with its caption, under one title.

    Args:
        pictures: Images of any sizes; those that are higher than most are drawn smaller.
        captions: Words above each image.
        title: Words above all.
        columns: Number of columns at most.
        width: Width of the page, inches; it then decides the number of columns.

    Raises:
        InputError: There is no image, or not one caption per image.
    """
    if not pictures or len(pictures) != len(captions):
        raise InputError(
            f"expected one caption an image, found {len(pictures)} images and "
            f"{len(captions)} captions"
        )
    columns = min(columns if width is None else max(1, round(width / NARROW_CELL)), len(pictures))
    panels: list[Panel | None] = [
        Panel(picture, caption) for picture, caption in zip(pictures, captions, strict=True)
    ]
    panels += [None] * (-len(panels) % columns)
    rows = [panels[at : at + columns] for at in range(0, len(panels), columns)]
    usual = float(np.median([picture.shape[0] / picture.shape[1] for picture in pictures]))
    return Grid(rows, equal="widths", size=CELL, tallest=usual).draw(title, width=width)


def comparison_figure(
    rows: Sequence[Sequence[UInt8[np.ndarray, "_ _ 3"]]],
    titles: Sequence[str],
    captions: Sequence[Sequence[str]],
    note: str = "",
    width: float | None = None,
) -> Figure:
    """Images in a table: one image per row, one kind of mask per column.

    Args:
        rows: Images of any size; those of a row are of one size.
        titles: Words above the columns.
        captions: Words below each image, row by row; may be empty.
        note: Words below the figure.
        width: Width of the page, inches.

    Raises:
        InputError: There is no image, not one per title in each row, or not one caption per image.
    """
    counts = {len(titles), *map(len, rows), *map(len, captions)}
    if not rows or not titles or len(counts) != 1 or len(rows) != len(captions):
        raise InputError(
            "expected as many images and captions in each row as titles, found "
            f"{len(titles)} titles, rows of {[*map(len, rows)]}, captions {[*map(len, captions)]}"
        )
    above = [titles, *[[""] * len(titles)] * (len(rows) - 1)]
    panels = [list(map(Panel, *words)) for words in zip(rows, above, captions, strict=True)]
    return Grid(panels, equal="widths", size=1.55, tallest=1.25).draw(note=note, width=width)
