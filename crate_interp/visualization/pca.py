"""Principal components of patches beside their pictures, images across."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crate_interp.errors import InputError

__all__ = ["pca_figure"]

HEIGHT, WIDTH = 1.0, 9.0  # inches: of every map, and of a band of them at most
GAP, BAND_GAP, LABEL, LINE = 0.05, 0.2, 0.2, 0.11
NOTE_LETTERS_AN_INCH = 20  # of 6 points
WIDEST = 3.0  # times its height, or a third of it: a longer picture leaves room
HIDDEN = 230  # grey value of what is not foreground


def pca_figure(
    pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    grey: Float[np.ndarray, "B h w"],
    foreground: Bool[np.ndarray, "B h w"] | None,
    rgb: UInt8[np.ndarray, "B h w 3"],
    note: str = "",
) -> Figure:
    """Images across; below each its first component, its foreground, and components as colours.

    Args:
        pictures: In their own proportions; the patch grids are stretched over them.
        grey: First component, in [0, 1].
        foreground: Patches that are coloured; `None` where all are, and no row is drawn.
        rgb: Three components as red, green and blue.
        note: A line below the figure.

    Raises:
        InputError: No picture, or not one of each a picture.
    """
    counts = [len(a) for a in (pictures, grey, foreground, rgb) if a is not None]
    if not counts[0] or len(set(counts)) > 1:
        raise InputError(
            "expected pictures and as many maps of each kind, found "
            f"{' and '.join(map(str, counts))}"
        )
    bands = _bands_of([picture.shape[1] / picture.shape[0] for picture in pictures])
    kinds = ["picture", "component 1", "foreground", "colours"]
    if foreground is None:
        kinds.remove("foreground")
    width = LABEL + max(left + across for band in bands for left, across in band) + GAP
    band_height = len(kinds) * (HEIGHT + GAP) + BAND_GAP
    lines = textwrap.wrap(note, int(width * NOTE_LETTERS_AN_INCH))
    foot = LINE * len(lines) + 2 * GAP if lines else 0
    height = len(bands) * band_height - BAND_GAP + GAP + foot
    figure = Figure(figsize=(width, height))
    number = 0
    for place, band in enumerate(bands):
        for row, kind in enumerate(kinds):
            bottom = height - place * band_height - (row + 1) * (HEIGHT + GAP)
            middle = (bottom + HEIGHT / 2) / height
            style: dict[str, Any] = {"rotation": 90, "ha": "center", "va": "center", "fontsize": 7}
            figure.text(LABEL / 2 / width, middle, kind, **style)
            for column, (left, across) in enumerate(band, number):
                box = (LABEL + left) / width, bottom / height, across / width, HEIGHT / height
                axes = figure.add_axes(box, label=f"{kind} {column}")
                axes.set_axis_off()
                mask = None if foreground is None else foreground[column]
                _draw(axes, kind, pictures[column], grey[column], mask, rgb[column])
        number += len(band)
    x, y = LABEL / width, (foot - GAP) / height
    figure.text(x, y, "\n".join(lines), fontsize=6, color="0.35", va="top")
    return figure


def _bands_of(proportions: Sequence[float]) -> list[list[tuple[float, float]]]:
    """Left edge and width of pictures of one height, inches, in few lines of about one width."""
    widths = [HEIGHT * min(max(proportion, 1 / WIDEST), WIDEST) for proportion in proportions]
    fewest = len(_filled(widths, WIDTH))
    limits = np.linspace(sum(widths) / fewest, WIDTH, 100)
    return next(bands for bands in (_filled(widths, x) for x in limits) if len(bands) <= fewest)


def _filled(widths: Sequence[float], limit: float) -> list[list[tuple[float, float]]]:
    bands: list[list[tuple[float, float]]] = [[]]
    left = 0.0
    for width in widths:
        if bands[-1] and left + width > limit:
            bands.append([])
            left = 0.0
        bands[-1].append((left, width))
        left += width + GAP
    return bands


def _draw(
    axes: Axes,
    kind: str,
    picture: UInt8[np.ndarray, "H W 3"],
    grey: Float[np.ndarray, "h w"],
    foreground: Bool[np.ndarray, "h w"] | None,
    rgb: UInt8[np.ndarray, "h w 3"],
) -> None:
    height, width = picture.shape[:2]
    shown = picture
    if kind == "foreground" and foreground is not None:
        rows, columns = (
            np.arange(pixels) * cells // pixels
            for pixels, cells in zip((height, width), foreground.shape, strict=True)
        )
        kept = foreground[rows][:, columns]
        shown = np.where(kept[..., None], picture, np.uint8(HIDDEN))
    if kind in ("picture", "foreground"):
        axes.imshow(shown, interpolation="antialiased")
        return
    whole = (0, width, height, 0)  # left, right, bottom, top: a map covers its picture
    values = grey if kind == "component 1" else rgb
    axes.imshow(values, cmap="gray", vmin=0, vmax=1, extent=whole, interpolation="none")
