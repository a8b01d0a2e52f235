"""Top-k accuracy of a classifier.

Shapes: B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from crate_interp.errors import InputError

__all__ = ["AccuracyScore", "accuracy_score", "best_ranks", "class_ranks"]


@dataclass(frozen=True)
class AccuracyScore:
    """Accuracy: how often the right class is among the first ones.

    Attributes:
        accuracy: Share by k of the images whose class is among the k of the highest scores.
        pictures: Number of images.
    """

    accuracy: dict[int, float]
    pictures: int


def class_ranks(scores: Float[Tensor, "B C"], labels: Int[Tensor, " B"]) -> list[int]:
    """Count the classes of each image that come before the right one, by descending score.

    Among classes of equal score the lower number comes first, as in `argmax`: low precision makes
    such ties. (`timm.utils.accuracy` leaves their order to `topk`, which mixes them.)

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
            f"labels: expected 0 to {classes - 1}, found {int(labels.min())} to {int(labels.max())}"
        )
    if scores.isnan().any():
        raise InputError("scores: expected numbers, found NaN")
    order = scores.argsort(dim=1, descending=True, stable=True)
    ranks: list[int] = (order == labels[:, None]).nonzero()[:, 1].tolist()
    return ranks


def best_ranks(scores: Float[Tensor, "B C"], labels: Sequence[Sequence[int]]) -> list[int]:
    """Give the rank of the class that is ranked best among the right ones of each image.

    Args:
        scores: Scores of the classes.
        labels: Right classes of each image, one or more.

    Raises:
        InputError: An image has no right class, or as `class_ranks`.
    """
    if not all(labels):
        raise InputError("labels: expected one class or more for each image, found none")
    rows = [row for row, classes in enumerate(labels) for _ in classes]
    flat = torch.tensor([label for classes in labels for label in classes], dtype=torch.long)
    best: dict[int, int] = {}
    for row, rank in zip(rows, class_ranks(scores[rows], flat), strict=True):
        best[row] = min(rank, best.get(row, rank))
    return list(best.values())


def accuracy_score(ranks: Sequence[int], ks: Sequence[int] = (1, 5)) -> AccuracyScore:
    """Compute the share of images whose class is among the k of the highest scores.

    Args:
        ranks: `class_ranks` of all images.
        ks: Values of k, each at least 1. Of k classes or fewer, all are among the first k.

    Raises:
        InputError: There is no image or no k, or a k is below 1.
    """
    if not ks or min(ks) < 1:
        raise InputError(f"ks: expected one number or more, each at least 1, found {ks}")
    if not len(ranks):
        raise InputError("accuracy: expected one image or more, found none")
    right = {k: int(np.count_nonzero(np.less(ranks, k))) for k in ks}
    return AccuracyScore({k: count / len(ranks) for k, count in right.items()}, len(ranks))
