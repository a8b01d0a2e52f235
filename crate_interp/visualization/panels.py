"""Images of different widths in rows and columns, with names at the sides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patheffects import withStroke

from crate_interp.errors import InputError
from crate_interp.visualization.page import line_height
from crate_interp.visualization.style import (
    NOTE_SIZE,
    Figure,
    shortened,
    text_width,
    wrapped,
)

__all__ = ["Column", "Panel", "mask_outline", "panel_figure"]

GAP, BAND_GAP, MARGIN = 0.04, 0.12, 0.06  # inches
TITLE = 7  # points, of columns and rows
LINE = 0.17  # inches of a title of a column
NAME_SHARE = 0.17  # of the width, at most, for the names of rows
_SMALLEST = 0.6  # of its own height, that a row shrinks to on a narrow page
LARGEST = 2.0  # times its own height that a row may grow to fill a width
OUTLINE = "#D55E00"


@dataclass(frozen=True, eq=False)
class Panel:
    """An image, and what is drawn on it.

    Attributes:
        rgb: The image.
        mask: Its outline is drawn.
        point_yx: A point that is marked, in pixels of the image.
    """

    rgb: UInt8[np.ndarray, "H W 3"]
    mask: Bool[np.ndarray, "H W"] | None = None
    point_yx: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if 0 in self.rgb.shape or (self.mask is not None and self.mask.shape != self.rgb.shape[:2]):
            found = None if self.mask is None else self.mask.shape
            raise InputError(
                f"expected an image and a mask of its size, found {self.rgb.shape} and {found}"
            )


@dataclass(frozen=True)
class Column:
    """Panels below each other, all of one size.

    Attributes:
        title: Above them.
        panels: One a row, at least one of them; the place of `None` stays empty.
    """

    title: str
    panels: Sequence[Panel | None]


def panel_figure(
    columns: Sequence[Column],
    row_names: Sequence[str] = (),
    note: str = "",
    row_height: float = 1.2,
    widest: float = 9.0,
    width: float | None = None,
) -> Figure:
    """Draw columns of panels side by side; where they are too many, in several bands.

    Args:
        columns: From left to right. Rows have one height, a column is as wide as its images are.
        row_names: At the left of each row, or none at all.
        note: Below the figure.
        row_height: Inches.
        widest: Inches that columns side by side may take; more of them go below.
        width: Of the page, inches; rows are then as high as fills it.

    Raises:
        InputError: No column, or not the same rows everywhere.
    """
    rows = _checked_rows(columns, row_names)
    names = [wrapped(name, NAME_SHARE * (width or widest), TITLE) for name in row_names]
    named = max((text_width(line, TITLE) for name in names for line in name), default=0.0)
    left = MARGIN + (named + 2 * GAP if named else 0)
    room = widest if width is None else width - left - MARGIN + GAP
    if width is not None:  # more columns side by side on a narrow page, if smaller ones
        row_height *= max(_SMALLEST, min(1.0, width / widest) ** 0.5)
    proportions = [_proportion_of(column) for column in columns]
    bands = math.ceil(sum(row_height * each + GAP for each in proportions) / room)
    each = math.ceil(len(columns) / bands)
    starts = range(0, len(columns), each)
    if width is not None:
        filled = min((room - each * GAP) / sum(proportions[at : at + each]) for at in starts)
        row_height = min(filled, LARGEST * row_height)
    widths = [row_height * proportion + GAP for proportion in proportions]
    width = width or left + max(sum(widths[at : at + each]) for at in starts) - GAP + MARGIN
    note_lines = wrapped(note, width - 2 * MARGIN, NOTE_SIZE)
    band_height = LINE + rows * (row_height + GAP) - GAP
    foot = MARGIN + len(starts) * (band_height + BAND_GAP) - BAND_GAP / 2
    height = foot + len(note_lines) * line_height(NOTE_SIZE) + MARGIN
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1), label="panels")
    for number, at in enumerate(starts):
        top = MARGIN + number * (band_height + BAND_GAP)
        for row, name in enumerate(names):
            y = top + LINE + row * (row_height + GAP) + row_height / 2
            named_at: dict[str, Any] = {"fontsize": TITLE, "ha": "right", "va": "center"}
            axes.text(left - 2 * GAP, y, "\n".join(name), **named_at)
        x = left
        for column, wide in zip(columns[at : at + each], widths[at : at + each], strict=True):
            shown = wide - GAP
            title = shortened(column.title, shown, TITLE)
            axes.text(x + shown / 2, top + LINE - 0.04, title, fontsize=TITLE, ha="center")
            for row, panel in enumerate(column.panels):
                y = top + LINE + row * (row_height + GAP)
                if panel is not None:
                    _draw(axes, panel, (x, y, shown, row_height))
            x += wide
    if note_lines:
        style: dict[str, Any] = {"fontsize": NOTE_SIZE, "color": "0.35", "va": "top"}
        axes.text(MARGIN, foot, "\n".join(note_lines), **style)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return figure


def _checked_rows(columns: Sequence[Column], row_names: Sequence[str]) -> int:
    """Number of rows that all columns have."""
    rows = len(columns[0].panels) if columns else 0
    if not rows or any(len(column.panels) != rows for column in columns):
        raise InputError(
            "expected columns of as many panels each, found "
            f"{[len(column.panels) for column in columns]}"
        )
    if row_names and len(row_names) != rows:
        raise InputError(f"expected a name for each of {rows} rows, found {list(row_names)}")
    return rows


def mask_outline(mask: Bool[np.ndarray, "H W"]) -> Float[np.ndarray, "S 2 2"]:
    """Straight lines between the pixels of a mask and all others, the image's border too.

    Returns:
        From and to, each (x, y), in pixels; pixel (row, column) covers x from column to column + 1.
        A line is as long as it can be.
    """
    across = _runs(np.diff(np.pad(mask, ((1, 1), (0, 0))).astype(np.int8), axis=0))
    down = _runs(np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1).T)
    return np.concatenate([across[:, :, ::-1], down]).astype(float)


def _runs(edges: Int[np.ndarray, "L n"]) -> Int[np.ndarray, "S 2 2"]:
    """First and one past the last of equal neighbours that are not zero, each (line, place)."""
    padded = np.pad(edges, ((0, 0), (1, 1)))
    changes = np.diff(padded, axis=1) != 0
    starts = np.argwhere(changes[:, :-1] & (edges != 0))
    last = np.argwhere(changes[:, 1:] & (edges != 0))
    return np.stack([starts, last + np.array([0, 1])], axis=1)


def _proportion_of(column: Column) -> float:
    """Width of the images of a column, over their height."""
    height, width = next(panel for panel in column.panels if panel).rgb.shape[:2]
    return float(width / height)


def _draw(axes: Axes, panel: Panel, place: tuple[float, float, float, float]) -> None:
    x, y, width, height = place
    rows, columns = panel.rgb.shape[:2]
    scale = np.array([width / columns, height / rows])
    corners = (x, x + width, y + height, y)
    axes.imshow(panel.rgb, extent=corners, interpolation="antialiased", aspect="auto")
    if panel.mask is not None:
        lines = mask_outline(panel.mask) * scale + (x, y)
        for colour, thickness in (("white", 1.5), (OUTLINE, 0.7)):
            axes.add_collection(
                LineCollection(lines, colors=colour, linewidths=thickness, capstyle="projecting")
            )
    if panel.point_yx is not None:
        axes.plot(
            *(np.array(panel.point_yx[::-1]) * scale + (x, y)),
            marker="o",
            markersize=5,
            markerfacecolor="none",
            markeredgecolor=OUTLINE,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )
