"""One grid for all figures of pictures: panels in rows and columns, with words around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes

from crate_interp.errors import InputError
from crate_interp.visualization.panel import TITLE, Panel, draw_panel
from crate_interp.visualization.style import (
    EDGE,
    NOTE_SIZE,
    Figure,
    first_words,
    line_height,
    shortened,
    text_width,
    wrapped,
)

__all__ = ["GAP", "GRID_GAP", "NARROW", "Grid", "Panel", "draw_grids", "names_width"]

NARROW = 5.0  # inches; grids stand below each other on a page that is less wide
GAP, BAND_GAP, GRID_GAP = 0.05, 0.12, 0.2  # inches between panels, bands and grids
HEADING, CAPTION = 9, 6.5  # points
LARGEST = 2.0  # times its own size that a panel may grow to fill a page
_SMALLEST = 0.5  # times its own size that it shrinks to before columns go to another band
_NAME_SHARE, _DETAILS_SHARE = 0.2, 0.42  # of the width at most: for names, and with details
_LONGEST = 3.0  # times its height that a column is wide at most
_TITLE_LINES = 2  # at most; a longer title is shortened

Places = dict[Axes, tuple[float, float, float, float]]  # left, upper edge, width, height, inches


@dataclass(frozen=True, eq=False)
class Grid:
    """Panels in rows and columns.

    Attributes:
        rows: Panels from left to right, as many in each row; the place of `None` stays empty.
        row_names: Words at the left of each row, or none at all. Lines after the first are
            details: the first is bold then.
        row_captions: Words below each row, over the whole width, or none at all.
        equal: `heights`: all rows have one height, and columns the width of their images; columns
            that are too many stand in several bands. `widths`: all columns have one width, and
            rows the height of their images.
        size: Height or width of the panels, inches.
        widest: Inches that columns of one band take at most, on a page of no given width.
        tallest: Height of a row at most, as a multiple of the width of its columns.

    Raises:
        InputError: There is no panel, a row has more than another, or names are missing.
    """

    rows: Sequence[Sequence[Panel | None]]
    row_names: Sequence[str] = ()
    row_captions: Sequence[str] = ()
    equal: Literal["heights", "widths"] = "heights"
    size: float = 1.2
    widest: float = 9.0
    tallest: float = 1.4

    def __post_init__(self) -> None:
        counts = [len(row) for row in self.rows]
        if not counts or not counts[0] or len(set(counts)) > 1:
            raise InputError(
                f"expected columns, and in all rows as many panels each, found {counts}"
            )
        for names in (self.row_names, self.row_captions):
            if names and len(names) != len(counts):
                raise InputError(
                    f"expected a name for each of {len(counts)} rows, found {list(names)}"
                )

    def draw(self, heading: str = "", note: str = "", width: float | None = None) -> Figure:
        """Draw the grid alone on a page; see `draw_grids`."""
        return draw_grids([self], heading, note, width)


def draw_grids(
    grids: Sequence[Grid], heading: str = "", note: str = "", width: float | None = None
) -> Figure:
    """Draw grids on a page: side by side, or below each other where the page is narrow.

    Args:
        grids: Grids from left to right.
        heading: Words above all.
        note: Words below all.
        width: Width of the page, inches, which the grids fill; by default they take their own.
    """
    own = [_columns(grid, None)[0] for grid in grids]
    stacked = len(grids) > 1 and width is not None and width < NARROW
    gaps = 0.0 if stacked else (len(grids) - 1) * GRID_GAP
    filled = width is not None
    width = width or sum(own) + gaps + 2 * EDGE
    room = width - 2 * EDGE
    page = Figure()  # places are inches from its upper left corner until all is drawn
    places: Places = {}
    x = EDGE
    top = _write(page, x, EDGE, wrapped(heading, room, HEADING, True), HEADING, fontweight="bold")
    foot = top
    for grid, each in zip(grids, own, strict=True):
        inches = room if stacked else (room - gaps) * each / sum(own)
        bottom = _draw(page, places, grid, inches if filled else None, x, foot if stacked else top)
        foot = max(foot, bottom + (GRID_GAP if stacked else 0))
        x += 0 if stacked else inches + GRID_GAP
    foot = _write(page, EDGE, foot, wrapped(note, room, NOTE_SIZE), NOTE_SIZE, color="0.35")
    height = foot + EDGE
    page.set_size_inches(width, height)
    for axes, (x, y, wide, high) in places.items():
        axes.set_position((x / width, 1 - (y + high) / height, wide / width, high / height))
    for text in page.texts:
        x, y = text.get_position()
        text.set_position((x / width, 1 - y / height))
    return page


def _write(
    page: Figure, x: float, y: float, lines: Sequence[str], points: float, **style: Any
) -> float:
    """Write lines of text, if there are any, below a place; return the place of their lower end."""
    if any(lines):
        page.text(x, y, "\n".join(lines), fontsize=points, va="top", **style)
    return y + len(lines) * line_height(points)


def names_width(names: Sequence[str], width: float) -> float:
    """Inches that the names of rows take, on a page or a part of it of some width."""
    places = [
        text_width(line, TITLE, bold=number == 0 and "\n" in name)
        for name in names
        for number, line in enumerate(_lines_of(name, width))
    ]
    return max(places) + 2 * GAP if places else 0.0


def _lines_of(name: str, width: float) -> list[str]:
    """Lines of the name of a row; its first one may be bold."""
    first, *details = name.splitlines() or [""]
    inches = width * (_DETAILS_SHARE if details else _NAME_SHARE)
    lines = wrapped(first, inches, TITLE, bold=bool(details))
    return lines + [line for detail in details for line in wrapped(detail, inches, TITLE)]


def _draw(
    page: Figure, places: Places, grid: Grid, width: float | None, left: float, y: float
) -> float:
    """Draw a grid with its upper left corner at a place, and say where it ends, inches."""
    page_width = width or grid.widest
    named = names_width(grid.row_names, page_width)
    width, size, widths, bands = _columns(grid, width)
    for band in bands:
        for number, row in enumerate(grid.rows):
            name = _lines_of(grid.row_names[number], page_width) if grid.row_names else []
            tall = max(_height(grid, row, size), len(name) * line_height(TITLE))
            titles = {n: _title(row[n], widths[n]) for n in band}
            most = max(map(len, titles.values()))
            y += most * line_height(TITLE) + 0.03 if most else 0
            middle = y + (tall - len(name) * line_height(TITLE)) / 2
            if name and "\n" in grid.row_names[number]:
                below = _write(page, left, middle, name[:1], TITLE, fontweight="bold")
                _write(page, left, below, name[1:], TITLE, color="0.25")
            else:
                _write(page, left + named - 2 * GAP, middle, name, TITLE, ha="right")
            x = left + named
            for n in band:
                panel = row[n]
                if panel is not None:
                    label = f"{grid.row_names[number] if name else ''} {n}".strip()
                    axes = page.add_axes((0, 0, 1, 1), label=label)
                    axes.set_axis_off()
                    places[axes] = (x, y, widths[n], tall)
                    draw_panel(axes, panel, titles[n], widths[n])
                    caption = [first_words(panel.caption, widths[n], CAPTION)]
                    at = (x + widths[n] / 2, y + tall + 0.02)
                    _write(page, *at, caption, CAPTION, color="0.3", ha="center")
                x += widths[n] + GAP
            captioned = any(panel is not None and panel.caption for panel in row)
            y += tall + (line_height(CAPTION) if captioned else 0)
            if grid.row_captions:
                lines = wrapped(grid.row_captions[number], width, TITLE)
                y = _write(page, left, y + 0.02, lines, TITLE, color="0.25")
            y += GAP
        y += BAND_GAP - GAP
    return y - BAND_GAP + GAP


def _columns(grid: Grid, width: float | None) -> tuple[float, float, list[float], list[range]]:
    """Width of the grid (`None`: its own), size of panels, widths of columns, columns of bands."""
    named = names_width(grid.row_names, width or grid.widest)
    room = grid.widest if width is None else width - named
    if grid.equal == "heights":
        shares = [_proportion(column) for column in zip(*grid.rows, strict=True)]
        shrunk = 1.0 if width is None else max(_SMALLEST, min(1.0, room / grid.widest) ** 0.5)
        bands = _bands([shrunk * grid.size * share for share in shares], room)
    else:
        shares = [1.0] * len(grid.rows[0])
        bands = [range(len(shares))]
    taken = [(sum(shares[n.start : n.stop]), (len(n) - 1) * GAP) for n in bands]
    size = grid.size
    if width is not None:
        size = min(*((room - gaps) / share for share, gaps in taken), LARGEST * size)
    own = named + max(size * share + gaps for share, gaps in taken)
    return width or own, size, [size * share for share in shares], bands


def _bands(widths: Sequence[float], room: float) -> list[range]:
    """Break columns into the fewest bands, which are as equal as that allows."""
    fewest = len(_filled(widths, room))
    limits = np.linspace(min(sum(widths) / fewest, room), room, 100)
    return next(bands for bands in (_filled(widths, x) for x in limits) if len(bands) <= fewest)


def _filled(widths: Sequence[float], limit: float) -> list[range]:
    bands, left = [range(1)], widths[0]
    for number, width in enumerate(widths[1:], 1):
        if left + GAP + width > limit:
            bands.append(range(number, number + 1))
            left = width
        else:
            bands[-1] = range(bands[-1].start, number + 1)
            left += GAP + width
    return bands


def _proportion(column: Sequence[Panel | None]) -> float:
    """Width of the images of a column, as a multiple of their height."""
    height, width = next((panel.hw for panel in column if panel is not None), (1, 1))
    return min(max(width / height, 1 / _LONGEST), _LONGEST)


def _height(grid: Grid, row: Sequence[Panel | None], size: float) -> float:
    """Height of the images of a row, inches."""
    if grid.equal == "heights":
        return size
    proportions = [panel.hw[0] / panel.hw[1] for panel in row if panel is not None]
    return size * min(grid.tallest, max(proportions, default=0.0))


def _title(panel: Panel | None, inches: float) -> list[str]:
    title = "" if panel is None else panel.title
    lines = wrapped(title, inches, TITLE)
    return lines if len(lines) <= _TITLE_LINES else [shortened(title, inches, TITLE)]
