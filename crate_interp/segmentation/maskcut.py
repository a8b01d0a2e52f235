"""MaskCut: several objects of an image, by repeated normalized cuts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crate_interp.config import Solver
from crate_interp.errors import InputError
from crate_interp.segmentation.affinity import affinity
from crate_interp.segmentation.normalized_cut import check_solver, is_constant, second_eigenpair
from crate_interp.segmentation.partition import checked_grid, component_of, foreground_of

__all__ = ["MaskCutResult", "maskcut"]

logger = logging.getLogger(__name__)

_MAX_OVERLAP = 0.5  # IoU with the mask of the round before
_MIN_AREA = 0.01  # share of the grid


class MaskCutResult(NamedTuple):
    """What MaskCut found on the patch grid, one row a round.

    Attributes:
        masks: Disjoint; a round whose mask was dropped is a row of zeros. A constant image has no
            row.
        eigenvectors: Float64, positive at the seed, x^T D x = 1; a row of zeros where nothing was
            left to cut.
    """

    masks: Bool[Tensor, "M h w"]
    eigenvectors: Float[Tensor, "M h w"]

    @property
    def is_constant(self) -> bool:
        """Whether all pairs of patches of the image are alike, so that there is nothing to cut."""
        return len(self.masks) == 0


def maskcut(
    features: Float[Tensor, "D n"],
    grid_size: Sequence[int],
    tau: float = 0.15,
    max_masks: int = 3,
    solver: Solver = "lanczos",
) -> MaskCutResult:
    """Cut an image into up to `max_masks` objects, each by a normalized cut of what is left.

    A round finds the 4-connected part of the foreground that holds the seed, and paints it: the
    features of its patches become zero for the next rounds. From the second round on, a mask is
    dropped if its IoU with the mask of the round before (zero, if that was dropped) is above 0.5,
    or if it covers 1 % of the grid or less. What earlier masks hold is taken out of a mask.

    Args:
        features: One feature a patch, row-major on the grid.
        grid_size: Rows and columns of patches.
        tau: Threshold on the cosine of two features, inside (-1, 1).
        max_masks: Rounds, at least 1.
        solver: See `normalized_cut`.

    Returns:
        `max_masks` masks and eigenvectors, on the device of the features; none for a constant
        image, all of whose pairs of patches are above tau, or none: the log says so.

    Raises:
        InputError: Features or tau as in `affinity`; a grid that does not fit them; `max_masks`
            below 1; an unknown solver.

    Reference:
        Wang et al., Cut and Learn for Unsupervised Object Detection and Instance Segmentation
        (arXiv 2301.11320), section 3.2.
    """
    grid_hw = checked_grid(features, grid_size)
    check_solver(solver)
    if max_masks < 1:
        raise InputError(f"max_masks: expected at least 1, found {max_masks}")
    connected = affinity(features, tau)
    shape = (max_masks, *grid_hw)
    masks = torch.zeros(shape, dtype=torch.bool, device=features.device)
    eigenvectors = torch.zeros(shape, dtype=torch.float64, device=features.device)
    if is_constant(connected):
        logger.warning("constant image: all pairs of patches are alike at tau %g, no mask", tau)
        return MaskCutResult(masks[:0], eigenvectors[:0])
    painted = torch.zeros(grid_hw, dtype=torch.bool, device=features.device)
    current = torch.zeros_like(painted)
    repainted = True
    for number in range(max_masks):
        if repainted:  # a dropped mask leaves the graph, and so the eigenvector, as it was
            if is_constant(connected):
                logger.info("nothing left to cut after %d of %d rounds", number, max_masks)
                break
            eigenvector = second_eigenpair(connected, solver).eigenvector.view(grid_hw)
        foreground, seed, turned = foreground_of(eigenvector, corner_rule=True)
        found = component_of(seed, foreground)
        if number > 0 and _is_dropped(found, current):
            found = torch.zeros_like(found)
        masks[number] = found & ~painted
        eigenvectors[number] = -eigenvector if turned else eigenvector
        # A painted feature is zero: its cosines are 0, which a negative tau lets through.
        new = masks[number].flatten().nonzero().flatten()
        alike = bool(tau < 0)
        connected[new] = alike
        connected[:, new] = alike
        repainted = len(new) > 0
        painted |= found
        current = found
    return MaskCutResult(masks, eigenvectors)


def _is_dropped(found: Bool[Tensor, "h w"], current: Bool[Tensor, "h w"]) -> bool:
    overlap, union = int((found & current).sum()), int((found | current).sum())
    return overlap > _MAX_OVERLAP * union or int(found.sum()) <= _MIN_AREA * found.numel()
