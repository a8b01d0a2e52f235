"""Masks from the attention of the class token, one per head."""

from __future__ import annotations

import math
from typing import get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.models.float64 import to_float64
from crate_interp.options.choices import KeepBy
from crate_interp.segmentation.segmenters.attention import AttentionSegmenter

__all__ = ["KeepBy", "attention_masks"]

_ROUNDING = 1e-12


def attention_masks(
    cls_attention: Float[Tensor, "*batch n"],
    by: KeepBy = AttentionSegmenter.keep_by,
    keep: float = AttentionSegmenter.keep,
) -> Bool[Tensor, "*batch n"]:
    """Keep the patches of each row that the class token attends to most.

    - `mass` (DINO): the smallest set of patches that holds the share `keep` of the row's sum.
    - `entries` (CRATE): the share `keep` of the patches, rounded up to whole patches.

    The two give very different numbers; on a uniform row they agree. Equal entries are taken in the
    order of the patches, and a set that misses its share by a relative 1e-12 or less holds it.

    Args:
        cls_attention: Attention of the class token to the patches only, for instance
            (B, K, h*w); not negative, finite. Rows need not sum to 1.
        by: Whether `keep` is a share of the attention or of the patches.
        keep: Share, in (0, 1].

    Returns:
        Masks of the same shape. By mass, a row of zeros has an empty mask.

    Raises:
        InputError: No patch or no row; a negative, infinite or NaN attention; `by` unknown; `keep`
            outside (0, 1].

    Reference:
        Caron et al., Emerging Properties in Self-Supervised Vision Transformers (arXiv 2104.14294),
        figure 4; Yu et al., Emergence of Segmentation with Minimalistic White-Box Transformers
        (arXiv 2308.16271), section 3.
    """
    if by not in get_args(KeepBy):
        raise InputError(f"by: expected one of {get_args(KeepBy)}, found {by!r}")
    if not 0 < keep <= 1:
        raise InputError(f"keep: expected a share in (0, 1], found {keep}")
    shape = tuple(cls_attention.shape)
    if cls_attention.ndim == 0 or 0 in shape or not cls_attention.is_floating_point():
        raise InputError(
            "cls_attention: expected floating-point numbers of shape (..., n), at least one row "
            f"and one patch, found {cls_attention.dtype} of shape {shape}"
        )
    allowed = cls_attention.isfinite() & (cls_attention >= 0)
    if not allowed.all():
        raise InputError(
            "cls_attention: expected finite numbers of at least 0, found "
            f"{float(cls_attention[~allowed][0])} among {int((~allowed).sum())} wrong entries"
        )
    attention, order = to_float64(cls_attention).sort(dim=-1, descending=True, stable=True)
    if by == "mass":
        before = attention.cumsum(dim=-1) - attention
        needed = keep * (1 - _ROUNDING) * attention.sum(dim=-1, keepdim=True)
        kept = before < needed
    else:
        count = math.ceil(keep * (1 - _ROUNDING) * shape[-1])
        kept = (torch.arange(shape[-1], device=order.device) < count).expand(shape)
    return torch.zeros_like(order, dtype=torch.bool).scatter(-1, order, kept)
