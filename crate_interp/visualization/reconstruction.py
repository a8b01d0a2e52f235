"""What a masked autoencoder saw of pictures, and what it made of the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8
from matplotlib.figure import Figure

from crate_interp.errors import InputError

__all__ = ["reconstruction_figure"]

SIDE, GAP, GROUP_GAP = 1.25, 0.05, 0.25  # inches
HEADING, NOTE = 0.24, 0.24
HIDDEN = 0.78  # grey level of a hidden patch: neither black nor white of a picture


def reconstruction_figure(
    originals: Sequence[UInt8[np.ndarray, "H W 3"]],
    hidden: Sequence[Bool[np.ndarray, "H W"]],
    predictions: Sequence[UInt8[np.ndarray, "H W 3"]],
    note: str = "",
) -> Figure:
    """Pictures row by row, each as it is, as the model saw it, and with what the model predicted.

    The prediction stands in the hidden places; the seen ones show the picture itself. More than
    four pictures stand in two groups of columns.

    Args:
        originals: Square pictures of any sizes.
        hidden: True where the model did not see a picture.
        predictions: Of whole pictures.
        note: A line below the figure.

    Raises:
        InputError: No picture, not one mask and one prediction for each, or one of another size.
    """
    sizes = [[array.shape[:2] for array in arrays] for arrays in (originals, hidden, predictions)]
    if not originals or sizes[0] != sizes[1] or sizes[0] != sizes[2]:
        raise InputError(
            "expected pictures, and a mask and a prediction of the size of each, found sizes "
            f"{sizes[0]}, {sizes[1]} and {sizes[2]}"
        )
    groups = 1 if len(originals) <= 4 else 2
    rows = math.ceil(len(originals) / groups)
    group_width = 3 * SIDE + 2 * GAP
    width = groups * group_width + (groups - 1) * GROUP_GAP + 2 * GAP
    foot = NOTE if note else GAP
    height = HEADING + rows * (SIDE + GAP) - GAP + foot
    figure = Figure(figsize=(width, height))
    for number, (rgb, mask, predicted) in enumerate(
        zip(originals, hidden, predictions, strict=True)
    ):
        group, row = divmod(number, rows)
        masked = np.where(mask[..., None], np.uint8(round(255 * HIDDEN)), rgb)
        pasted = np.where(mask[..., None], predicted, rgb)
        panels = {"original": rgb, f"{mask.mean():.0%} hidden": masked, "reconstruction": pasted}
        for column, (title, picture) in enumerate(panels.items()):
            left = GAP + group * (group_width + GROUP_GAP) + column * (SIDE + GAP)
            bottom = foot + (rows - 1 - row) * (SIDE + GAP)
            axes = figure.add_axes(
                (left / width, bottom / height, SIDE / width, SIDE / height), label=title
            )
            axes.imshow(picture, interpolation="none")
            axes.set_axis_off()
            if row == 0:
                axes.set_title(title, fontsize=8, pad=3)
    if note:
        figure.text(GAP / width, NOTE / 2 / height, note, fontsize=6, color="0.35", va="center")
    return figure
