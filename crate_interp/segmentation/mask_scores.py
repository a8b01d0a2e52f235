"""Scores of masks: how well the graph of patches sets a mask apart from the rest."""

from __future__ import annotations

from typing import NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.models.float64 import on_float64_device
from crate_interp.options.choices import Scores
from crate_interp.segmentation.affinity import BACKGROUND_WEIGHT, affinity, paint
from crate_interp.segmentation.normalized_cut import eigengap

__all__ = ["mask_scores"]


def mask_scores(
    features: Float[Tensor, "D n"], masks: Bool[Tensor, "M h w"], tau: float, by: Scores
) -> Float[np.ndarray, " M"]:
    """Score each mask in the graph of all patches of the image.

    The weights W are those of `affinity`; A is the mask, B the rest, cut(A, B) the sum of the
    weights between them, and vol(A) the sum of the weights of A with all patches.

    - `one`: 1, as MaskCut and the published tables have it.
    - `cut`: 1 - NCut / 2 with NCut = cut(A, B) / vol(A) + cut(A, B) / vol(B); in [0, 1], and 1 for
      two parts without a weight between them.
    - `contrast`: the mean weight within A minus the mean weight between A and B; in [-1, 1].
    - `eigengap`: lambda_3 - lambda_2 of the graph that MaskCut cuts when it finds the mask, from
      which the masks before it are painted out; in [0, 2], see `eigengap` of `normalized_cut.py`.
      It says how sure the cut is, not how good the mask is, and depends on the order of the masks.

    A mask of no patch or of all patches has nothing to be set apart from: it scores 0 by all three.

    Args:
        features: One feature per patch, row-major on the grid of the masks.
        masks: Any number of masks, also none.
        tau: Threshold on the cosine of two features, inside (-1, 1).
        by: What to score by.

    Returns:
        Scores in float64. Those by `cut` and `contrast` are made of counts of patches, and so are
        equal on all devices; an eigengap is, but for rounding.

    Raises:
        InputError: Features or tau as in `affinity`; masks of another grid; an unknown score.

    Reference:
        Shi and Malik, Normalized Cuts and Image Segmentation (PAMI 2000), equation 2, for NCut. The
        papers of TokenCut and MaskCut score no mask.
    """
    if by not in get_args(Scores):
        raise InputError(f"scores: expected one of {get_args(Scores)}, found {by!r}")
    num_patches = features.shape[-1]
    if masks.dtype != torch.bool or masks.ndim != 3 or masks[:1].numel() not in (0, num_patches):
        raise InputError(
            f"masks: expected bool masks (M, h, w) of {num_patches} patches, "
            f"found {masks.dtype} of shape {tuple(masks.shape)}"
        )
    if by == "one" or not len(masks):
        return np.ones(len(masks))
    connected = affinity(on_float64_device(features), tau)
    if by == "eigengap":
        return np.array(_eigengaps(connected, masks, alike=tau < 0))
    total = _Weights.of(connected)
    score = {"cut": _cut, "contrast": _contrast}[by]
    flat = masks.flatten(1).to(connected.device)
    return np.array([score(connected, mask, total) for mask in flat])


def _eigengaps(
    connected: Bool[Tensor, "n n"], masks: Bool[Tensor, "M h w"], alike: bool
) -> list[float]:
    """The gap of each mask; paints the masks into the graph."""
    gaps = []
    for mask in masks.flatten(1):
        gaps.append(eigengap(connected) if mask.any() and not mask.all() else 0.0)
        paint(connected[None], mask[None], alike)
    return gaps


class _Weights(NamedTuple):
    """Pairs of patches, and how many of them are connected."""

    pairs: int
    connected: int

    @classmethod
    def of(cls, connected: Bool[Tensor, "a b"]) -> _Weights:
        return cls(connected.numel(), int(connected.count_nonzero()))

    @property
    def sum(self) -> float:
        """Sum of the weights."""
        return self.connected + BACKGROUND_WEIGHT * (self.pairs - self.connected)


def _cut(connected: Bool[Tensor, "n n"], mask: Bool[Tensor, " n"], total: _Weights) -> float:
    own = connected[mask]
    volume, cut = _Weights.of(own).sum, _Weights.of(own[:, ~mask]).sum
    if not 0 < len(own) < len(mask):
        return 0.0
    return 1 - (cut / volume + cut / (total.sum - volume)) / 2


def _contrast(connected: Bool[Tensor, "n n"], mask: Bool[Tensor, " n"], total: _Weights) -> float:
    del total
    own = connected[mask]
    within, between = _Weights.of(own[:, mask]), _Weights.of(own[:, ~mask])
    if not 0 < len(own) < len(mask):
        return 0.0
    return within.sum / within.pairs - between.sum / between.pairs
