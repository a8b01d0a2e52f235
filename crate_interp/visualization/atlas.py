"""Atoms on a page: the patches that each fires on most, in their surroundings.

Shapes: h w patch grid, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from crate_interp.errors import InputError
from crate_interp.visualization.page import Page, line_height
from crate_interp.visualization.style import Figure, text_width, wrapped

__all__ = ["CONTEXT_PATCHES", "CONTEXT_SHARE", "AtomRow", "atom_sheet", "context_window"]

CONTEXT_PATCHES = 7  # side of the surroundings of a patch, in patches
CONTEXT_SHARE = 0.25  # or as a share of the image's shorter side, if that is larger

_OUTLINE = "#FFB000"  # seen on dark and light, with any colour vision, in its black border
_SIDE, _GAP, _GROUP_GAP = 0.72, 0.04, 0.2  # inches
_EDGE, _PICTURE = 0.12, 2.9
_NARROW = 5.0  # on a page that is less wide the image stands above the atoms
_TITLE, _NAME, _SMALL = 9, 8, 6.5  # points

Box = tuple[float, float, float, float]
RGB = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True, eq=False)
class AtomRow:
    """One atom of a sheet.

    Attributes:
        name: In bold, for instance its number.
        lines: What else is said of it.
        value_map: Value over the patch grid: the mean of many images, or that of one.
        patches: Images, and the box (x1, y1, x2, y2) of a patch in each, pixels.
    """

    name: str
    lines: Sequence[str]
    value_map: Float[np.ndarray, "h w"]
    patches: Sequence[tuple[RGB, Box]]


def context_window(picture_hw: tuple[int, int], box: Box) -> tuple[int, int, int, int]:
    """The square around a patch that shows it in context, inside the image: x1, y1, x2, y2.

    Its side is seven patches, or a quarter of the image's shorter side if that is more, but never
    more than the shorter side. Where it would leave the image it is moved inside.

    Args:
        picture_hw: Height and width, pixels.
        box: Of the patch, (x1, y1, x2, y2), pixels.
    """
    height, width = picture_hw
    x1, y1, x2, y2 = box
    shorter = min(height, width)
    wanted = max(CONTEXT_PATCHES * max(x2 - x1, y2 - y1), CONTEXT_SHARE * shorter)
    side = min(round(wanted), shorter)
    left = min(max(round((x1 + x2 - side) / 2), 0), width - side)
    top = min(max(round((y1 + y2 - side) / 2), 0), height - side)
    return left, top, left + side, top + side


def atom_sheet(
    rows: Sequence[AtomRow],
    title: str,
    picture: RGB | None = None,
    chosen: Bool[np.ndarray, "H W"] | None = None,
    width: float | None = None,
) -> Figure:
    """Atoms one below the other, each with a map of its value and its strongest patches outlined.

    Args:
        rows: In the order of the sheet; each has as many patches as it has.
        title: Above all.
        picture: What the maps are of; it then stands at the left, or on top of a narrow page.
            Without it they are mean maps.
        chosen: Pixels of `picture` to outline.
        width: Of the page, inches; of the patches those are shown that have room.

    Raises:
        InputError: No atom, or `chosen` is not of the image's size.
    """
    if not rows:
        raise InputError("expected one atom or more to draw, found none")
    if picture is not None and chosen is not None and chosen.shape != picture.shape[:2]:
        raise InputError(f"chosen pixels of {chosen.shape} in an image of {picture.shape[:2]}")
    columns = max(1, *(len(row.patches) for row in rows))
    on_top = picture is not None and width is not None and width < _NARROW
    left = _EDGE + (0 if picture is None or on_top else _PICTURE + 2 * _GROUP_GAP)
    map_at = left + max(_widest(row) for row in rows) + 2 * _GAP
    patches_at = map_at + _SIDE + _GROUP_GAP
    if width is None:
        width = patches_at + columns * (_SIDE + _GAP) + _EDGE
    else:
        columns = min(columns, max(1, int((width - _EDGE - patches_at) / (_SIDE + _GAP))))
    lines = wrapped(title, width - 2 * _EDGE, _TITLE, bold=True)
    of_map = "mean map" if picture is None else "here"
    headings = [
        wrapped(of_map, _SIDE, _SMALL),
        wrapped("strongest patches of the atlas", width - patches_at, _SMALL),
    ]
    tall = 0.0 if picture is None else _PICTURE * min(picture.shape[0] / picture.shape[1], 1.4)
    y = _EDGE + len(lines) * line_height(_TITLE)
    first = y + (tall + _GROUP_GAP if on_top else 0) + 0.05
    first += max(map(len, headings)) * line_height(_SMALL)
    body = len(rows) * (_SIDE + _GAP)
    page = Page.of(width, first + (body if on_top else max(body, tall)) + _EDGE)
    page.lines(_EDGE, _EDGE, lines, _TITLE, fontweight="bold")
    for at, heading in zip((map_at, patches_at), headings, strict=True):
        above = first - 0.02 - len(heading) * line_height(_SMALL)
        page.lines(at, above, heading, _SMALL, color="0.35")
    if picture is not None:
        _draw_picture(page, picture, chosen, (y + 0.05 if on_top else first, tall))
    for number, row in enumerate(rows):
        top = first + number * (_SIDE + _GAP)
        style: dict[str, Any] = {"fontsize": _NAME, "fontweight": "bold", "va": "center"}
        page.figure.text(*page.at(left, top + 0.1), row.name, **style)
        page.lines(left, top + 0.2, row.lines, _SMALL, color="0.25", linespacing=1.25)
        shape_hw = (row.value_map if picture is None else picture).shape
        extent = (0, shape_hw[1], shape_hw[0], 0)
        axes = page.axes(map_at, top, _SIDE, _SIDE)
        axes.imshow(row.value_map, cmap="cividis", vmin=0, interpolation="none", extent=extent)
        for column, (rgb, box) in enumerate(row.patches[:columns]):
            axes = page.axes(patches_at + column * (_SIDE + _GAP), top, _SIDE, _SIDE)
            _draw_patch(axes, rgb, box)
    return page.figure


def _widest(row: AtomRow) -> float:
    """Inches that the words of an atom take."""
    words = max((text_width(line, _SMALL) for line in row.lines), default=0.0)
    return max(words, text_width(row.name, _NAME, bold=True))


def _draw_picture(
    page: Page, picture: RGB, chosen: Bool[np.ndarray, "H W"] | None, place: tuple[float, float]
) -> None:
    top, tall = place
    height = _PICTURE * picture.shape[0] / picture.shape[1]
    scale = min(1.0, tall / height)
    axes = page.axes(_EDGE, top, _PICTURE * scale, height * scale)
    axes.imshow(picture, interpolation="lanczos")
    if chosen is not None and chosen.any():
        # A border of unchosen pixels closes the outline where it meets the image's edge.
        padded = np.pad(chosen, 1).astype(float)
        x, y = (np.arange(-1, length + 1) for length in (chosen.shape[1], chosen.shape[0]))
        for colour, line in (("black", 2.2), (_OUTLINE, 1.2)):
            axes.contour(x, y, padded, levels=[0.5], colors=[colour], linewidths=line)
        axes.set_xlim(-0.5, picture.shape[1] - 0.5)
        axes.set_ylim(picture.shape[0] - 0.5, -0.5)


def _draw_patch(axes: Axes, rgb: RGB, box: Box) -> None:
    left, top, right, bottom = context_window((rgb.shape[0], rgb.shape[1]), box)
    axes.imshow(
        rgb[top:bottom, left:right],
        interpolation="lanczos",
        extent=(left, right, bottom, top),
    )
    x1, y1, x2, y2 = box
    # Around the patch, not over its own pixels: both lines stand outside.
    for points, colour in ((1.1, "black"), (0.4, _OUTLINE)):
        away = points / 72 * (right - left) / _SIDE
        corner, width, height = (x1 - away, y1 - away), x2 - x1 + 2 * away, y2 - y1 + 2 * away
        axes.add_patch(
            Rectangle(corner, width, height, fill=False, ec=colour, lw=0.9, joinstyle="miter")
        )
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
