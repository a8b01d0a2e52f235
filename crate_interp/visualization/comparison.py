"""Masks of several kinds side by side, and scores class by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import shorten

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure

from crate_interp.errors import InputError

__all__ = ["class_scores_figure", "comparison_figure"]

# Okabe and Ito's colours that stand out on white, each with a marker of its own.
_STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "D"), ("#CC79A7", "^"))
_CELL, _GAP, _HEADING, _CAPTION = 1.55, 0.06, 0.26, 0.17  # inches
_LETTERS = 32  # of a caption, at most
_ROW = 0.19  # inches a class


def comparison_figure(
    rows: Sequence[Sequence[UInt8[np.ndarray, "_ _ 3"]]],
    titles: Sequence[str],
    captions: Sequence[Sequence[str]],
) -> Figure:
    """Pictures in a table: an image a row, a kind of mask a column.

    Args:
        rows: Pictures of any size; those of a row are of one size.
        titles: Of the columns.
        captions: Below each picture, row by row; may be empty.

    Raises:
        InputError: No picture, or not one a title in each row, or not one caption a picture.
    """
    counts = {len(titles), *map(len, rows), *map(len, captions)}
    if not rows or not titles or len(counts) != 1 or len(rows) != len(captions):
        raise InputError(
            "expected as many pictures and captions in each row as titles, found "
            f"{len(titles)} titles, rows of {[*map(len, rows)]}, captions {[*map(len, captions)]}"
        )
    heights = [min(1.25, row[0].shape[0] / row[0].shape[1]) * _CELL for row in rows]
    width = len(titles) * (_CELL + _GAP) + _GAP
    height = _HEADING + sum(heights) + len(rows) * (_CAPTION + _GAP)
    figure = Figure(figsize=(width, height))
    top = height - _HEADING
    for row, texts, row_height in zip(rows, captions, heights, strict=True):
        for column, (picture, text) in enumerate(zip(row, texts, strict=True)):
            left, bottom = _GAP + column * (_CELL + _GAP), top - row_height
            axes = figure.add_axes(
                (left / width, bottom / height, _CELL / width, row_height / height)
            )
            axes.imshow(picture, interpolation="lanczos")
            axes.set_axis_off()
            centre = (left + _CELL / 2) / width
            caption_y = (bottom - 0.02) / height
            caption = shorten(text, _LETTERS, placeholder=" ...")
            figure.text(
                *(centre, caption_y, caption), fontsize=6.5, color="0.3", ha="center", va="top"
            )
        top -= row_height + _CAPTION + _GAP
    for column, title in enumerate(titles):
        centre = (_GAP + column * (_CELL + _GAP) + _CELL / 2) / width
        figure.text(centre, 1 - 0.06 / height, title, fontsize=8, ha="center", va="top")
    return figure


def class_scores_figure(
    classes: Sequence[str],
    scores: Mapping[str, Float[np.ndarray, " C"]],
    x_label: str,
    means: Mapping[str, float],
) -> Figure:
    """Draw scores by class as dots, the class of the highest first score on top.

    Args:
        classes: Names, with what else belongs beside a dot, such as a number of images.
        scores: By method, up to four, in [0, 1]; a class whose first score is NaN is left out.
        x_label: What they are.
        means: Mean of each method, a line.

    Raises:
        InputError: Not one score a class, no method or too many, or no class with a score.
    """
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
    figure = Figure(figsize=(5.2, 1.1 + _ROW * len(order)), layout="constrained")
    axes = figure.add_subplot()
    rows = np.arange(len(order))
    shifts = 0.18 * (np.arange(len(scores)) - (len(scores) - 1) / 2)  # equal scores stay visible
    for (method, values), (colour, marker), shift in zip(
        scores.items(), _STYLES, shifts, strict=False
    ):
        axes.axvline(100 * means[method], color=colour, linewidth=0.8, alpha=0.6, zorder=1)
        axes.scatter(
            100 * values[order],
            rows - shift,
            s=14,
            color=colour,
            marker=marker,
            linewidth=0,
            label=f"{method} (mean {100 * means[method]:.1f})",
        )
    axes.set_yticks(range(len(order)), [classes[place] for place in order], fontsize=7)
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.set_xlim(left=0)
    axes.set_xlabel(x_label, fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color="0.92", linewidth=0.6)
    for row in rows[::2]:
        axes.axhspan(row - 0.5, row + 0.5, color="0.96", linewidth=0, zorder=0)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper left", ncols=2, fontsize=7, frameon=False, handletextpad=0.1)
    return figure
