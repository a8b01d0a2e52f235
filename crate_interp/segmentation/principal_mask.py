"""The mask of an image's first principal component."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.models.float64 import on_float64_device
from crate_interp.segmentation.normalized_cut import first_largest
from crate_interp.segmentation.partition import checked_grid, foreground_of
from crate_interp.segmentation.principal_components import principal_components

__all__ = ["PrincipalComponent", "principal_component"]


class PrincipalComponent(NamedTuple):
    """Coordinates of one image's patches along the direction in which they vary most.

    Attributes:
        mask: Patches on the object's side of the mean; empty where all features are equal.
        scores: Coordinate of each patch, float64, with the mean 0, positive in the mask.
    """

    mask: Bool[Tensor, "h w"]
    scores: Float[Tensor, "h w"]


def principal_component(
    features: Float[Tensor, "D n"], grid_size: Sequence[int]
) -> PrincipalComponent:
    """Split an image at the mean of the first principal component of its patch features.

    The sign of a component is arbitrary. The object's side is found as in MaskCut: that of the
    patch farthest from the mean, unless it holds 3 or more of the 4 corners of the grid.

    Args:
        features: Patch features, row-major on the grid, finite.
        grid_size: Rows and columns of patches.

    Raises:
        InputError: The features are not finite, or do not fit the grid.

    Reference:
        Yu et al., Emergence of Segmentation with Minimalistic White-Box Transformers (arXiv
        2308.16271), section 3.
    """
    grid_hw = checked_grid(features, grid_size)
    if not features.isfinite().all():
        raise InputError("features: expected finite numbers, found NaN or infinity")
    features = on_float64_device(features)
    centred = features.detach().to("cpu", torch.float64)
    centred = centred - centred.mean(dim=1, keepdim=True)
    largest = float(features.abs().max())
    if float(centred.abs().max()) <= 1e-12 * largest:
        nothing = torch.zeros(grid_hw, dtype=torch.float64, device=features.device)
        return PrincipalComponent(nothing.bool(), nothing)
    if len(centred) > centred.shape[1]:  # n patches lie in n dimensions, with the same component
        centred = torch.linalg.qr(centred, mode="r").R
    points = centred.T.numpy()
    scores = torch.from_numpy(principal_components([points], 1).project(points)[:, 0])
    scores = scores * scores[first_largest(scores.abs())].sign()
    mask, _, turned = foreground_of(scores.view(grid_hw), corner_rule=True)
    oriented = (-scores if turned else scores).view(grid_hw)
    return PrincipalComponent(mask.to(features.device), oriented.to(features.device))
