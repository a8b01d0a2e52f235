"""Masks of several kinds side by side, and scores class by class."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from crate_interp.errors import InputError
from crate_interp.visualization.page import EDGE, Page, line_height
from crate_interp.visualization.style import (
    Figure,
    shortened,
    text_width,
    wrapped,
    write_below,
)

__all__ = ["class_scores_figure", "comparison_figure"]

# Okabe and Ito's colours that stand out on white, each with a marker of its own.
_STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "D"), ("#CC79A7", "^"))
_CELL, _GAP = 1.55, 0.06  # inches
_TITLE, _CAPTION, _NOTE = 8, 6.5, 6  # points
_TALLEST = 1.25  # times its width
_LETTERS = 32  # of a caption, at most
_ROW = 0.19  # inches a class


def comparison_figure(
    rows: Sequence[Sequence[UInt8[np.ndarray, "_ _ 3"]]],
    titles: Sequence[str],
    captions: Sequence[Sequence[str]],
    note: str = "",
    width: float | None = None,
) -> Figure:
    """Images in a table: an image a row, a kind of mask a column.

    Args:
        rows: Images of any size; those of a row are of one size.
        titles: Of the columns.
        captions: Below each image, row by row; may be empty.
        note: Below the figure.
        width: Of the page, inches.

    Raises:
        InputError: No image, or not one a title in each row, or not one caption an image.
    """
    counts = {len(titles), *map(len, rows), *map(len, captions)}
    if not rows or not titles or len(counts) != 1 or len(rows) != len(captions):
        raise InputError(
            "expected as many images and captions in each row as titles, found "
            f"{len(titles)} titles, rows of {[*map(len, rows)]}, captions {[*map(len, captions)]}"
        )
    width = width or len(titles) * (_CELL + _GAP) - _GAP + 2 * EDGE
    cell = (width - 2 * EDGE + _GAP) / len(titles) - _GAP
    headings = [wrapped(title, cell, _TITLE) for title in titles]
    below = wrapped(note, width - 2 * EDGE, _NOTE)
    heights = [min(_TALLEST, row[0].shape[0] / row[0].shape[1]) * cell for row in rows]
    between = line_height(_CAPTION) + _GAP
    top = EDGE + max(map(len, headings)) * line_height(_TITLE)
    foot = top + sum(heights) + len(rows) * between
    page = Page.of(width, foot + len(below) * line_height(_NOTE) + EDGE)
    page.lines(EDGE, foot, below, _NOTE, color="0.35")
    y = top
    for row, texts, tall in zip(rows, captions, heights, strict=True):
        for column, (picture, text) in enumerate(zip(row, texts, strict=True)):
            x = EDGE + column * (cell + _GAP)
            page.axes(x, y, cell, tall).imshow(picture, interpolation="lanczos")
            caption = [_fitted(text, cell)]
            page.lines(x + cell / 2, y + tall + 0.02, caption, _CAPTION, color="0.3", ha="center")
        y += tall + between
    for column, lines in enumerate(headings):
        centre = EDGE + column * (cell + _GAP) + cell / 2
        page.lines(centre, top - len(lines) * line_height(_TITLE), lines, _TITLE, ha="center")
    return page.figure


def _fitted(text: str, inches: float) -> str:
    """As many words of a caption as have room."""
    for letters in range(_LETTERS, 4, -1):
        caption = textwrap.shorten(text, letters, placeholder=" ...")
        if caption.strip() != "..." and text_width(caption, _CAPTION) <= inches:
            return caption
    return shortened(text, inches, _CAPTION)


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
        classes: Names, with what else belongs beside a dot, such as a number of images.
        scores: By method, up to four, in [0, 1]; a class whose first score is NaN is left out.
        x_label: What they are.
        means: Mean of each method, a line.
        note: Below the figure.
        width: Of the page, inches.

    Raises:
        InputError: Not one score a class, no method or too many, or no class with a score.
    """
    order = _checked_order(classes, scores, means)
    width = width or 5.2
    labels = [f"{method} (mean {100 * means[method]:.1f})" for method in scores]
    widest = max(text_width(label, 7) for label in labels) + 0.3
    legend_columns = max(1, min(len(labels), int((width - 0.2) / widest)))
    names = [shortened(classes[place], 0.4 * width, 7) for place in order]
    legend_inches = line_height(7) * -(-len(labels) // legend_columns)
    x_lines = wrapped(x_label, 0.6 * width, 8)
    height = 0.5 + legend_inches + line_height(8) * len(x_lines) + _ROW * len(order)
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    rows = np.arange(len(order))
    shifts = 0.18 * (np.arange(len(scores)) - (len(scores) - 1) / 2)  # equal scores stay visible
    for label, (method, values), (colour, marker), shift in zip(
        labels, scores.items(), _STYLES, shifts, strict=False
    ):
        axes.axvline(100 * means[method], color=colour, linewidth=0.8, alpha=0.6, zorder=1)
        style: dict[str, Any] = {"s": 14, "color": colour, "marker": marker, "linewidth": 0}
        axes.scatter(100 * values[order], rows - shift, label=label, **style)
    axes.set_yticks(range(len(order)), names, fontsize=7)
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.set_xlim(left=0)
    axes.set_xlabel("\n".join(x_lines), fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color="0.92", linewidth=0.6)
    for row in rows[::2]:
        axes.axhspan(row - 0.5, row + 0.5, color="0.96", linewidth=0, zorder=0)
    axes.set_axisbelow(True)
    place: dict[str, Any] = {"loc": "outside upper left", "ncols": legend_columns}
    figure.legend(**place, fontsize=7, frameon=False, handletextpad=0.1)
    write_below(figure, note)
    return figure


def _checked_order(
    classes: Sequence[str],
    scores: Mapping[str, Float[np.ndarray, " C"]],
    means: Mapping[str, float],
) -> list[int]:
    """Places of the classes that have a score, the lowest first."""
    if not 1 <= len(scores) <= len(_STYLES) or scores.keys() != means.keys():
        raise InputError(
            f"expected 1 to {len(_STYLES)} methods, each with a mean, found {[*scores]}, {[*means]}"
        )
    for method, values in scores.items():
        if values.shape != (len(classes),):
            raise InputError(f"{method}: expected ({len(classes)},) scores, found {values.shape}")
    first = next(iter(scores.values()))
    order = [int(place) for place in np.argsort(first) if np.isfinite(first[place])]
    if not order:
        raise InputError("expected a class with a score, found none")
    return order
