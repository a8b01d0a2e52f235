"""Images with hidden patches, and what a masked autoencoder predicted of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8

from crate_interp.errors import InputError
from crate_interp.visualization.grid import NARROW, Grid, Panel, draw_grids
from crate_interp.visualization.style import Figure

__all__ = ["reconstruction_figure"]

HIDDEN = 0.78  # grey level of a hidden patch: neither black nor white of an image
_MOST_ROWS = 4  # more images stand in two groups of columns, where the page is wide enough


def reconstruction_figure(
    originals: Sequence[UInt8[np.ndarray, "H W 3"]],
    hidden: Sequence[Bool[np.ndarray, "H W"]],
    predictions: Sequence[UInt8[np.ndarray, "H W 3"]],
    note: str = "",
    width: float | None = None,
) -> Figure:
    """Images row by row, each as it is, as the model saw it, and with what the model predicted.

    The prediction stands in the hidden places; the seen ones show the image itself. More than
    four images stand in two groups of columns.

    Args:
        originals: Square images of any sizes.
        hidden: True where the model did not see an image.
        predictions: Predicted images, whole.
        note: Words below the figure.
        width: Width of the page, inches.

    Raises:
        InputError: There is no image, not one mask and one prediction for each, or one of another
            size.
    """
    sizes = [[array.shape[:2] for array in arrays] for arrays in (originals, hidden, predictions)]
    if not originals or sizes[0] != sizes[1] or sizes[0] != sizes[2]:
        raise InputError(
            "expected images, and a mask and a prediction of the size of each, found sizes "
            f"{sizes[0]}, {sizes[1]} and {sizes[2]}"
        )
    rows = []
    for rgb, mask, predicted in zip(originals, hidden, predictions, strict=True):
        masked = np.where(mask[..., None], np.uint8(round(255 * HIDDEN)), rgb)
        rows.append([rgb, masked, np.where(mask[..., None], predicted, rgb)])
    split = len(rows) > _MOST_ROWS and not (width and width < NARROW)
    half = -(-len(rows) // 2) if split else len(rows)
    titles = ("original", f"{np.mean(hidden[0]):.0%} hidden", "reconstruction")
    grids = []
    for group in (rows[:half], rows[half:])[: 1 + split]:
        first = [Panel(image, title) for image, title in zip(group[0], titles, strict=True)]
        panels = [first, *([Panel(image) for image in row] for row in group[1:])]
        grids.append(Grid(panels, equal="widths", size=1.25))
    return draw_grids(grids, note=note, width=width)
