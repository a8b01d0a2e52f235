"""What speaks for a class, beside the picture.

Shapes: h w patch grid, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from matplotlib.figure import Figure

from crate_interp.errors import InputError

__all__ = ["attribution_figure"]

SIDE, GAP = 1.55, 0.06  # inches
HEADING, LABEL = 0.24, 0.22
_BRIGHTEST = 99.5  # percentile of a map; single pixels would leave the rest dark


def attribution_figure(
    pictures: Sequence[UInt8[np.ndarray, "H W 3"]],
    maps: Mapping[str, Sequence[Float[np.ndarray, "h w"]]],
    names: Sequence[str],
) -> Figure:
    """Draw pictures row by row, each beside its maps.

    Maps without a negative number are laid over the grey picture, each with its largest numbers as
    the brightest. Signed ones are purple where something speaks for the class and orange where it
    speaks against it, white at zero.

    Args:
        pictures: Of one size.
        maps: By title, one a picture, on the patch grid or any other that covers the picture.
        names: Written below the pictures, for instance the class.

    Raises:
        InputError: No picture or map, not one map and name a picture, or pictures of several sizes.
    """
    counts = {len(pictures), len(names), *(len(column) for column in maps.values())}
    if not pictures or not maps or len(counts) > 1 or len({p.shape for p in pictures}) > 1:
        raise InputError(
            f"expected pictures of one size, with a name and one map of each kind for each, found "
            f"{len(pictures)} pictures, {len(names)} names and "
            f"{[len(column) for column in maps.values()]} maps"
        )
    rows, columns = len(pictures), 1 + len(maps)
    height_of_row = SIDE * pictures[0].shape[0] / pictures[0].shape[1]
    width = columns * (SIDE + GAP) + GAP
    height = HEADING + rows * (height_of_row + LABEL)
    figure = Figure(figsize=(width, height))
    for row, (rgb, name) in enumerate(zip(pictures, names, strict=True)):
        bottom = height - HEADING - row * (height_of_row + LABEL) - height_of_row
        shown = {"picture": rgb}
        shown |= {title: _paint(rgb, column[row]) for title, column in maps.items()}
        for column, (title, panel) in enumerate(shown.items()):
            left = GAP + column * (SIDE + GAP)
            place = (left / width, bottom / height, SIDE / width, height_of_row / height)
            axes: Any = figure.add_axes(place, label=f"{title} {row}")
            axes.imshow(panel, interpolation="none")
            axes.set_axis_off()
            if row == 0:
                axes.set_title(title, fontsize=8, pad=3)
        figure.text(
            GAP / width, (bottom - LABEL / 2) / height, name, fontsize=7, color="0.25", va="center"
        )
    if any((values < 0).any() for column in maps.values() for values in column):
        note = "purple: for the class, orange: against it"
        right, middle = 1 - GAP / width, LABEL / 2 / height
        figure.text(right, middle, note, fontsize=7, color="0.25", va="center", ha="right")
    return figure


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
