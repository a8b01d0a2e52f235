"""A page of a figure, on which places are inches from its upper left corner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from crate_interp.visualization.style import line_height

__all__ = ["EDGE", "NOTE_SIZE", "Page"]

EDGE = 0.06  # inches that stay empty around a page
NOTE_SIZE = 6  # points, of the words below a figure


class Page:
    """A figure whose size is known when all is drawn."""

    def __init__(self) -> None:
        self._figure = Figure()
        self._axes: list[tuple[Axes, float, float, float, float]] = []
        self._texts: list[tuple[Text, float, float]] = []

    def axes(self, x: float, y: float, width: float, height: float, label: str = "") -> Axes:
        """Make axes without ticks and frame."""
        axes = self._figure.add_axes((0, 0, 1, 1), label=label)
        axes.set_axis_off()
        self._axes.append((axes, x, y, width, height))
        return axes

    def lines(self, x: float, y: float, lines: Sequence[str], points: float, **style: Any) -> float:
        """Write lines of text below a place, if there are any.

        Args:
            x: Place of the left end, unless `ha` says something else.
            y: Place of the upper end.
            lines: Text to write.
            points: Size of the letters.
            **style: Whatever else matplotlib's text takes.

        Returns:
            Place of the lower end.
        """
        if any(lines):
            text = self._figure.text(0, 0, "\n".join(lines), fontsize=points, va="top", **style)
            self._texts.append((text, x, y))
        return y + len(lines) * line_height(points)

    def figure_of(self, width: float, height: float) -> Figure:
        """Put everything in its place on a page of a size, inches."""
        self._figure.set_size_inches(width, height)
        for axes, x, y, wide, high in self._axes:
            place = (x / width, 1 - (y + high) / height)
            axes.set_position((*place, wide / width, high / height))
        for text, x, y in self._texts:
            text.set_position((x / width, 1 - y / height))
        return self._figure
