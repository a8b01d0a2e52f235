"""The graph of MaskCut and TokenCut: which pairs of patches have similar features."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.models.float64 import to_float64

__all__ = ["BACKGROUND_WEIGHT", "affinity", "paint", "unit_columns"]

BACKGROUND_WEIGHT = 1e-5
"""Weight W_ij of a pair whose cosine does not exceed tau; the others weigh 1."""

_ROWS_PER_BLOCK = 512


def affinity(features: Float[Tensor, "*B D n"], tau: float) -> Bool[Tensor, "*B n n"]:
    """Connect the patches whose features have a cosine above a threshold.

    True at (i, j) stands for the weight W_ij = 1, False for W_ij = `BACKGROUND_WEIGHT`. The cosine
    is computed in float64 and compared strictly, cos(f_i, f_j) > tau. A zero feature has cosine 0
    with every feature, itself included. The result is exactly symmetric.

    Args:
        features: One feature per patch, of any scale, finite; for one image or a batch of them.
        tau: Threshold on the cosine, inside (-1, 1).

    Returns:
        Connections, on the device of the features; on the CPU if that has no float64.

    Raises:
        InputError: Features of the wrong shape or type, empty or not finite; tau outside (-1, 1).

    Reference:
        Wang et al., Cut and Learn for Unsupervised Object Detection and Instance Segmentation
        (arXiv 2301.11320), section 3.2.
    """
    if features.ndim < 2 or 0 in features.shape or not features.is_floating_point():
        raise InputError(
            "features: expected floating-point numbers of shape (D, n), at least one of each, "
            f"found {features.dtype} of shape {tuple(features.shape)}"
        )
    if not -1 < tau < 1:
        raise InputError(f"tau: expected a cosine inside (-1, 1), found {tau}")
    finite = features.isfinite()
    if not finite.all():
        patches = finite.all(dim=-2).logical_not().nonzero()
        raise InputError(
            f"features: expected finite numbers, found NaN or infinity in {len(patches)} of "
            f"{finite[..., 0, :].numel()} patches, the first being patch {int(patches[0, -1])}"
        )
    unit = unit_columns(to_float64(features.detach()))
    *batch, _, num_patches = unit.shape
    connected = unit.new_zeros((*batch, num_patches, num_patches), dtype=torch.bool)
    # Blocks of the lower triangle: half of the products, and no (n, n) float64 matrix in memory.
    for start in range(0, num_patches, _ROWS_PER_BLOCK):
        stop = min(start + _ROWS_PER_BLOCK, num_patches)
        block = (unit[..., start:stop].mT @ unit[..., :stop]) > float(tau)
        # Two roundings of one cosine may differ: the lower triangle decides.
        diagonal = block[..., start:].tril()
        block[..., start:] = diagonal | diagonal.mT
        connected[..., start:stop, :stop] = block
        connected[..., :start, start:stop] = block[..., :start].mT
    return connected


def paint(connected: Bool[Tensor, "B n n"], objects: Bool[Tensor, "B n"], alike: bool) -> None:
    """Connect patches with all others, or none.

    A painted feature is zero: its cosines are 0, which a negative tau lets through.
    """
    images, patches = (index.to(connected.device) for index in objects.nonzero(as_tuple=True))
    connected[images, patches] = alike
    columns = objects.to(connected.device)[:, None]
    if alike:
        connected |= columns
    else:
        connected &= ~columns


def unit_columns(features: Float[Tensor, "*B D n"]) -> Float[Tensor, "*B D n"]:
    """Divide columns by their length, keeping zero columns; no square over- or underflows."""
    largest = features.abs().amax(dim=-2, keepdim=True)
    scaled = features / torch.where(largest > 0, largest, 1.0)
    length = torch.linalg.vector_norm(scaled, dim=-2, keepdim=True)
    return scaled / torch.where(length > 0, length, 1.0)
