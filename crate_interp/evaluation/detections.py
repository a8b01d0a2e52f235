"""Results of images matched to their objects, as plain values, and the bootstrap of their AP.

Shapes: N results, T IoU thresholds, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypedDict

import msgspec
import numpy as np
from jaxtyping import Bool, Float, Int64

from crate_interp.errors import InputError
from crate_interp.evaluation.bootstrap import RESAMPLES, Bootstrap, draw_images
from crate_interp.evaluation.coco_ap import ImageMatches

__all__ = ["ImageDetections", "bootstrap_average_precision", "image_detections"]

_THRESHOLDS = 10  # IoU 0.50, 0.55, ..., 0.95
Bits = Annotated[int, msgspec.Meta(ge=0, lt=1 << _THRESHOLDS)]
_RECALLS = np.linspace(0, 1, 101)


class ImageDetections(TypedDict):
    """Results of one image; what they are at the threshold 0.50 + 0.05 n is told by bit n.

    Attributes:
        objects: Number of objects, without crowds.
        scores: Score of each result, the highest first; a hundred at most.
        right: Thresholds at which each result is right.
        ignored: Thresholds at which each result does not count, as it lies in a crowd.
    """

    objects: Annotated[int, msgspec.Meta(ge=0, le=10**9)]
    scores: list[float]
    right: list[Bits]
    ignored: list[Bits]


def image_detections(images: Sequence[ImageMatches]) -> list[ImageDetections]:
    """Keep of matched images what their AP needs.

    Args:
        images: Records of one call of `image_matches`, without categories.

    Raises:
        InputError: They were matched by categories.
    """
    detections: list[ImageDetections] = []
    for image in images:
        if len(image.matches) != 1:
            raise InputError(
                f"detections: expected images matched in one category, found {len(image.matches)}"
            )
        matched = image.matches[0][0]  # objects of all sizes
        if matched is None:
            detections.append({"objects": 0, "scores": [], "right": [], "ignored": []})
            continue
        ignored = np.asarray(matched["dtIgnore"], bool)
        right = (np.asarray(matched["dtMatches"]) != 0) & ~ignored
        detections.append(
            {
                "objects": int(np.count_nonzero(np.asarray(matched["gtIgnore"]) == 0)),
                "scores": [float(score) for score in matched["dtScores"]],
                "right": _bits_of(right),
                "ignored": _bits_of(ignored),
            }
        )
    return detections


def bootstrap_average_precision(
    images: Sequence[ImageDetections], resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Bootstrap]:
    """Resample AP, AP50 and AP75; they are those of `average_precision`.

    They are computed here because pycocotools takes a second for 5,000 images, and there are 2,000
    resamples; this takes some milliseconds.

    Args:
        images: Record of each image.
        resamples: As `bootstrap_score`.
        seed: As `bootstrap_score`.

    Raises:
        InputError: As `bootstrap_score`.
    """
    drawn = draw_images(len(images), resamples, seed)
    counts = np.array([len(image["scores"]) for image in images])
    starts = np.cumsum(counts) - counts
    objects = np.array([image["objects"] for image in images])
    scores = np.array([score for image in images for score in image["scores"]])
    right = _thresholds_of([bits for image in images for bits in image["right"]])
    ignored = _thresholds_of([bits for image in images for bits in image["ignored"]])
    wrong = ~right & ~ignored

    def score(numbers: Int64[np.ndarray, " n"]) -> tuple[float, float, float]:
        own = counts[numbers]
        first = np.repeat(starts[numbers] - (np.cumsum(own) - own), own)
        chosen = first + np.arange(len(first))
        # Where scores are equal, the results of images that were drawn first come first.
        chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
        total = int(objects[numbers].sum())
        if not total:
            return -1.0, -1.0, -1.0
        precision = _precision(right[:, chosen], wrong[:, chosen], total)
        return float(precision.mean()), float(precision[0].mean()), float(precision[5].mean())

    values = np.array([score(numbers) for numbers in drawn])
    whole = score(np.arange(len(images)))
    return {
        name: Bootstrap(whole[place], values[:, place], len(images), seed)
        for place, name in enumerate(("AP", "AP50", "AP75"))
    }


def _precision(
    right: Bool[np.ndarray, "T N"], wrong: Bool[np.ndarray, "T N"], objects: int
) -> Float[np.ndarray, "T 101"]:
    """Best precision at a recall or above it, as COCOeval accumulates it."""
    hits, misses = (np.cumsum(each, axis=1, dtype=np.float64) for each in (right, wrong))
    precision = hits / (hits + misses + np.spacing(1))
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    best = np.pad(best, ((0, 0), (0, 1)))  # 0 for a recall that is never reached
    reached = [np.searchsorted(row, _RECALLS, side="left") for row in hits / objects]
    return np.take_along_axis(best, np.array(reached), axis=1)


def _bits_of(flags: Bool[np.ndarray, "T N"]) -> list[int]:
    bits: list[int] = (flags.T @ (1 << np.arange(len(flags)))).tolist()
    return bits


def _thresholds_of(bits: Sequence[int]) -> Bool[np.ndarray, "T N"]:
    flags = np.array(bits, np.int64)[None] >> np.arange(_THRESHOLDS)[:, None] & 1
    return np.asarray(flags.astype(bool))
