"""Charts of a page as SVG, whose colours are the page's: legible on light and on dark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.ticker import MaxNLocator

from crate_interp.errors import InputError
from crate_interp.files import escaped

__all__ = ["Histogram", "LineChart"]

_WIDTH, _HEIGHT = 360, 214  # units of the drawing; the page says how large they are
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 12, 10, 36
_MOST_LINES = 4  # colours and dashes of page.css

Scale = Callable[[float], float]


@dataclass(frozen=True, eq=False)
class Histogram:
    """Numbers of values in bins of equal width.

    Attributes:
        title: Words above the chart.
        values: The values.
        limits: Lower end of the first bin and upper end of the last; values outside are counted in
            these.
        bins: Number of bins.
        x_label: Name of the values.
        y_label: Name of what is counted.
        whole: Whether the values are whole numbers.
    """

    title: str
    values: Float[np.ndarray, " n"]
    limits: tuple[float, float]
    bins: int
    x_label: str
    y_label: str
    whole: bool = False

    def html(self) -> str:
        """Draw the chart.

        Raises:
            InputError: There is no bin, or the limits are none.
        """
        low, high = self.limits
        if self.bins < 1 or not low < high:
            raise InputError(
                f"histogram: expected bins between two limits, found {self.bins} from {low} to "
                f"{high}"
            )
        counts, edges = np.histogram(np.clip(self.values, low, high), self.bins, (low, high))
        most = max(1, int(counts.max()))
        to_x, to_y, frame = _frame(
            (low, high), (0, most), (self.x_label, self.y_label), (self.whole, True)
        )
        bars = [
            f'<rect x="{to_x(left) + 0.5:.1f}" y="{to_y(count):.1f}" '
            f'width="{max(0.5, to_x(right) - to_x(left) - 1):.1f}" '
            f'height="{to_y(0) - to_y(count):.1f}">'
            f"<title>{left:.3g} to {right:.3g}: {count}</title></rect>"
            for left, right, count in zip(edges, edges[1:], counts.tolist(), strict=False)
            if count
        ]
        return _card(self.title, frame, bars)


@dataclass(frozen=True, eq=False)
class LineChart:
    """Lines over a common axis.

    Attributes:
        title: Words above the chart.
        x: Places of the points.
        lines: Name and values of each line, at most four; NaN ends a line.
        x_label: Name of the horizontal axis.
        y_label: Name of the vertical axis.
        x_limits: Ends of the horizontal axis.
        y_limits: Ends of the vertical axis.
        whole: Whether the places are whole numbers.
    """

    title: str
    x: Float[np.ndarray, " P"]
    lines: Sequence[tuple[str, Float[np.ndarray, " P"]]]
    x_label: str
    y_label: str
    x_limits: tuple[float, float] = (0, 1)
    y_limits: tuple[float, float] = (0, 1)
    whole: bool = False

    def html(self) -> str:
        """Draw the chart with its legend.

        Raises:
            InputError: There is no line or too many, or one has not as many points as there are
                places.
        """
        if not 1 <= len(self.lines) <= _MOST_LINES or any(
            y.shape != self.x.shape for _, y in self.lines
        ):
            raise InputError(
                f"lines: expected 1 to {_MOST_LINES} of {len(self.x)} points, found "
                f"{[len(y) for _, y in self.lines]}"
            )
        labels = (self.x_label, self.y_label)
        to_x, to_y, frame = _frame(self.x_limits, self.y_limits, labels, (self.whole, False))
        drawn, legend = [], []
        for number, (name, y) in enumerate(self.lines):
            known = np.isfinite(y)
            points = " ".join(
                f"{to_x(float(a)):.1f},{to_y(float(b)):.1f}"
                for a, b in zip(self.x[known], y[known], strict=True)
            )
            drawn.append(f'<polyline class="c{number}" points="{points}"/>')
            sample = (
                f'<svg viewBox="0 0 26 8"><polyline class="c{number}" points="0,4 26,4"/></svg>'
            )
            legend.append(f"<li>{sample}{escaped(name)}</li>")
        return _card(self.title, frame, drawn, f'<ul class="legend">{"".join(legend)}</ul>')


def _card(title: str, frame: Sequence[str], content: Sequence[str], below: str = "") -> str:
    inside = "".join([*frame, *content])
    return (
        f'<figure class="card"><h3>{escaped(title)}</h3><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'role="img" aria-label="{escaped(title)}">{inside}</svg>{below}</figure>'
    )


def _frame(
    x_limits: tuple[float, float],
    y_limits: tuple[float, float],
    labels: tuple[str, str],
    whole: tuple[bool, bool],
) -> tuple[Scale, Scale, list[str]]:
    """Axes with their numbers and names, and the scales that lead to places between them.

    Args:
        x_limits: Ends of the horizontal axis.
        y_limits: Ends of the vertical axis.
        labels: Names of both axes.
        whole: Whether each axis is of whole numbers.
    """
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    to_x, to_y = _scale(x_limits, _LEFT, right), _scale(y_limits, bottom, _TOP)
    parts = []
    for value in _ticks(y_limits, whole[1]):
        y = to_y(value)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    parts += [
        f'<text x="{to_x(value):.1f}" y="{bottom + 15}" text-anchor="middle">{value:.4g}</text>'
        for value in _ticks(x_limits, whole[0])
    ]
    middle = (_LEFT + right) / 2
    parts += [
        f'<path class="axis" d="M{_LEFT} {bottom}H{right}"/>',
        f'<text x="{middle}" y="{_HEIGHT - 5}" text-anchor="middle">{escaped(labels[0])}</text>',
        f'<text transform="translate(11 {(_TOP + bottom) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escaped(labels[1])}</text>',
    ]
    return to_x, to_y, parts


def _scale(limits: tuple[float, float], start: float, end: float) -> Scale:
    low, high = limits
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _ticks(limits: tuple[float, float], whole: bool) -> list[float]:
    low, high = limits
    values = MaxNLocator(5, integer=whole).tick_values(low, high)
    return [float(value) for value in values if low <= value <= high]
