"""Heads that look at the same thing in many images."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.models.float64 import to_float64

__all__ = ["attended_keys", "head_agreement"]


def attended_keys(maps: Float[Tensor, "K n"], keys: Float[Tensor, "n D"]) -> Float[Tensor, "K+1 D"]:
    """Average the keys of an image's patches by the attention of each head, and by none.

    Args:
        maps: Attention of one token to the patches, per head; not negative.
        keys: Keys of the same patches and block, heads adjacent; in CRATE families the subspace.

    Returns:
        Float64. One row per head, sum_j a_j key_j / sum_j a_j; last the plain mean over patches.

    Raises:
        InputError: Maps and keys are not of the same patches, there are none, or the heads do not
            divide the keys.
    """
    heads = len(maps)
    if not maps.numel() or maps.shape[1:] != keys.shape[:1] or keys.shape[1] % heads:
        raise InputError(
            "expected maps (K, n) and keys (n, D) of the same patches, D a multiple of K, found "
            f"{tuple(maps.shape)} and {tuple(keys.shape)}"
        )
    weights = F.normalize(F.pad(to_float64(maps), (0, 0, 0, 1), value=1), p=1, dim=1)
    return weights @ to_float64(keys)


def head_agreement(attended: Float[Tensor, "I K+1 D"]) -> Float[Tensor, " K"]:
    """Score how alike the patches are that a head attends to in different images.

    What head k attends to in image i is its average key there, less the mean key of all patches of
    all images. Only the keys of the other heads are compared: that its own keys agree with its
    queries is what makes a head attend at all, and says nothing. The score is the mean cosine
    over all pairs of images: 1 for a head that finds the same thing everywhere, about 0 for a head
    that finds another thing each time. It does not matter where in an image the thing is.

    Args:
        attended: `attended_keys` of every image.

    Returns:
        One score per head, in [-1, 1].

    Raises:
        InputError: Fewer than two images or two heads.
    """
    images, heads = attended.shape[0], attended.shape[1] - 1
    if images < 2 or heads < 2:
        raise InputError(
            f"agreement of heads: expected two images and two heads or more, found {images} images "
            f"and {heads} heads"
        )
    centred = (attended[:, :-1] - attended[:, -1:].mean(dim=0)).unflatten(2, (heads, -1)).clone()
    for head in range(heads):
        centred[:, head, head] = 0
    unit = F.normalize(centred.flatten(2), dim=2)
    together = unit.sum(dim=0).square().sum(dim=1)  # all cosines, those of an image with itself too
    alone = unit.square().sum(dim=(0, 2))
    scores: Tensor = (together - alone) / (images * (images - 1))
    return scores
