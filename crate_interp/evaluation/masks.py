"""Overlap of masks with the ground truth, one number an image: mIoU over classes or objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from crate_interp.errors import InputError

__all__ = ["BestMaskIoU", "MeanIoU", "mask_iou", "overlaps_of"]


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
        mean_iou: In [0, 1].
        images: Images that count: those with ground truth.
    """

    mean_iou: float
    images: int


class BestMaskIoU:
    """Mean IoU when every class (or object) of an image has its best mask, as with attention heads.

    For every ground-truth mask the largest IoU among the predicted masks; mean over the
    ground-truth masks of the image; mean over images. One predicted mask and one ground-truth
    mask give the plain IoU of a salient object.

    Reference: Caron et al., arXiv 2104.14294, section 4.2.2 (objects); Yu et al., arXiv
    2308.16271 (classes).
    """

    def __init__(self) -> None:
        self._image_means: list[float] = []

    def update(
        self,
        masks: Bool[np.ndarray, "K H W"],
        ground_truth: Bool[np.ndarray, "G H W"],
    ) -> None:
        """Add an image; without ground truth (G = 0) it does not count, without masks it is 0.

        Args:
            masks: Predicted, one a head; may overlap.
            ground_truth: One a class, or one an object. Clear pixels that do not count (void) in
                both arrays.

        Raises:
            InputError: As `mask_iou`, or a ground-truth mask is empty.
        """
        overlaps = overlaps_of(masks, ground_truth)
        if len(ground_truth):
            self._image_means.append(float(overlaps.max(axis=0, initial=0.0).mean()))

    def compute(self) -> MeanIoU:
        """Average over the images so far.

        Raises:
            InputError: There was no image with ground truth.
        """
        if not self._image_means:
            raise InputError("mean IoU: expected images with ground truth, found none")
        return MeanIoU(float(np.mean(self._image_means)), len(self._image_means))
