"""COCO's average precision, class-agnostic or not, computed by pycocotools itself."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from crate_interp.errors import InputError
from crate_interp.evaluation.coco_input import (
    IouType,
    Results,
    prepare_ground_truth,
    prepare_results,
)

__all__ = [
    "NO_SCORES",
    "CocoScores",
    "ImageMatches",
    "average_precision",
    "coco_average_precision",
    "format_table",
    "image_matches",
    "object_overlaps",
    "precision_by_recall",
]


@dataclass(frozen=True)
class CocoScores:
    """The twelve numbers of COCO, in [0, 1]; -1 where the ground truth has no such object.

    Attributes:
        AP: Average precision, mean over IoU thresholds 0.50, 0.55, ..., 0.95.
        AP50: At IoU 0.50.
        AP75: At IoU 0.75.
        AP_small: AP of objects below 32 x 32 pixels.
        AP_medium: AP of objects from 32 x 32 to 96 x 96 pixels.
        AP_large: AP of objects above 96 x 96 pixels.
        AR1: Average recall with one result per image.
        AR10: With ten results.
        AR100: With a hundred results.
        AR_small: Average recall with a hundred results, of small objects.
        AR_medium: The same, of medium objects.
        AR_large: The same, of large objects.
    """

    AP: float
    AP50: float
    AP75: float
    AP_small: float
    AP_medium: float
    AP_large: float
    AR1: float
    AR10: float
    AR100: float
    AR_small: float
    AR_medium: float
    AR_large: float


NO_SCORES = CocoScores(*[-1.0] * len(fields(CocoScores)))
"""Scores of a ground truth without an image."""


def coco_average_precision(
    ground_truth: Mapping[str, Any] | Path,
    results: Results,
    *,
    iou_type: IouType,
    class_agnostic: bool = True,
    image_ids: Collection[int] | None = None,
) -> CocoScores:
    """Score results against a COCO ground truth, with 1, 10 and 100 results per image.

    Class-agnostic scores are those of COCOeval on files in which every annotation and every
    result has the same category. Two customs of pycocotools show here as they do there: an
    annotation with the id 0 never counts as found, and a result that carries both a box and a
    mask belongs to a size range by the area of its box (which other tools avoid by removing the
    box); AP, AP50 and AP75 do not depend on that.

    Args:
        ground_truth: A COCO annotation file, or its content, which stays as it is.
        results: COCO results (masks as RLE or polygons), a file of them, what `read_results`
            returns of that file, or instances by image id in the frame of the original image;
            left as they are. May be empty.
        iou_type: Compare boxes or masks.
        class_agnostic: Ignore categories; else a result must be of its object's category.
        image_ids: Score these images only.

    Raises:
        InputError: Something is malformed, or a result, or one of `image_ids`, is for an image
            that the ground truth does not list.
    """
    records = image_matches(
        ground_truth,
        results,
        iou_type=iou_type,
        class_agnostic=class_agnostic,
        image_ids=image_ids,
    )
    return average_precision(records) if records else NO_SCORES


@dataclass(frozen=True, eq=False)
class ImageMatches:
    """Results of one image matched to its objects, for each category and range of sizes.

    Attributes:
        matches: What COCOeval found, a row per category and a column per range of sizes; `None`
            where the image has neither object nor result.
        setting: Categories, ranges and thresholds that all images of a set have in common.
    """

    matches: list[list[dict[str, Any] | None]]
    setting: COCOeval


def image_matches(
    ground_truth: Mapping[str, Any] | Path,
    results: Results,
    *,
    iou_type: IouType,
    class_agnostic: bool = True,
    image_ids: Collection[int] | None = None,
) -> list[ImageMatches]:
    """Match the results of each image to its objects; `average_precision` scores the records.

    Args:
        ground_truth: As `coco_average_precision`.
        results: As `coco_average_precision`.
        iou_type: Compare boxes or masks.
        class_agnostic: Ignore categories.
        image_ids: Match these images only.

    Returns:
        Record of each image, in the order of the ids.

    Raises:
        InputError: As `coco_average_precision`.
    """
    if iou_type not in ("bbox", "segm"):
        raise InputError(f"iou_type: expected 'bbox' or 'segm', found {iou_type!r}")
    truth = prepare_ground_truth(ground_truth, iou_type, class_agnostic)
    entries = prepare_results(results, truth, iou_type, class_agnostic)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress
        truth_index = _indexed(truth)
        # loadRes looks at the first result, and fails if there is none
        empty = _indexed({**truth, "annotations": []})
        result_index = truth_index.loadRes(entries) if entries else empty
        evaluation = COCOeval(truth_index, result_index, iou_type)
        if image_ids is not None:
            evaluation.params.imgIds = _known(image_ids, truth_index)
        evaluation.evaluate()
    images, ranges = len(evaluation.params.imgIds), len(evaluation.params.areaRng)
    rows = len(evaluation.evalImgs) // (images * ranges) if images else 0
    table = evaluation.evalImgs  # by category, then range, then image
    return [
        ImageMatches(
            [
                [table[(row * ranges + column) * images + image] for column in range(ranges)]
                for row in range(rows)
            ],
            evaluation,
        )
        for image in range(images)
    ]


def average_precision(images: Sequence[ImageMatches]) -> CocoScores:
    """Compute COCO's numbers of matched images.

    An image may occur several times: it counts as several images of the same content. Where
    results have equal scores, as MaskCut's have, those of the first images come first.

    Args:
        images: Records of one call of `image_matches`.

    Raises:
        InputError: There is no image, or the records are of several calls.
    """
    evaluation = _accumulated(images)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.summarize()
    return CocoScores(*(float(value) for value in evaluation.stats))


def precision_by_recall(images: Sequence[ImageMatches]) -> Float[np.ndarray, "T R"]:
    """Give the curves whose areas are the average precision.

    Args:
        images: As `average_precision`.

    Returns:
        The best precision at a recall or above it, for the T = 10 IoU thresholds 0.50, 0.55, ...,
        0.95 and the R = 101 recalls 0, 0.01, ..., 1, with a hundred results per image, mean over
        categories; NaN where the ground truth has no object. The mean of a row is the AP at its
        threshold.

    Raises:
        InputError: As `average_precision`.
    """
    precision = _accumulated(images).eval["precision"][:, :, :, 0, -1]  # (T, R, categories)
    known = precision[:, :, (precision > -1).all(axis=(0, 1))]
    if not known.shape[2]:
        return np.full(precision.shape[:2], np.nan)
    return np.asarray(known.mean(axis=2))


def object_overlaps(images: Sequence[ImageMatches]) -> list[list[float]]:
    """Give every object of each image the result that covers it best, as `best_overlaps` does.

    Args:
        images: Records of one call of `image_matches`.

    Returns:
        Largest IoU of each object with one of the hundred best results of its category, 0 without
        a result. Crowds are no objects.
    """
    overlaps: list[list[float]] = []
    for image in images:
        best: list[float] = []
        for category in (row[0] for row in image.matches if row[0] is not None):
            place = category["image_id"], category["category_id"]
            objects = image.setting._gts[place]
            if not objects:
                continue
            ious = np.reshape(image.setting.ious[place], (-1, len(objects)))
            are_objects = [not entry["iscrowd"] for entry in objects]
            best += ious.max(axis=0, initial=0.0)[are_objects].tolist()
        overlaps.append(best)
    return overlaps


def _accumulated(images: Sequence[ImageMatches]) -> COCOeval:
    """Put matched images together, as COCOeval does before it takes means."""
    if len({id(image.setting) for image in images}) != 1:
        raise InputError(
            "average precision: expected images that were matched together, found "
            + ("others" if len(images) else "none")
        )
    evaluation = copy(images[0].setting)
    evaluation._paramsEval = deepcopy(evaluation.params)
    evaluation._paramsEval.imgIds = list(range(len(images)))
    evaluation.params = evaluation._paramsEval
    shape = (len(images[0].matches), len(evaluation.params.areaRng))
    evaluation.evalImgs = [
        image.matches[row][column] for row, column in np.ndindex(shape) for image in images
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    return evaluation


def format_table(box: CocoScores, mask: CocoScores | None = None) -> str:
    """Lay scores out as a plain table, in percent; "-" where a score is undefined.

    Args:
        box: Scores of boxes.
        mask: Scores of masks, if there are any.

    Returns:
        Lines of equal length, without a line break at the end.
    """
    columns = ("AP", "AP50", "AP75", "small", "medium", "large", "AR1", "AR10", "AR100")
    lines = ["    " + "".join(f"{column:>8}" for column in columns)]
    for name, scores in (("box", box), ("mask", mask)):
        if scores is not None:
            values = (
                "-" if value < 0 else f"{100 * value:.1f}"
                for value in astuple(scores)[: len(columns)]
            )
            lines.append(f"{name:4}" + "".join(f"{value:>8}" for value in values))
    return "\n".join(lines)


def _indexed(dataset: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco


def _known(image_ids: Collection[int], coco: COCO) -> list[int]:
    unknown = sorted(set(image_ids) - set(coco.imgs))
    if unknown or not image_ids:
        raise InputError(
            "image_ids: expected images of the ground truth, found "
            + (f"also {unknown[:5]}" if unknown else "none")
        )
    return sorted(image_ids)
