"""Atoms on a page: the patches that each fires on most, in their surroundings.

Shapes: h w patch grid, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from crate_interp.errors import InputError
from crate_interp.visualization.grid import (
    GAP,
    GRID_GAP,
    NARROW,
    Grid,
    Panel,
    draw_grids,
    names_width,
)
from crate_interp.visualization.style import EDGE, Figure

__all__ = ["CONTEXT_PATCHES", "CONTEXT_SHARE", "AtomRow", "atom_sheet", "context_window"]

CONTEXT_PATCHES = 7  # side of the surroundings of a patch, in patches
CONTEXT_SHARE = 0.25  # or as a share of the image's shorter side, if that is larger

_SIDE, _SMALLEST, _PICTURE = 0.72, 0.5, 2.9  # inches
_NOTE = "beside each map: the patches of the atlas that the atom fires on most, the strongest first"

Box = tuple[float, float, float, float]
RGB = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True, eq=False)
class AtomRow:
    """One atom of a sheet.

    Attributes:
        name: Name in bold, for instance the number of the atom.
        lines: Other lines of text.
        value_map: Value over the patch grid, at least 0: the mean of many images, or that of one.
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
        box: The patch, (x1, y1, x2, y2), pixels.
    """
    height, width = picture_hw
    x1, y1, x2, y2 = box
    shorter = min(height, width)
    shown = max(CONTEXT_PATCHES * max(x2 - x1, y2 - y1), CONTEXT_SHARE * shorter)
    side = min(round(shown), shorter)
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
    """Atoms one below the other, each with a map of its value and its strongest patches framed.

    Args:
        rows: Atoms in the order of the sheet, with any number of patches each.
        title: Words above all.
        picture: Image that the maps are of; it then stands at the left, or on top of a narrow page.
            Without it they are mean maps.
        chosen: Pixels of `picture` to outline.
        width: Width of the page, inches; as many patches are shown as have room.

    Raises:
        InputError: There is no atom, or `chosen` is not of the image's size.
    """
    if not rows:
        raise InputError("expected one atom or more to draw, found none")
    if picture is not None and chosen is not None and chosen.shape != picture.shape[:2]:
        raise InputError(f"chosen pixels of {chosen.shape} in an image of {picture.shape[:2]}")
    names = ["\n".join([row.name, *row.lines]) for row in rows]
    most = max(len(row.patches) for row in rows)
    if width is not None:
        beside = 0.0 if picture is None or width < NARROW else _PICTURE + GRID_GAP
        room = width - 2 * EDGE - beside
        most = min(most, max(1, int((room - names_width(names, room)) / (_SMALLEST + GAP)) - 1))
    first = [Panel(picture, mask=chosen)] if picture is not None else []
    titles = ["mean map" if picture is None else "here", *["strongest"][:most]]
    panels = []
    for number, row in enumerate(rows):
        words = iter([] if number else titles)
        covers_hw = None if picture is None else (picture.shape[0], picture.shape[1])
        values = row.value_map / (float(row.value_map.max()) or 1.0)
        line: list[Panel | None] = [
            Panel(values, next(words, ""), colours="cividis", covers_hw=covers_hw)
        ]
        line += [_patch(rgb, box, next(words, "")) for rgb, box in row.patches[:most]]
        panels.append(line + [None] * (most + 1 - len(line)))
    table = Grid(panels, names, equal="widths", size=_SIDE, tallest=1.0)
    pictures = [Grid([first], equal="widths", size=_PICTURE)] if first else []
    return draw_grids([*pictures, table], title, _NOTE, width)


def _patch(rgb: RGB, box: Box, title: str) -> Panel:
    """A patch in its surroundings."""
    left, top, right, bottom = context_window((rgb.shape[0], rgb.shape[1]), box)
    x1, y1, x2, y2 = box
    inside = (x1 - left, y1 - top, x2 - left, y2 - top)
    return Panel(rgb[top:bottom, left:right], title, box_xyxy=inside)
