"""Top-k accuracy of a classifier.

Shapes: B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crate_interp.errors import InputError

__all__ = ["AccuracyScore", "TopKAccuracy"]


@dataclass(frozen=True)
class AccuracyScore:
    """How often the right class is among the first ones.

    Attributes:
        accuracy: By k, the share of images whose class is among the k of the highest scores.
        pictures: How many there were.
    """

    accuracy: dict[int, float]
    pictures: int


class TopKAccuracy:
    """Share of images whose class is among the k of the highest scores.

    Among classes of equal score the lower number comes first, as in `argmax`: low precision makes
    such ties. Of k classes or fewer, all are among the first k.

    Args:
        ks: Which k, each at least 1.

    Raises:
        InputError: No k, or one below 1.
    """

    def __init__(self, ks: Sequence[int] = (1, 5)) -> None:
        if not ks or min(ks) < 1:
            raise InputError(f"ks: expected one number or more, each at least 1, found {ks}")
        self._right = dict.fromkeys(ks, 0)
        self._pictures = 0

    def update(self, scores: Float[Tensor, "B C"], labels: Int[Tensor, " B"]) -> None:
        """Add a batch.

        Args:
            scores: The higher, the likelier; any monotone scale.
            labels: Number of the right class, from 0.

        Raises:
            InputError: Shapes do not agree, a label is out of range, or a score is NaN.
        """
        if scores.ndim != 2 or labels.shape != scores.shape[:1]:
            raise InputError(
                f"expected scores (B, C) and labels (B,), found {tuple(scores.shape)} and "
                f"{tuple(labels.shape)}"
            )
        classes = scores.shape[1]
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise InputError(
                f"labels: expected 0 to {classes - 1}, "
                f"found {int(labels.min())} to {int(labels.max())}"
            )
        if scores.isnan().any():
            raise InputError("scores: expected numbers, found NaN")
        own = scores.gather(1, labels[:, None])
        lower = torch.arange(classes, device=scores.device) < labels[:, None]
        rank = (scores > own).sum(dim=1) + ((scores == own) & lower).sum(dim=1)
        for k in self._right:
            self._right[k] += int((rank < k).sum())
        self._pictures += len(labels)

    def compute(self) -> AccuracyScore:
        """Average over the images so far.

        Raises:
            InputError: There was no image.
        """
        if not self._pictures:
            raise InputError("accuracy: expected one image or more, found none")
        shares = {k: right / self._pictures for k, right in self._right.items()}
        return AccuracyScore(shares, self._pictures)
