"""Many pictures on one page."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure

from crate_interp.errors import InputError

__all__ = ["overlay_sheet"]


def overlay_sheet(
    pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    captions: Sequence[str],
    title: str,
    columns: int = 4,
) -> Figure:
    """A page of pictures, each with its caption, under one title.

    Raises:
        InputError: No picture, or not one caption a picture.
    """
    if not pictures or len(pictures) != len(captions):
        raise InputError(
            f"expected one caption a picture, found {len(pictures)} pictures and "
            f"{len(captions)} captions"
        )
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    aspect = float(np.median([picture.shape[0] / picture.shape[1] for picture in pictures]))
    width = 2.5 * columns
    figure = Figure(figsize=(width, rows * (2.5 * aspect + 0.25) + 0.5), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, picture, caption in zip(grid.flat, pictures, captions, strict=False):
        axes.imshow(picture, interpolation="lanczos")
        axes.set_title(caption, fontsize=7, loc="left", color="0.35", pad=2)
    return figure
