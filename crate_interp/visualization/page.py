"""A page of a figure, on which places are told in inches from its top left corner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["EDGE", "Page", "line_height"]

EDGE = 0.06  # inches that stay empty around a page


def line_height(points: float) -> float:
    """Height of a line of text, inches."""
    return 1.3 * points / 72


@dataclass(frozen=True)
class Page:
    """A figure of a known size.

    Attributes:
        figure: It.
        width: Inches.
        height: Inches.
    """

    figure: Figure
    width: float
    height: float

    @classmethod
    def of(cls, width: float, height: float) -> Page:
        """Make an empty page."""
        return cls(Figure(figsize=(width, height)), width, height)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A place in the coordinates of the figure."""
        return x / self.width, 1 - y / self.height

    def axes(self, x: float, y: float, width: float, height: float, label: str = "") -> Axes:
        """Make axes without ticks and frame."""
        left, bottom = self.at(x, y + height)
        place = (left, bottom, width / self.width, height / self.height)
        axes = self.figure.add_axes(place, label=label)
        axes.set_axis_off()
        return axes

    def lines(self, x: float, y: float, lines: Sequence[str], points: float, **style: Any) -> None:
        """Write lines of text below a place, if there are any.

        Args:
            x: Of the left end, unless `ha` says something else.
            y: Of the upper end.
            lines: To write.
            points: Size.
            **style: As matplotlib's text takes it.
        """
        if any(lines):
            text = "\n".join(lines)
            self.figure.text(*self.at(x, y), text, fontsize=points, va="top", **style)
