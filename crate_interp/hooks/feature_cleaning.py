"""What patch features have that says nothing of the image: their position, and tokens of high norm.

Shapes: B images, n patches of h rows and w columns, D features, C directions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from crate_interp.errors import InputError

__all__ = ["fill_in", "have_high_norm", "positional_directions", "without_directions"]

_SHARE = 0.95  # of the variance of blank images' features from patch to patch
_MOST = 4  # directions are at most one in so many: a feature keeps room for the image
_ROUNDING = 1e-10  # share of the squared mean: less variance than this is rounding


def positional_directions(blank: Float[Tensor, "B n D"]) -> Float[Tensor, "C D"]:
    """Find the directions along which patch features depend on the position alone.

    The mean feature of each position over images without content varies from patch to patch with
    the position only. The directions are the principal ones of this variation: so many as have 95%
    of its variance, and at most a quarter of D.

    Args:
        blank: Patch features of blank images, or of many images, one grid.

    Returns:
        Orthonormal directions, the largest variance first; none for features that do not depend on
        the position.

    Raises:
        InputError: No image, or a number that is not finite.
    """
    if blank.ndim != 3 or not blank.numel():
        raise InputError(f"blank: expected features (B, n, D), found shape {tuple(blank.shape)}")
    if not blank.isfinite().all():
        raise InputError("blank: expected finite features, found NaN or infinity")
    means = blank.double().mean(dim=0)
    centred = means - means.mean(dim=0)
    if centred.square().sum() <= _ROUNDING * means.square().sum():
        return centred[:0].to(blank.dtype)
    _, values, directions = torch.linalg.svd(centred, full_matrices=False)
    shares = values.square().cumsum(0) / values.square().sum()
    count = int((shares < _SHARE).sum()) + 1
    chosen: Tensor = directions[: min(count, max(1, blank.shape[-1] // _MOST))]
    return chosen.to(blank.dtype)


def without_directions(
    features: Float[Tensor, "B n D"], directions: Float[Tensor, "C D"]
) -> Float[Tensor, "B n D"]:
    """Project features onto what is orthogonal to orthonormal directions, but for their mean.

    The mean over the patches of an image is kept: it is no matter of the position.
    """
    centred = features - features.mean(dim=1, keepdim=True)
    projected: Tensor = features - (centred @ directions.T) @ directions
    return projected


def have_high_norm(tokens: Float[Tensor, "B n D"], factor: float) -> Bool[Tensor, "B n"]:
    """Whether tokens are longer than `factor` times the median of their image.

    Large models without registers use patches without content as registers; such tokens are several
    times as long as others.

    Reference:
        Darcet et al. 2024, Vision Transformers Need Registers, arXiv 2309.16588, section 2.1. The
        paper has a threshold for each model, not a factor.
    """
    norms = tokens.norm(dim=-1)
    are_long: Tensor = norms > factor * norms.median(dim=1, keepdim=True).values
    return are_long


def fill_in(
    features: Float[Tensor, "B n D"], holes: Bool[Tensor, "B n"], grid_hw: tuple[int, int]
) -> Float[Tensor, "B n D"]:
    """Give patches that are holes the mean of their neighbours, from the border of a hole inwards.

    Args:
        features: Patch features.
        holes: Patches to fill in. Where an image has nothing else, its features stay.
        grid_hw: h and w.
    """
    grid = features.transpose(1, 2).unflatten(2, grid_hw)
    known = (~holes).unflatten(1, grid_hw)[:, None].to(features.dtype)
    kernel = known.new_ones(1, 1, 3, 3)
    while bool(((known == 0) & (known.amax(dim=(2, 3), keepdim=True) > 0)).any()):
        counts = F.conv2d(known, kernel, padding=1)
        sums = F.conv2d((grid * known).flatten(0, 1)[:, None], kernel, padding=1)
        means = sums.view_as(grid) / counts.clamp(min=1)
        newly = (known == 0) & (counts > 0)
        grid = torch.where(newly, means, grid)
        known = known + newly.to(known.dtype)
    filled: Tensor = grid.flatten(2).transpose(1, 2)
    return filled
