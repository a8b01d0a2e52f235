"""Courses of training runs, or of a number through the blocks, one panel a number.

Shapes: P points, L lines (one, or one of every block).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator
from scipy.ndimage import gaussian_filter1d

from crate_interp.errors import InputError
from crate_interp.visualization.page import line_height
from crate_interp.visualization.style import Figure, text_width, wrapped, write_below

__all__ = ["Curve", "Panel", "draw_curves", "smooth_curve"]

# Okabe and Ito's colours in an order whose first ones stand out on white; yellow does not.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_LINE_STYLES = ("-", "--", ":", "-.")
_FEW_POINTS = 40  # up to here each measurement of a single line is marked
_PALEST = 0.25  # opacity of the first of several lines
_BAND = 0.18  # opacity of a band
_PANEL_INCHES = (3.5, 2.6)
_NARROWEST = 2.2  # inches of a panel
_LEGEND = 8  # points


@dataclass(frozen=True, eq=False)
class Curve:
    """The course of a number in one run.

    Attributes:
        run: Name in the legend; a run has the same colour in every panel.
        x: Where the number was measured, ascending.
        y: The number, or one of every block; NaN where it was not measured.
        deviation: Half the height of a band around each line; NaN where there is none.

    Raises:
        InputError: The sizes differ, `x` does not ascend, or there is nothing to draw.
    """

    run: str
    x: Float[np.ndarray, " P"]
    y: Float[np.ndarray, "P L"]
    deviation: Float[np.ndarray, "P L"] | None = None

    def __post_init__(self) -> None:
        if self.deviation is not None and self.deviation.shape != self.y.shape:
            raise InputError(
                f"{self.run}: expected one deviation a number, {self.y.shape}, found "
                f"{self.deviation.shape}"
            )
        if self.y.ndim != 2 or self.x.shape != self.y.shape[:1]:
            raise InputError(
                f"{self.run}: expected x (P,) and y (P, L), found {self.x.shape} and {self.y.shape}"
            )
        if not np.isfinite(self.y).any() or np.isinf(self.y).any():
            raise InputError(f"{self.run}: expected finite numbers to draw, found {self.y}")
        if not np.isfinite(self.x).all() or (np.diff(self.x) <= 0).any():
            raise InputError(f"{self.run}: expected x to ascend, found {self.x}")


@dataclass(frozen=True)
class Panel:
    """One number of all runs.

    Attributes:
        title: What is drawn, with its unit.
        curves: A run that did not measure the number has none.
        smooth: Draw a smoothed line over the raw one, which is then pale.
    """

    title: str
    curves: Sequence[Curve]
    smooth: bool = False


def draw_curves(
    panels: Sequence[Panel], x_label: str, note: str = "", width: float | None = None
) -> Figure:
    """Draw the courses of several runs side by side, with one legend for all panels.

    Args:
        panels: In reading order.
        x_label: What x is, with its unit.
        note: Below the figure.
        width: Of the page, inches; it then decides how many panels stand side by side.

    Returns:
        The figure. Of several lines of one run the first is the palest.

    Raises:
        InputError: No panel, or a panel without a curve.
    """
    if not panels or not all(panel.curves for panel in panels):
        raise InputError("expected panels of one curve or more, found an empty one or none")
    runs = list(dict.fromkeys(curve.run for panel in panels for curve in panel.curves))
    square = next(n for n in (1, 2, 3, 4) if n * n >= len(panels) or n == 4)
    columns = 3 if len(panels) == 3 else square
    if width is not None:
        columns = min(columns, max(1, int(width / _NARROWEST)))
    rows = math.ceil(len(panels) / columns)
    width = width or max(_PANEL_INCHES[0] * columns, 5.0)
    panel_width = width / columns
    names = ["\n".join(wrapped(run, width - 0.7, _LEGEND)) for run in runs]
    entry = max(text_width(line, _LEGEND) for name in names for line in name.split("\n")) + 0.55
    legend_columns = min(len(runs), max(1, int((width - 0.1) / entry)))
    lines = max(name.count("\n") + 1 for name in names) * math.ceil(len(runs) / legend_columns)
    panel_height = min(_PANEL_INCHES[1], max(1.7, 0.75 * panel_width))
    height = panel_height * rows + 1.2 * line_height(_LEGEND) * lines + 0.2
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, panel, runs)
        title = "\n".join(wrapped(panel.title, panel_width - 0.5, 9))
        axes.set_title(title, fontsize=9, loc="left")
    for number, axes in enumerate(grid.flat):
        axes.set_visible(number < len(panels))
        if number + columns >= len(panels):  # nothing below it
            axes.set_xlabel("\n".join(wrapped(x_label, panel_width - 0.5, 9)), fontsize=9)
            axes.tick_params(labelbottom=True)
    figure.legend(
        [Line2D([], [], linewidth=1.8, **_style_of(run, runs)) for run in runs],
        names,
        loc="outside upper left",
        ncols=legend_columns,
        frameon=False,
        fontsize=_LEGEND,
    )
    write_below(figure, note)
    return figure


def smooth_curve(y: Float[np.ndarray, " P"], points: float) -> Float[np.ndarray, " P"]:
    """Average each point with its neighbours, by Gaussian weights; at the ends, with fewer.

    Args:
        y: Finite numbers.
        points: Standard deviation of the weights, in points.
    """
    weights = gaussian_filter1d(np.ones_like(y), points, mode="constant")
    return np.asarray(gaussian_filter1d(y, points, mode="constant") / weights)


def _style_of(run: str, runs: Sequence[str]) -> dict[str, Any]:
    round_number, place = divmod(runs.index(run), len(_COLOURS))
    return {
        "color": _COLOURS[place],
        "linestyle": _LINE_STYLES[round_number % len(_LINE_STYLES)],
    }


def _short(number: float, _: float) -> str:
    return EngFormatter(sep="")(number) if abs(number) >= 1000 else f"{number:g}"


def _draw_panel(axes: Axes, panel: Panel, runs: Sequence[str]) -> None:
    for curve in panel.curves:
        style = _style_of(curve.run, runs)
        if curve.deviation is not None:
            for y, half in zip(curve.y.T, curve.deviation.T, strict=True):
                band = {"color": style["color"], "alpha": _BAND, "linewidth": 0}
                axes.fill_between(curve.x, y - half, y + half, **band)
        opacities = np.linspace(1, _PALEST, curve.y.shape[1])[::-1]
        for line, opacity in zip(curve.y.T, opacities, strict=True):
            measured = np.isfinite(line)
            x, y = curve.x[measured], line[measured]
            if panel.smooth and len(y) > _FEW_POINTS:
                axes.plot(x, y, color=style["color"], alpha=_PALEST, linewidth=0.7)
                y = smooth_curve(y, max(1.0, len(y) / 100))
            marker = "o" if len(y) <= _FEW_POINTS and curve.y.shape[1] == 1 else None
            axes.plot(x, y, **style, alpha=opacity, linewidth=1.4, marker=marker, markersize=2.5)
    axes.xaxis.set_major_formatter(_short)
    if all((curve.x % 1 == 0).all() for curve in panel.curves):
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlim(left=0)
