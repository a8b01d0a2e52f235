"""Scores class by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from crate_interp.errors import InputError
from crate_interp.visualization.chart import COLOURS, SMALL, draw_frame, write_below, write_legend
from crate_interp.visualization.style import Figure, line_height, shortened, wrapped

__all__ = ["class_scores_figure"]

_MARKERS = "osD^"
_ROW = 0.19  # inches per class


def class_scores_figure(
    classes: Sequence[str],
    scores: Mapping[str, Float[np.ndarray, " C"]],
    x_label: str,
    means: Mapping[str, float],
    note: str = "",
    width: float | None = None,
) -> Figure:
    """Draw scores by class as dots, the class of the highest first score on top.

    Args:
        classes: Names of the classes, with other words beside a dot, such as a number of images.
        scores: Scores by method, up to four, in [0, 1]; a class whose first score is NaN is left
            out.
        x_label: Name of the scores.
        means: Mean of each method, a line.
        note: Words below the figure.
        width: Width of the page, inches.

    Raises:
        InputError: There is not one score per class, no method or too many, or no class with a
            score.
    """
    order = _checked_order(classes, scores, means)
    width = width or 5.2
    labels = [f"{method} (mean {100 * means[method]:.1f})" for method in scores]
    names = [shortened(classes[place], 0.4 * width, SMALL) for place in order]
    x_lines = wrapped(x_label, 0.6 * width, SMALL)
    height = 0.5 + line_height(SMALL) * len(x_lines) + _ROW * len(order)
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    rows = np.arange(len(order))
    shifts = 0.18 * (np.arange(len(scores)) - (len(scores) - 1) / 2)  # equal scores stay visible
    for (method, values), colour, marker, shift in zip(
        scores.items(), COLOURS, _MARKERS, shifts, strict=False
    ):
        axes.axvline(100 * means[method], color=colour, linewidth=0.8, alpha=0.6, zorder=1)
        style: dict[str, Any] = {"s": 14, "color": colour, "marker": marker, "linewidth": 0}
        axes.scatter(100 * values[order], rows - shift, **style)
    axes.set_yticks(range(len(order)), names)
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.set_xlim(left=0)
    axes.set_xlabel("\n".join(x_lines), fontsize=SMALL)
    draw_frame(axes, "x")
    for row in rows[::2]:
        axes.axhspan(row - 0.5, row + 0.5, color="0.96", linewidth=0, zorder=0)
    write_legend(figure, axes.collections[: len(scores)], labels)
    write_below(figure, note)
    return figure


def _checked_order(
    classes: Sequence[str],
    scores: Mapping[str, Float[np.ndarray, " C"]],
    means: Mapping[str, float],
) -> list[int]:
    """Places of the classes that have a score, the lowest first."""
    if not 1 <= len(scores) <= len(_MARKERS) or scores.keys() != means.keys():
        raise InputError(
            f"expected 1 to {len(_MARKERS)} methods, each with a mean, found {[*scores]}, "
            f"{[*means]}"
        )
    for method, values in scores.items():
        if values.shape != (len(classes),):
            raise InputError(f"{method}: expected ({len(classes)},) scores, found {values.shape}")
    first = next(iter(scores.values()))
    order = [int(place) for place in np.argsort(first) if np.isfinite(first[place])]
    if not order:
        raise InputError("expected a class with a score, found none")
    return order
