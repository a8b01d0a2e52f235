"""From an eigenvector to the patches of one object."""

from __future__ import annotations

from collections.abc import Sequence

import scipy.ndimage
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.segmentation.normalized_cut import first_largest

__all__ = ["checked_grid", "component_of", "foreground_of"]

_ROUNDING = 1e-10


def foreground_of(
    eigenvector: Float[Tensor, "h w"], corner_rule: bool
) -> tuple[Bool[Tensor, "h w"], int, bool]:
    """Split a grid at the mean of an eigenvector, and choose the side that is the object.

    The eigenvector comes with its entry of largest magnitude positive, which makes that patch the
    seed and puts it in the foreground x > mean(x): the rule that the seed must be foreground holds
    by itself. With the corner rule, a foreground with 3 or more of the 4 corners of the grid is
    taken for the background: partition and eigenvector are turned, and the seed becomes the largest
    entry of the turned one.

    Two cases that published code leaves to LAPACK are fixed here. The sign of an eigenvector is
    arbitrary, and decides whether the corner rule sees the seed's side or the other: here it sees
    the seed's side. In symmetric graphs many patches lie at the mean up to rounding: here they are
    not above it, if they are within 1e-10 of the largest magnitude.

    Args:
        eigenvector: On the patch grid, oriented as `normalized_cut` returns it.
        corner_rule: Whether to apply the corner rule (MaskCut does, TokenCut does not).

    Returns:
        The foreground, the seed's index (row-major), and whether the eigenvector was turned.
    """
    excess = eigenvector - eigenvector.mean()
    partition = excess > _ROUNDING * eigenvector.abs().max()
    corners = partition[[0, 0, -1, -1], [0, -1, 0, -1]]
    turned = corner_rule and int(corners.sum()) >= 3
    if turned:
        partition, eigenvector = ~partition, -eigenvector
    return partition, first_largest(eigenvector.flatten()), turned


def component_of(seed: int, partition: Bool[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    """Keep the 4-connected component of a partition that holds the patch `seed` (row-major)."""
    labels, _ = scipy.ndimage.label(partition.cpu().numpy())
    return torch.from_numpy(labels == labels.flat[seed]).to(partition.device)


def checked_grid(features: Float[Tensor, "D n"], grid_size: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of the grid as plain integers.

    Raises:
        InputError: The grid is no pair, or the features have not one column per patch of it.
    """
    if len(grid_size) != 2:
        raise InputError(f"grid_size: expected rows and columns, found {grid_size!r}")
    rows, columns = (int(side) for side in grid_size)
    if min(rows, columns) < 1 or features.ndim != 2 or features.shape[1] != rows * columns:
        raise InputError(
            f"grid_size: {rows} x {columns} patches need features of shape (D, {rows * columns}), "
            f"found {tuple(features.shape)}"
        )
    return rows, columns
