"""Matrices as pictures: subspaces of blocks, tokens of layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from crate_interp.errors import InputError
from crate_interp.visualization.grid import Grid, Panel
from crate_interp.visualization.overlay import draw_heat
from crate_interp.visualization.style import Figure

__all__ = ["WHITE", "coherence_figure", "token_figure"]

ACROSS = 6  # blocks in a row
WHITE = 0.5  # cosine from which on a matrix is white
SIDE = 400  # pixels that a matrix is shown with, at most


def coherence_figure(
    matrices: Sequence[Float[np.ndarray, "n n"]],
    titles: Sequence[str],
    note: str = "",
    width: float | None = None,
) -> Figure:
    """Draw a matrix of cosines for each block, black at 0 and white from `WHITE` on.

    Args:
        matrices: Cosines in [0, 1].
        titles: Words above each.
        note: Words below the figure.
        width: Width of the page, inches.

    Raises:
        InputError: There is no matrix, or not a title for each.
    """
    if not matrices or len(matrices) != len(titles):
        raise InputError(
            f"expected a title for each matrix, found {len(matrices)} and {len(titles)}"
        )
    across = min(ACROSS, len(matrices))
    panels: list[Panel | None] = [
        Panel((matrix / WHITE).clip(max=1), title)
        for matrix, title in zip(matrices, titles, strict=True)
    ]
    panels += [None] * (-len(panels) % across)
    rows = [panels[start : start + across] for start in range(0, len(panels), across)]
    return Grid(rows, size=1.4).draw(note=note, width=width)


def token_figure(
    pictures: Sequence[UInt8[np.ndarray, "H W 3"]],
    tokens: Sequence[Float[np.ndarray, "L N D"]],
    blocks: Sequence[str],
    note: str = "",
    width: float | None = None,
) -> Figure:
    """Draw the tokens of each block as a matrix: images down, blocks across.

    Args:
        pictures: The images.
        tokens: Magnitudes of the tokens of each image, a matrix a block. Colours are those of
            `draw_heat`, from 0 to the 99th percentile of each matrix.
        blocks: Names of the blocks.
        note: Words below the figure.
        width: Width of the page, inches.

    Raises:
        InputError: There is no image, or not one matrix for each block and image.
    """
    if not len(pictures) or len(pictures) != len(tokens):
        raise InputError(
            f"expected matrices for each image, found {len(tokens)} and {len(pictures)} images"
        )
    rows: list[list[Panel | None]] = []
    for picture, matrices in zip(pictures, tokens, strict=True):
        titles = ["image", *blocks] if not rows else [""] * (len(blocks) + 1)
        heats = [draw_heat(_shrunk(matrix)) for matrix in matrices]
        hw = (picture.shape[0], picture.shape[0])  # squares as high as the image
        panels = [
            Panel(heat, title, covers_hw=hw) for heat, title in zip(heats, titles[1:], strict=True)
        ]
        rows.append([Panel(picture, titles[0]), *panels])
    return Grid(rows, size=1.3, widest=14).draw(note=note, width=width)


def _shrunk(matrix: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "n c"]:
    """The mean of neighbours, where there are more than a figure shows."""
    for axis in (0, 1):
        count = matrix.shape[axis]
        if count > SIDE:
            starts = np.arange(SIDE) * count // SIDE
            sizes = np.diff([*starts, count])
            sums = np.add.reduceat(matrix, starts, axis=axis)
            matrix = sums / np.expand_dims(sizes, 1 - axis)
    return matrix
