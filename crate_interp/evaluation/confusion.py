"""Semantic segmentation: mIoU, mAcc and aAcc, of classes or of clusters that are matched to them.

Shapes: H W pixels, C classes, P predicted labels (classes or clusters).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from jaxtyping import Float, Int64, Integer
from scipy.optimize import linear_sum_assignment

from crate_interp.data import VOID
from crate_interp.errors import InputError

__all__ = [
    "ImageConfusion",
    "SemanticScore",
    "classes_of_clusters",
    "image_accuracy",
    "image_confusion",
    "match_clusters",
    "semantic_score",
    "total_confusion",
]


@dataclass(frozen=True, eq=False)
class SemanticScore:
    """Agreement of labels of pixels with the truth, in [0, 1].

    Attributes:
        mean_iou: Mean of `iou` over the classes that occur.
        mean_accuracy: Mean of `accuracy` over the classes that occur in the truth.
        pixel_accuracy: Share of all pixels with the right label.
        iou: Intersection over union of each class over all pixels of the set; NaN for a class
            that neither the truth nor the prediction has.
        accuracy: Share of the pixels of each class with the right label; NaN without such pixels.
    """

    mean_iou: float
    mean_accuracy: float
    pixel_accuracy: float
    iou: Float[np.ndarray, " C"]
    accuracy: Float[np.ndarray, " C"]


class ImageConfusion(TypedDict):
    """Pixels of one image by predicted and true label.

    Attributes:
        pairs: Predicted label, true label and number of pixels of each pair that occurs.
    """

    pairs: list[tuple[int, int, int]]


def image_confusion(
    labels: Integer[np.ndarray, "H W"],
    predicted: Integer[np.ndarray, "H W"],
    num_classes: int,
    num_predicted: int,
) -> ImageConfusion:
    """Count the pixels of every pair of predicted and true label.

    Args:
        labels: The truth, 0 to `num_classes` - 1, or `VOID`, which does not count.
        predicted: Predicted labels, 0 to `num_predicted` - 1.
        num_classes: Number of classes, C.
        num_predicted: Number of predicted labels, P.

    Raises:
        InputError: Sizes differ, or a label is out of range.
    """
    if labels.shape != predicted.shape:
        raise InputError(f"labels of {labels.shape} and of {predicted.shape} do not compare")
    counts = labels != VOID
    truth, guess = labels[counts].astype(np.int64), predicted[counts].astype(np.int64)
    for name, values, limit in (
        ("labels", truth, num_classes),
        ("predicted", guess, num_predicted),
    ):
        if values.size and not 0 <= values.min() <= values.max() < limit:
            raise InputError(
                f"{name}: expected 0 to {limit - 1}, found {values.min()} to {values.max()}"
            )
    # scikit-learn's confusion_matrix counts the same, but takes 13 ms for an image of VOC, not 0.6.
    pixels = np.bincount(guess * num_classes + truth)
    pairs = pixels.nonzero()[0]
    columns = (pairs // num_classes, pairs % num_classes, pixels[pairs])
    return {"pairs": list(zip(*(column.tolist() for column in columns), strict=True))}


def total_confusion(
    images: Iterable[ImageConfusion], num_classes: int, num_predicted: int
) -> Int64[np.ndarray, "P C"]:
    """Add up the pixels of all images, one row per predicted and one column per true label."""
    confusion = np.zeros((num_predicted, num_classes), np.int64)
    for image in images:
        for predicted, label, pixels in image["pairs"]:
            confusion[predicted, label] += pixels
    return confusion


def match_clusters(confusion: Int64[np.ndarray, "P C"]) -> Int64[np.ndarray, "C+1 C"]:
    """Count pixels by class instead of by cluster, each cluster being the class it is matched to.

    Args:
        confusion: Pixels by cluster and class, as `total_confusion` adds them up.

    Returns:
        A confusion of classes. Rows of classes without a cluster are empty; the last row, after
        those of the classes, has the pixels of the clusters without a class.

    Raises:
        InputError: As `classes_of_clusters`.
    """
    matched = classes_of_clusters(confusion)
    classes = confusion.shape[1]
    result = np.zeros((classes + 1, classes), np.int64)
    result[matched[matched >= 0]] = confusion[matched >= 0]
    result[classes] = confusion[matched < 0].sum(axis=0)
    return result


def classes_of_clusters(confusion: Int64[np.ndarray, "P C"]) -> Int64[np.ndarray, " P"]:
    """Give each class one cluster, no two the same, so that the sum of their IoUs is largest.

    The Hungarian method. A class without pixels takes no part; where clusters are fewer than
    classes, some classes get none, and pixels of a cluster without a class count as wrong.

    Args:
        confusion: As `match_clusters`.

    Returns:
        Class of each cluster, -1 for none.

    Raises:
        InputError: It is no table of counts.

    Reference:
        Van Gansbeke et al., Unsupervised Semantic Segmentation by Contrasting Object Mask
        Proposals (arXiv 2102.06191), section 4.
    """
    if confusion.ndim != 2 or 0 in confusion.shape or confusion.min() < 0:
        raise InputError(f"confusion: expected counts (P, C), found shape {confusion.shape}")
    union = confusion.sum(axis=1, keepdims=True) + confusion.sum(axis=0) - confusion
    clusters, matched = linear_sum_assignment(confusion / np.maximum(union, 1), maximize=True)
    kept = confusion.sum(axis=0)[matched] > 0
    result = np.full(len(confusion), -1)
    result[clusters[kept]] = matched[kept]
    return result


def image_accuracy(image: ImageConfusion, labels: Int64[np.ndarray, " P"]) -> float | None:
    """Give the share of the pixels of an image whose label is right.

    Args:
        image: Record of the image.
        labels: Class that each predicted label stands for, -1 for none.

    Returns:
        The share, in [0, 1]; `None` where no pixel counts.
    """
    total = sum(pixels for _, _, pixels in image["pairs"])
    right = sum(pixels for predicted, label, pixels in image["pairs"] if labels[predicted] == label)
    return right / total if total else None


def semantic_score(confusion: Int64[np.ndarray, "P C"]) -> SemanticScore:
    """Score a confusion of classes; rows after the last class are pixels without one.

    Raises:
        InputError: Fewer rows than classes, or not a pixel.
    """
    classes = confusion.shape[-1]
    if confusion.ndim != 2 or len(confusion) < classes or not confusion.any():
        raise InputError(
            f"confusion: expected counts of {classes} classes, found shape {confusion.shape} and "
            f"{int(confusion.sum())} pixels"
        )
    right = np.diagonal(confusion).astype(np.float64)
    truth, predicted = confusion.sum(axis=0), confusion[:classes].sum(axis=1)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, which says that there is nothing
        iou, accuracy = right / (truth + predicted - right), right / truth
    return SemanticScore(
        float(np.nanmean(iou)),
        float(np.nanmean(accuracy)),
        float(right.sum() / confusion.sum()),
        iou,
        accuracy,
    )
