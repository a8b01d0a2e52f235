"""TokenCut: the one salient object of an image, by a single normalized cut."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crate_interp.models.float64 import on_float64_device
from crate_interp.options.choices import Solver
from crate_interp.segmentation.affinity import affinity
from crate_interp.segmentation.normalized_cut import check_solver, is_constant, second_eigenpairs
from crate_interp.segmentation.partition import checked_grid, component_of, foreground_of
from crate_interp.segmentation.segmenters.tokencut import TokenCutSegmenter

__all__ = ["TokenCutResult", "tokencut"]

logger = logging.getLogger(__name__)


class TokenCutResult(NamedTuple):
    """The object of an image on the patch grid.

    Attributes:
        mask: The object; empty for a constant image.
        eigenvector: Second eigenvector, float64, positive at the seed; zero for a constant image.
        seed: Row and column of the seed, or `None` for a constant image.
        box_xyxy: Box around the mask in patches, right and bottom exclusive; `None` for a constant
            image.
    """

    mask: Bool[Tensor, "h w"]
    eigenvector: Float[Tensor, "h w"]
    seed: tuple[int, int] | None
    box_xyxy: tuple[int, int, int, int] | None


def tokencut(
    features: Float[Tensor, "D n"],
    grid_size: Sequence[int],
    tau: float = TokenCutSegmenter.tau,
    solver: Solver = TokenCutSegmenter.solver,
    name: str = "image",
) -> TokenCutResult:
    """Find the salient object: the 4-connected part of the cut's foreground that holds the seed.

    The seed is the patch where the second eigenvector x is largest in magnitude (the lowest index,
    among ties of relative 1e-9); the foreground is the seed's side of x = mean(x).

    Args:
        features: One feature per patch, row-major on the grid.
        grid_size: Rows and columns of patches.
        tau: Threshold on the cosine of two features, inside (-1, 1).
        solver: See `normalized_cut`.
        name: Name of the image, for the log.

    Returns:
        Mask, eigenvector, seed and box, tensors on the device of the features. A constant image,
        all of whose pairs of patches are above tau, or none, has no object; the log says so.

    Raises:
        InputError: Features or tau as in `affinity`; a grid that does not fit them; an unknown
            solver.

    Reference:
        Wang et al., Self-Supervised Transformers for Unsupervised Object Discovery using
        Normalized Cut (arXiv 2202.11539), section 3.
    """
    grid_hw = checked_grid(features, grid_size)
    check_solver(solver)
    features = on_float64_device(features)
    connected = affinity(features[None], tau)
    if is_constant(connected)[0]:
        logger.warning(
            "%s: constant image: all pairs of patches are alike at tau %g, no mask", name, tau
        )
        nothing = torch.zeros(grid_hw, dtype=torch.float64, device=features.device)
        return TokenCutResult(nothing.bool(), nothing, None, None)
    eigenvector = second_eigenpairs(connected, solver)[0].eigenvector.view(grid_hw)
    foreground, seed, _ = foreground_of(eigenvector, corner_rule=False)
    mask = component_of(seed, foreground)
    rows, columns = (mask.any(dim=axis).nonzero().flatten().tolist() for axis in (1, 0))
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    mask, eigenvector = mask.to(features.device), eigenvector.to(features.device)
    return TokenCutResult(mask, eigenvector, divmod(seed, grid_hw[1]), box)
