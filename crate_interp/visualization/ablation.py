"""Effects of silencing heads or atoms: a matrix of heads, bars of the strongest atoms.

Shapes: L blocks, K heads, I images, R atoms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.ticker import MaxNLocator

from crate_interp.errors import InputError
from crate_interp.visualization.chart import (
    COLOURS,
    LABEL,
    SMALL,
    draw_frame,
    write_below,
    write_title,
)
from crate_interp.visualization.style import Figure, text_width

__all__ = ["atom_effects_figure", "head_effects_figure"]

_CELL = 0.42  # inches
_BAR = 0.19
_BESIDE = 1.0  # inches beside a matrix: numbers of the blocks, scale
_MOST_BARS = 25


def head_effects_figure(
    effects: Float[np.ndarray, "L K"],
    blocks: Sequence[int],
    label: str,
    signed: bool = True,
    note: str = "",
    width: float | None = None,
) -> Figure:
    """Draw a matrix of blocks by heads, with the numbers in it where they have room.

    Args:
        effects: Mean effects over the images.
        blocks: Number of each row's block.
        label: Name of the effects, with their unit.
        signed: Effects lie on both sides of zero.
        note: Words below the figure.
        width: Width of the page, inches.

    Raises:
        InputError: There is no head, or not one block number per row.
    """
    if not effects.size or len(blocks) != len(effects):
        raise InputError(f"expected effects of {len(blocks)} blocks, found shape {effects.shape}")
    rows, columns = effects.shape
    width = width or max(3.0, _CELL * columns + _BESIDE)
    cell = min(_CELL, (width - _BESIDE) / columns)
    figure = Figure(figsize=(width, max(1.5, cell * rows + 0.8)), layout="constrained")
    axes = figure.subplots()
    largest = float(np.abs(effects).max()) or 1.0
    limits = (-largest, largest) if signed else (0.0, largest)
    matrix = axes.imshow(
        effects, cmap="PuOr" if signed else "Blues", vmin=limits[0], vmax=limits[1], aspect="equal"
    )
    texts = [_short(effect, largest) for effect in effects.flat]
    if max(text_width(text, 6) for text in texts) < 0.9 * cell:
        for (place, effect), text in zip(np.ndenumerate(effects), texts, strict=True):
            colour = "white" if abs(effect) > 0.55 * largest else "0.2"
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 6}
            axes.text(place[1], place[0], text, color=colour, **style)
    axes.set_xticks(range(columns))
    axes.set_yticks(range(rows), [str(block) for block in blocks])
    write_title(figure, label)
    axes.set_xlabel("head", fontsize=LABEL)
    axes.set_ylabel("block", fontsize=LABEL)
    axes.tick_params(labelsize=min(SMALL, 50 * cell), length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(matrix, ax=axes, fraction=0.05, aspect=5 * rows, pad=0.02)
    bar.ax.tick_params(labelsize=SMALL - 1, length=2)
    bar.ax.yaxis.set_major_locator(MaxNLocator(4))
    bar.outline.set_visible(False)
    write_below(figure, note)
    return figure


def atom_effects_figure(
    effects: Float[np.ndarray, "I R"],
    names: Sequence[str],
    label: str,
    note: str = "",
    width: float | None = None,
) -> Figure:
    """Draw the strongest atoms as bars, the mean over images, with a dot for each image.

    Args:
        effects: Effects in each image, the strongest atom first.
        names: Names of the atoms.
        label: Name of the effects, with their unit.
        note: Words below the figure.
        width: Width of the page, inches.

    Raises:
        InputError: There is no atom or image, or not one name per atom.
    """
    if not effects.size or effects.shape[1] != len(names):
        raise InputError(f"expected effects of {len(names)} atoms, found shape {effects.shape}")
    shown = effects[:, :_MOST_BARS]
    count = shown.shape[1]
    figure = Figure(figsize=(width or 4.6, _BAR * count + 0.5), layout="constrained")
    axes = figure.subplots()
    means = shown.mean(axis=0)
    places = np.arange(count)
    colours = np.where(means >= 0, *COLOURS[:2])
    axes.barh(places, means, color=colours, height=0.72, alpha=0.85)
    if len(shown) > 1:
        spread = np.linspace(-0.22, 0.22, len(shown))
        for offset, one in zip(spread, shown, strict=True):
            axes.plot(one, places + offset, ".", color="0.15", markersize=1.8, alpha=0.6)
    axes.axvline(0, color="0.4", linewidth=0.7)
    axes.set_yticks(places, list(names[:count]))
    axes.invert_yaxis()
    axes.margins(y=0.01)
    draw_frame(axes, "x")
    write_title(figure, label)
    write_below(figure, note)
    return figure


def _short(effect: float, largest: float) -> str:
    """Three significant digits of the largest number, no finer than that for the others."""
    digits = max(0, 2 - int(np.floor(np.log10(largest))))
    text = f"{effect:.{digits}f}"
    return text.replace("-", "−") if float(text) else "0"
