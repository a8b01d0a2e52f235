"""The tables and figures that the benchmarks of labelled images have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int64, UInt8

from crate_interp.config import FigureConfig
from crate_interp.data import shrunk
from crate_interp.runs.figure_files import save_figure
from crate_interp.runs.number_files import write_table
from crate_interp.visualization import class_scores_figure, comparison_figure

__all__ = ["Example", "draw_examples", "format_table", "percent", "write_class_scores"]


EXAMPLE_SIDE = 1024  # pixels; a figure shows no more


class Example(NamedTuple):
    """A row of the figure of examples.

    Attributes:
        pictures: An image with a mask each.
        captions: Of the images.
    """

    pictures: Sequence[UInt8[np.ndarray, "H W 3"]]
    captions: Sequence[str]

    @classmethod
    def drawn(
        cls, pictures: Iterable[UInt8[np.ndarray, "H W 3"]], captions: Sequence[str]
    ) -> Example:
        """Keep images at the size that a figure shows, one after the other."""
        return cls([shrunk(picture, EXAMPLE_SIDE) for picture in pictures], captions)


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


def write_class_scores(
    path: Path,
    classes: Sequence[str],
    counts: Int64[np.ndarray, " C"],
    scores: Mapping[str, Float[np.ndarray, " C"]],
    label: str,
    about: Mapping[str, Any],
    options: FigureConfig,
) -> str:
    """Write scores by class as CSV (with its record as JSON), and as a figure.

    Args:
        path: Of the PNG.
        classes: Names.
        counts: Images that each class occurs in; classes without one are left out.
        scores: By method, shares of 1.
        label: What the scores are, for the figure.
        about: What they were made of, as `about_of` has it.
        options: Of the figure.

    Returns:
        A table to print.
    """
    kept: list[int] = np.flatnonzero(counts).tolist()
    cells = [
        [classes[n], int(counts[n]), *(float(column[n]) for column in scores.values())]
        for n in kept
    ]
    write_table(path.with_suffix(".csv"), ["class", "images", *scores], cells, about)
    names = [f"{classes[number]} ({counts[number]})" for number in kept]
    shown = {method: column[kept] for method, column in scores.items()}
    means = {method: float(np.nanmean(column)) for method, column in shown.items()}
    note = "{model} at {size} px".format_map(about["settings"])
    figure = class_scores_figure(names, shown, label, means, note, options.width_inches)
    save_figure(figure, path, options)
    rows = [
        [classes[n], str(counts[n]), *(percent(column[n]) for column in scores.values())]
        for n in kept
    ]
    return format_table(["class", "images", *scores], rows)


def draw_examples(
    path: Path,
    examples: Sequence[Example],
    titles: Sequence[str],
    note: str,
    options: FigureConfig,
) -> None:
    """Draw examples as a figure, if there are any."""
    if examples:
        pictures, captions = zip(*examples, strict=True)
        figure = comparison_figure(pictures, titles, captions, note, options.width_inches)
        save_figure(figure, path, options)
