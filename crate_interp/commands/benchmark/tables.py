"""Tables that benchmarks print, and scores by class as a table and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from crate_interp import visualization
from crate_interp.runs.outputs import Drawing, Output, Table

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

    from crate_interp.runs.run import Run

__all__ = ["class_scores", "format_table", "percent"]


def percent(share: float) -> str:
    """Write a share of 1 in percent, as the papers do; "-" for one that is not defined."""
    return "-" if np.isnan(share) else f"{100 * share:.1f}"


def format_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay cells out in columns; the first one is a name, the others are numbers."""
    lines = [list(heading), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heading))]
    return "\n".join(
        line[0].ljust(widths[0])
        + "".join(f"  {cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True))
        for line in lines
    )


def class_scores(
    run: Run,
    classes: Sequence[str],
    counts: Int64[np.ndarray, " C"],
    scores: Mapping[str, Float[np.ndarray, " C"]],
    label: str,
) -> tuple[list[Output], str]:
    """Make the table and the figure of scores by class, and a table to print.

    Args:
        run: The run.
        classes: Names of the classes.
        counts: Number of images that each class occurs in; classes without one are left out.
        scores: Scores of each method, shares of 1.
        label: Name of the scores, for the figure.
    """
    kept: list[int] = np.flatnonzero(counts).tolist()
    header = ["class", "images", *scores]
    rows: list[list[Any]] = [
        [classes[n], int(counts[n]), *(float(column[n]) for column in scores.values())]
        for n in kept
    ]
    names = [f"{classes[number]} ({counts[number]})" for number in kept]
    shown = {method: column[kept] for method, column in scores.items()}
    means = {method: float(np.nanmean(column)) for method, column in shown.items()}
    note, width = "{model} at {size} px".format_map(run.settings), run.command.width_inches
    figure = visualization.class_scores_figure(names, shown, label, means, note, width)
    printed = [[name, str(count), *map(percent, values)] for name, count, *values in rows]
    outputs: list[Output] = [Table("classes", header, rows), Drawing("classes", figure)]
    return outputs, format_table(header, printed)
