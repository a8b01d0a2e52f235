"""What speaks for a class, beside the image.

Shapes: h w the grid of a map, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from crate_interp.errors import InputError
from crate_interp.visualization.grid import Grid, Panel
from crate_interp.visualization.overlay import draw_attention, draw_signed
from crate_interp.visualization.style import Figure

__all__ = ["attribution_figure"]

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
        pictures: Images of any sizes.
        maps: Maps by title, one per image, in its pixels or on any grid that covers it.
        names: Words below the images, for instance the class.
        note: Words below the figure.
        width: Width of the page, inches.

    Raises:
        InputError: There is no image or map, or not one map and name per image.
    """
    counts = {len(pictures), len(names), *(len(column) for column in maps.values())}
    if not pictures or not maps or len(counts) > 1:
        raise InputError(
            f"expected images, with a name and one map of each kind for each, found "
            f"{len(pictures)} images, {len(names)} names and "
            f"{[len(column) for column in maps.values()]} maps"
        )
    rows = []
    for number, rgb in enumerate(pictures):
        shown = [rgb, *(_paint(rgb, column[number]) for column in maps.values())]
        titles = [""] * len(shown) if number else ["image", *maps]
        rows.append(list(map(Panel, shown, titles)))
    signed = any((values < 0).any() for column in maps.values() for values in column)
    note = " · ".join(filter(None, (note, _SIGNED if signed else "")))
    grid = Grid(rows, row_captions=names, equal="widths", size=1.55)
    return grid.draw(note=note, width=width)


def _paint(
    rgb: UInt8[np.ndarray, "H W 3"], values: Float[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "H W 3"]:
    signed = bool((values < 0).any())
    smooth = cv2.INTER_NEAREST if signed else cv2.INTER_LINEAR
    values = cv2.resize(values.astype(np.float64), rgb.shape[1::-1], interpolation=smooth)
    return draw_signed(values) if signed else draw_attention(rgb, values)
