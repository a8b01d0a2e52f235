"""Common parts of all charts: their frame, and the words around it.

A chart starts with the height of its axes; the words above and below make it grow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine

from crate_interp.visualization.style import (
    EDGE,
    NOTE_SIZE,
    Figure,
    line_height,
    text_width,
    wrapped,
)

__all__ = ["COLOURS", "LABEL", "SMALL", "draw_frame", "write_below", "write_legend", "write_title"]

# Okabe and Ito's colours in an order whose first ones stand out on white; yellow does not.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LABEL, SMALL = 9, 8  # points: of axes, and of their numbers and of a legend


def draw_frame(axes: Axes, grid: Literal["both", "x"] = "both") -> None:
    """Draw a grid behind what is shown, and no line but the axes; bars have no line at the left."""
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    if grid == "x":
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    axes.grid(axis=grid, color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)


def write_title(figure: Figure, title: str) -> None:
    """Write what is shown above a chart without a legend."""
    width, height = figure.get_size_inches()
    lines = wrapped(title, width - 0.2, SMALL)
    figure.set_size_inches(width, height + len(lines) * line_height(SMALL))
    figure.suptitle("\n".join(lines), x=EDGE / width, ha="left", fontsize=SMALL)


def write_legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Write a legend above a chart, in as many columns as have room."""
    width, height = figure.get_size_inches()
    wrapped_names = [wrapped(name, width - 0.7, SMALL) for name in names]
    entry = max(text_width(line, SMALL) for lines in wrapped_names for line in lines) + 0.55
    columns = min(len(names), max(1, int((width - 0.1) / entry)))
    rows = max(map(len, wrapped_names)) * math.ceil(len(names) / columns)
    figure.set_size_inches(width, height + 1.2 * line_height(SMALL) * rows)
    figure.legend(
        handles,
        ["\n".join(lines) for lines in wrapped_names],
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        fontsize=SMALL,
    )


def write_below(figure: Figure, note: str) -> None:
    """Write a note below a figure of constrained layout.

    Legends of the figure must stand above the axes: those below would hold on to the lower edge.
    """
    width, height = figure.get_size_inches()
    lines = wrapped(note, width - 2 * EDGE, NOTE_SIZE)
    engine = figure.get_layout_engine()
    if not lines or not isinstance(engine, ConstrainedLayoutEngine):
        return
    foot = len(lines) * line_height(NOTE_SIZE) + EDGE
    height += foot
    figure.set_size_inches(width, height)
    engine.set(rect=(0, foot / height, 1, 1 - foot / height))
    place = (EDGE / width, foot / height)
    figure.text(*place, "\n".join(lines), va="top", fontsize=NOTE_SIZE, color="0.35")
