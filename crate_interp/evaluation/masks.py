"""Overlap of masks with the ground truth: IoU of pairs, and the mean over objects and images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from crate_interp.errors import InputError

__all__ = ["MeanIoU", "best_overlaps", "mask_iou", "mean_iou", "overlaps_of"]


def mask_iou(
    masks: Bool[np.ndarray, "M H W"], others: Bool[np.ndarray, "G H W"]
) -> Float[np.ndarray, "M G"]:
    """Intersection over union of every pair of masks; 0 for a pair of empty masks.

    Raises:
        InputError: An array is not bool of shape (M, H, W), or the two have other sizes.
    """
    for name, value in (("masks", masks), ("others", others)):
        if value.dtype != np.bool_ or value.ndim != 3:
            raise InputError(
                f"{name}: expected bool of shape (M, H, W), "
                f"found {value.dtype} of shape {value.shape}"
            )
    if masks.shape[1:] != others.shape[1:]:
        raise InputError(f"masks of {masks.shape[1:]} and of {others.shape[1:]} do not compare")
    intersection = np.zeros((len(masks), len(others)), np.int64)
    for row, mask in zip(intersection, masks, strict=True):
        row[:] = np.count_nonzero(others & mask, axis=(1, 2))
    areas, other_areas = (np.count_nonzero(value, axis=(1, 2)) for value in (masks, others))
    union = areas[:, None] + other_areas - intersection
    return np.asarray(intersection / np.maximum(union, 1), np.float64)


def overlaps_of(
    masks: Bool[np.ndarray, "M H W"], ground_truth: Bool[np.ndarray, "G H W"]
) -> Float[np.ndarray, "M G"]:
    """Intersection over union of every mask with every object of a ground truth.

    Raises:
        InputError: As `mask_iou`, or a ground-truth mask is empty.
    """
    overlaps = mask_iou(masks, ground_truth)
    if not ground_truth.any(axis=(1, 2)).all():
        raise InputError("ground truth: expected masks with pixels, found an empty one")
    return overlaps


@dataclass(frozen=True)
class MeanIoU:
    """Mean intersection over union.

    Attributes:
        mean_iou: The mean, in [0, 1].
        images: Number of images that count: those with ground truth.
    """

    mean_iou: float
    images: int


def best_overlaps(
    masks: Bool[np.ndarray, "M H W"], ground_truth: Bool[np.ndarray, "G H W"]
) -> list[float]:
    """Give every class (or object) of an image the mask that covers it best.

    Args:
        masks: Predicted masks, for instance one per head; may overlap.
        ground_truth: One mask per class, or one per object. Pixels that do not count (void) are to
            be cleared in both arrays.

    Returns:
        Largest IoU of each class or object, 0 without a predicted mask. One predicted mask and one
        ground-truth mask give the plain IoU of a salient object.

    Raises:
        InputError: As `overlaps_of`.
    """
    best: list[float] = overlaps_of(masks, ground_truth).max(axis=0, initial=0.0).tolist()
    return best


def mean_iou(images: Sequence[Sequence[float]]) -> MeanIoU:
    """Average over the classes or objects of each image, then over images.

    Args:
        images: `best_overlaps` of each image; an image without ground truth does not count.

    Raises:
        InputError: No image has ground truth.

    Reference:
        Caron et al., arXiv 2104.14294, section 4.2.2 (objects); Yu et al., arXiv 2308.16271
        (classes).
    """
    means = [float(np.mean(overlaps)) for overlaps in images if len(overlaps)]
    if not means:
        raise InputError("mean IoU: expected images with ground truth, found none")
    return MeanIoU(float(np.mean(means)), len(means))
