"""What a masked autoencoder saw of images, and what it made of the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8

from crate_interp.errors import InputError
from crate_interp.visualization.page import EDGE, Page, line_height
from crate_interp.visualization.style import NOTE_SIZE, Figure, text_width, wrapped

__all__ = ["reconstruction_figure"]

SIDE, GAP, GROUP_GAP = 1.25, 0.05, 0.2  # inches
NARROW = 5.0  # a page that is no wider has one group of columns
TITLE = 8  # points
HIDDEN = 0.78  # grey level of a hidden patch: neither black nor white of an image


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
        predictions: Of whole images.
        note: Below the figure.
        width: Of the page, inches.

    Raises:
        InputError: No image, not one mask and one prediction for each, or one of another size.
    """
    sizes = [[array.shape[:2] for array in arrays] for arrays in (originals, hidden, predictions)]
    if not originals or sizes[0] != sizes[1] or sizes[0] != sizes[2]:
        raise InputError(
            "expected images, and a mask and a prediction of the size of each, found sizes "
            f"{sizes[0]}, {sizes[1]} and {sizes[2]}"
        )
    groups = 1 if len(originals) <= 4 or (width or 2 * NARROW) <= NARROW else 2
    between = groups * 2 * GAP + (groups - 1) * GROUP_GAP
    width = width or 2 * EDGE + 3 * groups * SIDE + between
    side = min((width - 2 * EDGE - between) / (3 * groups), 1.6 * SIDE)
    rows = math.ceil(len(originals) / groups)
    lines = wrapped(note, width - 2 * EDGE, NOTE_SIZE)
    top = EDGE + line_height(TITLE) + 0.03
    foot = top + rows * (side + GAP)
    page = Page.of(width, foot + len(lines) * line_height(NOTE_SIZE) + EDGE)
    for number, (rgb, mask, predicted) in enumerate(
        zip(originals, hidden, predictions, strict=True)
    ):
        group, row = divmod(number, rows)
        masked = np.where(mask[..., None], np.uint8(round(255 * HIDDEN)), rgb)
        pasted = np.where(mask[..., None], predicted, rgb)
        panels = {"original": rgb, f"{mask.mean():.0%} hidden": masked, "reconstruction": pasted}
        for column, (title, shown) in enumerate(panels.items()):
            x = EDGE + group * (3 * side + 2 * GAP + GROUP_GAP) + column * (side + GAP)
            axes = page.axes(x, top + row * (side + GAP), side, side, title)
            axes.imshow(shown, interpolation="none")
            if row == 0:
                points = min(TITLE, TITLE * side / text_width(title, TITLE))
                axes.set_title(title, fontsize=points, pad=3)
    page.lines(EDGE, foot, lines, NOTE_SIZE, color="0.35")
    return page.figure
