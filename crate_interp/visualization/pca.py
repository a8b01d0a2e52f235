"""Principal components of patches beside their images, images across."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.axes import Axes

from crate_interp.errors import InputError
from crate_interp.visualization.page import EDGE, Page, line_height
from crate_interp.visualization.style import NOTE_SIZE, Figure, wrapped

__all__ = ["pca_figure"]

HEIGHT, WIDTH = 1.0, 9.0  # inches: of every map, and of a band of them at most
GAP, BAND_GAP, LABEL = 0.05, 0.2, 0.2
WIDEST = 3.0  # times its height, or a third of it: a longer image leaves room
LARGEST = 1.6  # inches of a map that grows to fill a width
HIDDEN = 230  # grey value of what is not foreground


def pca_figure(
    pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    grey: Float[np.ndarray, "B h w"],
    foreground: Bool[np.ndarray, "B h w"] | None,
    rgb: UInt8[np.ndarray, "B h w 3"],
    note: str = "",
    width: float | None = None,
) -> Figure:
    """Images across; below each its first component, its foreground, and components as colours.

    Args:
        pictures: In their own proportions; the patch grids are stretched over them.
        grey: First component, in [0, 1].
        foreground: Patches that are coloured; `None` where all are, and no row is drawn.
        rgb: Three components as red, green and blue.
        note: Below the figure.
        width: Of the page, inches.

    Raises:
        InputError: No image, or not one of each an image.
    """
    counts = [len(a) for a in (pictures, grey, foreground, rgb) if a is not None]
    if not counts[0] or len(set(counts)) > 1:
        raise InputError(
            f"expected images and as many maps of each kind, found {' and '.join(map(str, counts))}"
        )
    room = WIDTH if width is None else width - LABEL - EDGE
    bands = _bands_of([image.shape[1] / image.shape[0] for image in pictures], room)
    across = max(left + wide for band in bands for left, wide in band)
    scale = 1.0 if width is None else min(room / across, LARGEST)
    width = width or LABEL + across + EDGE
    tall = scale * HEIGHT
    kinds = ["image", "component 1", "foreground", "colours"]
    if foreground is None:
        kinds.remove("foreground")
    band_height = len(kinds) * (tall + GAP) + BAND_GAP
    lines = wrapped(note, width - 2 * EDGE, NOTE_SIZE)
    foot = EDGE + len(bands) * band_height - BAND_GAP
    page = Page.of(width, foot + len(lines) * line_height(NOTE_SIZE) + EDGE)
    number = 0
    for place, band in enumerate(bands):
        for row, kind in enumerate(kinds):
            y = EDGE + place * band_height + row * (tall + GAP)
            style: dict[str, Any] = {"rotation": 90, "ha": "center", "va": "center", "fontsize": 7}
            page.figure.text(*page.at(LABEL / 2, y + tall / 2), kind, **style)
            for column, (left, wide) in enumerate(band, number):
                axes = page.axes(LABEL + scale * left, y, scale * wide, tall, f"{kind} {column}")
                mask = None if foreground is None else foreground[column]
                _draw(axes, kind, pictures[column], grey[column], mask, rgb[column])
        number += len(band)
    page.lines(EDGE, foot, lines, NOTE_SIZE, color="0.35")
    return page.figure


def _bands_of(proportions: Sequence[float], room: float) -> list[list[tuple[float, float]]]:
    """Left edge and width of images of one height, inches, in few lines of about one width."""
    widths = [HEIGHT * min(max(proportion, 1 / WIDEST), WIDEST) for proportion in proportions]
    widths = [min(width, room) for width in widths]
    fewest = len(_filled(widths, room))
    limits = np.linspace(min(sum(widths) / fewest, room), room, 100)
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
    if kind in ("image", "foreground"):
        axes.imshow(shown, interpolation="antialiased")
        return
    whole = (0, width, height, 0)  # left, right, bottom, top: a map covers its image
    values = grey if kind == "component 1" else rgb
    axes.imshow(values, cmap="gray", vmin=0, vmax=1, extent=whole, interpolation="none")
