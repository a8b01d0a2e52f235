"""Salient objects: largest F, IoU and accuracy of a map or mask against a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from jaxtyping import Bool, Float

from crate_interp.errors import InputError
from crate_interp.evaluation.masks import mask_iou

__all__ = ["ImageSaliency", "SaliencyScore", "image_saliency", "saliency_score"]

BETA_SQUARED = 0.3
THRESHOLDS: Float[np.ndarray, " 255"] = np.arange(255) / 255


class ImageSaliency(TypedDict):
    """Agreement of a map and a mask with the salient object of one image.

    Attributes:
        f: F of the map above each of the 255 thresholds 0/255, ..., 254/255.
        iou: IoU of the mask with the object, in [0, 1].
        accuracy: Share of the pixels of the mask that are right.
    """

    f: list[float]
    iou: float
    accuracy: float


@dataclass(frozen=True)
class SaliencyScore:
    """Means over images, in [0, 1].

    Attributes:
        max_f: The largest mean F of any threshold on the maps.
        threshold: Threshold of the largest mean F; the lowest of several.
        iou: IoU of the masks with the objects.
        accuracy: Share of the pixels of the masks that are right.
        images: Number of images.
    """

    max_f: float
    threshold: float
    iou: float
    accuracy: float
    images: int


def image_saliency(
    saliency: Float[np.ndarray, "H W"],
    mask: Bool[np.ndarray, "H W"],
    truth: Bool[np.ndarray, "H W"],
) -> ImageSaliency:
    """Compare a saliency map and a mask with the salient object.

    F = (1 + b) P R / (b P + R) with b = 0.3, precision P and recall R of the pixels above a
    threshold; P is 1 where nothing is above it, R is 1 without an object, and F is 0 where P and R
    are.

    Args:
        saliency: Map in [0, 1]; the mask, for a method that makes a mask alone.
        mask: Mask of the object, as the method has it.
        truth: Mask of the object.

    Raises:
        InputError: Sizes differ, there is no pixel, or the map leaves [0, 1].

    Reference:
        Achanta et al., Frequency-tuned Salient Region Detection (CVPR 2009), for F; Wang et al.,
        TokenCut (arXiv 2202.11539), for the rest.
    """
    if saliency.shape != truth.shape or saliency.ndim != 2 or not saliency.size:
        raise InputError(f"saliency of {saliency.shape} and truth of {truth.shape} do not compare")
    if not (saliency.min() >= 0 and saliency.max() <= 1):
        raise InputError(
            f"saliency: expected numbers in [0, 1], found {saliency.min()} to {saliency.max()}"
        )
    exceeded = np.searchsorted(THRESHOLDS, saliency, side="left")  # number of thresholds
    inside, everywhere = (
        np.bincount(values, minlength=256)[::-1].cumsum()[::-1][1:]
        for values in (exceeded[truth], exceeded.ravel())
    )
    area = np.count_nonzero(truth)
    precision = np.where(everywhere > 0, inside / np.maximum(everywhere, 1), 1.0)
    recall = inside / area if area else np.ones(len(THRESHOLDS))
    weighted = BETA_SQUARED * precision + recall
    f = (1 + BETA_SQUARED) * precision * recall / np.where(weighted > 0, weighted, 1.0)
    iou = float(mask_iou(mask[None], truth[None])[0, 0])
    return {"f": f.tolist(), "iou": iou, "accuracy": float(np.mean(mask == truth))}


def saliency_score(images: Sequence[ImageSaliency]) -> SaliencyScore:
    """Average over images: F threshold by threshold, then the largest.

    Raises:
        InputError: There is no image.
    """
    if not images:
        raise InputError("saliency: expected one image or more, found none")
    mean_f = np.mean([image["f"] for image in images], axis=0)
    best = int(mean_f.argmax())
    return SaliencyScore(
        float(mean_f[best]),
        float(THRESHOLDS[best]),
        float(np.mean([image["iou"] for image in images])),
        float(np.mean([image["accuracy"] for image in images])),
        len(images),
    )
