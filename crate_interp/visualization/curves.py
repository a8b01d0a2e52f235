"""Courses of training runs, or of a number through the blocks, one panel per number.

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
from crate_interp.visualization.chart import COLOURS, LABEL, draw_frame, write_below, write_legend
from crate_interp.visualization.style import Figure, wrapped

__all__ = ["Curve", "CurvePanel", "draw_curves", "smooth_curve"]

_LINE_STYLES = ("-", "--", ":", "-.")
_FEW_POINTS = 40  # up to here each measurement of a single line is marked
_PALEST = 0.25  # opacity of the first of several lines
_BAND = 0.18  # opacity of a band
_PANEL_INCHES = (3.5, 2.6)
_NARROWEST = 2.2  # inches of a panel
_LEVEL = "0.45"
_DOTS: dict[str, Any] = {
    "linestyle": "none", "marker": "o", "markersize": 4, "markeredgecolor": "white",
    "markeredgewidth": 0.5,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Curve:
    """The course of a number in one run.

    Attributes:
        run: Name in the legend; a run has the same colour in every panel.
        x: Places where the number was measured, ascending.
        y: Value of the number, or one per block; NaN where it was not measured.
        deviation: Half the height of a band around each line; NaN where there is none.
        dots: Draw dots without lines, of one opacity.

    Raises:
        InputError: The sizes differ, `x` does not ascend, or there is nothing to draw.
    """

    run: str
    x: Float[np.ndarray, " P"]
    y: Float[np.ndarray, "P L"]
    deviation: Float[np.ndarray, "P L"] | None = None
    dots: bool = False

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
class CurvePanel:
    """One number of all runs.

    Attributes:
        title: Name of the number, with its unit.
        curves: A run that did not measure the number has none.
        smooth: Draw a smoothed line over the raw one, which is then pale.
        level: A line across the panel to compare with: its word, and where it is.
    """

    title: str
    curves: Sequence[Curve]
    smooth: bool = False
    level: tuple[str, float] | None = None


def draw_curves(
    panels: Sequence[CurvePanel], x_label: str, note: str = "", width: float | None = None
) -> Figure:
    """Draw the courses of several runs side by side, with one legend for all panels.

    Args:
        panels: Panels in reading order.
        x_label: Name of x, with its unit.
        note: Words below the figure.
        width: Width of the page, inches; it then decides how many panels stand side by side.

    Returns:
        The figure. Of several lines of one run the first is the palest.

    Raises:
        InputError: There is no panel, or one without a curve.
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
    height = min(_PANEL_INCHES[1], max(1.7, 0.75 * panel_width)) * rows + 0.2
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, panel, runs)
        title = "\n".join(wrapped(panel.title, panel_width - 0.5, LABEL))
        axes.set_title(title, fontsize=LABEL, loc="left")
    if all(curve.x[0] > 0 for panel in panels for curve in panel.curves):
        grid[0, 0].set_xlim(left=0)
    for number, axes in enumerate(grid.flat):
        axes.set_visible(number < len(panels))
        if number + columns >= len(panels):  # nothing below it
            axes.set_xlabel("\n".join(wrapped(x_label, panel_width - 0.5, LABEL)), fontsize=LABEL)
            axes.tick_params(labelbottom=True)
    dotted = {curve.run for panel in panels for curve in panel.curves if curve.dots}
    styles = {run: _DOTS if run in dotted else {"linewidth": 1.8} for run in runs}
    handles = [Line2D([], [], **{**_style_of(run, runs), **styles[run]}) for run in runs]
    write_legend(figure, handles, runs)
    write_below(figure, note)
    return figure


def smooth_curve(y: Float[np.ndarray, " P"], points: float) -> Float[np.ndarray, " P"]:
    """Average each point with its neighbours, by Gaussian weights; at the ends, with fewer.

    Args:
        y: Values of the points, finite.
        points: Standard deviation of the weights, in points.
    """
    weights = gaussian_filter1d(np.ones_like(y), points, mode="constant")
    return np.asarray(gaussian_filter1d(y, points, mode="constant") / weights)


def _style_of(run: str, runs: Sequence[str]) -> dict[str, Any]:
    round_number, place = divmod(runs.index(run), len(COLOURS))
    line_style = _LINE_STYLES[round_number % len(_LINE_STYLES)]
    return {"color": COLOURS[place], "linestyle": line_style}


def _short(number: float, _: float) -> str:
    return EngFormatter(sep="")(number) if abs(number) >= 1000 else f"{number:g}"


def _draw_panel(axes: Axes, panel: CurvePanel, runs: Sequence[str]) -> None:
    if panel.level is not None:
        word, level = panel.level
        axes.axhline(level, color=_LEVEL, linewidth=1, linestyle=":")
        axes.annotate(
            word, (1, level), (0, 2), xycoords=axes.get_yaxis_transform(),
            textcoords="offset points", fontsize=7, color=_LEVEL, ha="right",
        )  # fmt: skip
    for curve in panel.curves:
        _draw_curve(axes, curve, _style_of(curve.run, runs), panel.smooth)
    axes.xaxis.set_major_formatter(_short)
    if all((curve.x % 1 == 0).all() for curve in panel.curves):
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
    draw_frame(axes)
    if panel.level is not None:  # room for the word above the line
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.05 * (high - low))


def _draw_curve(axes: Axes, curve: Curve, style: dict[str, Any], smooth: bool) -> None:
    if curve.dots:
        x = np.repeat(curve.x, curve.y.shape[1])
        axes.plot(x, curve.y.ravel(), **{**style, **_DOTS})
        return
    if curve.deviation is not None:
        for y, half in zip(curve.y.T, curve.deviation.T, strict=True):
            band = {"color": style["color"], "alpha": _BAND, "linewidth": 0}
            axes.fill_between(curve.x, y - half, y + half, **band)
    opacities = np.linspace(1, _PALEST, curve.y.shape[1])[::-1]
    for line, opacity in zip(curve.y.T, opacities, strict=True):
        measured = np.isfinite(line)
        x, y = curve.x[measured], line[measured]
        if smooth and len(y) > _FEW_POINTS:
            axes.plot(x, y, color=style["color"], alpha=_PALEST, linewidth=0.7)
            y = smooth_curve(y, max(1.0, len(y) / 100))
        marker = "o" if len(y) <= _FEW_POINTS and curve.y.shape[1] == 1 else None
        axes.plot(x, y, **style, alpha=opacity, linewidth=1.4, marker=marker, markersize=2.5)
