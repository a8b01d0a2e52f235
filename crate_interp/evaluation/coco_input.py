"""Ground truth and results, checked and copied into the form that pycocotools takes.

pycocotools writes into what it is given and lets most mistakes pass, or fails far from them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
from jaxtyping import Bool
from pycocotools import mask as coco_mask

from crate_interp.data.coco_files import (
    CocoAnnotation,
    CocoCategory,
    CocoFile,
    CocoImage,
    Id,
    check_coco,
    checked_values,
    source_of,
)
from crate_interp.data.coco_masks import check_outlines, check_segmentation, draw_segmentation
from crate_interp.data.rle import results_of
from crate_interp.errors import InputError, shorten
from crate_interp.files import read_json_as
from crate_interp.structures import Instances

__all__ = [
    "IouType",
    "Results",
    "ResultsFile",
    "has_masks",
    "object_masks",
    "prepare_ground_truth",
    "prepare_results",
    "read_results",
]

IouType = Literal["bbox", "segm"]

MAX_OBJECT_PIXELS = 1 << 29  # of all masks of one image: 512 MiB as bool
LARGEST_COORDINATE = 1e9  # of a box, pixels


class _ScoredAnnotation(CocoAnnotation):
    area: float


class _CrowdedAnnotation(_ScoredAnnotation, total=False):
    iscrowd: int | float | bool  # exporters write 0, 0.0 and false


class _BoxAnnotation(_CrowdedAnnotation):
    bbox: list[float]


class _MaskAnnotation(_CrowdedAnnotation):
    segmentation: list[list[float]] | dict[str, Any]


class _BoxSections(TypedDict):
    images: list[CocoImage]
    annotations: list[_BoxAnnotation]


class _BoxTruth(_BoxSections, total=False):
    categories: list[CocoCategory]


class _MaskSections(TypedDict):
    images: list[CocoImage]
    annotations: list[_MaskAnnotation]


class _MaskTruth(_MaskSections, total=False):
    categories: list[CocoCategory]


class _ScoredResult(TypedDict):
    image_id: Id
    category_id: Id
    score: float


class _BoxResult(_ScoredResult, total=False):
    bbox: list[float] | None


class _MaskResult(_BoxResult):
    segmentation: list[list[float]] | dict[str, Any]


@dataclass(frozen=True)
class ResultsFile:
    """A COCO results file as read, to score it more than once.

    Attributes:
        path: The file, for messages.
        entries: The list that it holds, not checked.
    """

    path: Path
    entries: list[Any] = field(repr=False)


# What `coco_average_precision` takes: entries, a file of them, or instances by image id.
Results = Sequence[Mapping[str, Any]] | Path | ResultsFile | Mapping[int, Instances]


def prepare_ground_truth(
    ground_truth: Mapping[str, Any] | Path, iou_type: IouType, class_agnostic: bool
) -> dict[str, Any]:
    """Copy a COCO ground truth, with every annotation in one category if class-agnostic.

    Relabelling is not the same as `useCats = 0` of COCOeval: that drops results of categories
    that the ground truth does not list, and orders equal scores by category.

    Raises:
        InputError: The ground truth is malformed; the message names the annotation and the key.
    """
    if isinstance(ground_truth, (str, Path)):
        ground_truth = CocoFile(read_json_as(ground_truth, dict[str, Any]), Path(ground_truth))
    source = source_of(ground_truth)
    kind = _BoxTruth if iou_type == "bbox" else _MaskTruth
    coco = check_coco(ground_truth, source, kind)
    if class_agnostic:
        coco["categories"] = [{"id": 1}]
    elif "categories" not in coco:
        raise InputError(f"{source}: categories: expected a list, found no such key")
    known = {category["id"] for category in coco["categories"]}
    sizes = sizes_of(coco)
    outlines = 0.0
    for number, annotation in enumerate(coco["annotations"]):
        where = f"{source}: annotations[{number}] (id {annotation['id']})"
        if class_agnostic:
            annotation["category_id"] = 1
        elif annotation["category_id"] not in known:
            raise InputError(f"{where}: category_id {annotation['category_id']} is not listed")
        if annotation.setdefault("iscrowd", 0) not in (0, 1):
            raise InputError(f"{where}: iscrowd: expected 0 or 1, found {annotation['iscrowd']}")
        _check_finite(annotation, "area", where)
        if iou_type == "bbox":
            _check_box(annotation["bbox"], where)
        else:
            outlines += _check_mask(annotation, sizes[annotation["image_id"]], where)
    if iou_type == "segm":
        segmentations = [annotation["segmentation"] for annotation in coco["annotations"]]
        check_outlines(segmentations, outlines, source)
    return coco


def has_masks(ground_truth: Mapping[str, Any]) -> bool:
    """Whether masks can be scored: some annotation has one, or there is no annotation."""
    annotations = ground_truth["annotations"]
    return not annotations or any(annotation.get("segmentation") for annotation in annotations)


def object_masks(
    annotations: Sequence[Mapping[str, Any]], image_hw: tuple[int, int]
) -> Bool[np.ndarray, "G H W"]:
    """Draw the objects of one image.

    Args:
        annotations: Annotations of that image, as `prepare_ground_truth` returns them for masks.
        image_hw: Height and width, pixels.

    Returns:
        One mask per object. A crowd is no object, nor is an annotation in which no pixel lies.
    """
    objects = [annotation for annotation in annotations if not annotation["iscrowd"]]
    pixels = len(objects) * image_hw[0] * image_hw[1]
    if pixels > MAX_OBJECT_PIXELS:
        raise InputError(
            f"ground truth: expected masks of at most {MAX_OBJECT_PIXELS} pixels in one image, "
            f"found {len(objects)} of {image_hw[0]} x {image_hw[1]} pixels"
        )
    masks = np.zeros((len(objects), *image_hw), dtype=np.bool_)
    for mask, annotation in zip(masks, objects, strict=True):
        mask[:] = draw_segmentation(annotation["segmentation"], image_hw)
    drawn = masks.any(axis=(1, 2))
    return masks if drawn.all() else masks[drawn]


def read_results(path: Path) -> ResultsFile:
    """Read a COCO results file.

    Raises:
        InputError: The file cannot be read, is no JSON, or is no list.
    """
    return ResultsFile(Path(path), read_json_as(path, list[Any]))


def prepare_results(
    results: Results,
    ground_truth: Mapping[str, Any],
    iou_type: IouType,
    class_agnostic: bool,
) -> list[dict[str, Any]]:
    """Copy COCO results, reduced to the keys that the evaluation reads.

    As with pycocotools, the first result decides whether boxes are those given or those around
    the masks.

    Args:
        results: Entries, a file of them, read or not, or instances by image id.
        ground_truth: As `prepare_ground_truth` returns it.
        iou_type: Whether to score boxes or masks.
        class_agnostic: Put every result in category 1.

    Raises:
        InputError: A result is malformed, or for an image or category that the ground truth
            does not list; the message names the file, the entry and the key.
    """
    if isinstance(results, (str, Path)):
        results = read_results(Path(results))
    source = str(results.path) if isinstance(results, ResultsFile) else "results"
    raw = _entries_of(results)
    entries = checked_values(raw, list[_BoxResult], source)
    with_boxes = bool(entries) and bool(entries[0].get("bbox"))
    with_masks = iou_type == "segm" or not with_boxes
    if with_masks:
        entries = checked_values(raw, list[_MaskResult], source)
    sizes = sizes_of(ground_truth)
    categories = {category["id"] for category in ground_truth["categories"]}
    outlines = 0.0
    for number, entry in enumerate(entries):
        where = f"{source}: [{number}]"
        if class_agnostic:
            entry["category_id"] = 1
        for key, known in (("image_id", sizes), ("category_id", categories)):
            if entry[key] not in known:
                raise InputError(f"{where}: {key} {entry[key]} is not in the ground truth")
        _check_finite(entry, "score", where)
        box = entry.pop("bbox", None)
        if with_boxes:
            entry["bbox"] = _check_box(box, where)
        elif box:
            raise InputError(f"{where}: has a bbox, but [0] has none")
        if with_masks:
            outlines += _check_mask(entry, sizes[entry["image_id"]], where)
    if with_masks:
        check_outlines([entry["segmentation"] for entry in entries], outlines, source)
        known_sizes = {image_id: size for image_id, size in sizes.items() if size is not None}
        for entry in entries:
            entry["segmentation"] = _as_rle(entry["segmentation"], known_sizes[entry["image_id"]])
    return list(entries)


def _entries_of(
    results: ResultsFile | Sequence[Any] | Mapping[int, Instances],
) -> Sequence[Any]:
    if isinstance(results, ResultsFile):
        return results.entries
    if not isinstance(results, Mapping):
        return results
    for key, instances in results.items():
        if not isinstance(instances, Instances):
            raise InputError(
                f"results: expected Instances of image {shorten(key)}, "
                f"found {type(instances).__name__}"
            )
    return [entry for key, instances in results.items() for entry in results_of(instances, key)]


def sizes_of(coco: Mapping[str, Any]) -> dict[int, tuple[int, int] | None]:
    """Height and width of the images by id, `None` where the file does not tell."""
    return {
        image["id"]: (image["height"], image["width"]) if "height" in image else None
        for image in coco["images"]
    }


def _as_rle(segmentation: Any, image_hw: tuple[int, int]) -> Any:
    if isinstance(segmentation, list):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, *image_hw))
    if isinstance(segmentation["counts"], list):  # loadRes measures compressed ones only
        return coco_mask.frPyObjects(dict(segmentation), *image_hw)
    return segmentation


def _check_finite(entry: Mapping[str, Any], key: str, where: str) -> None:
    if not math.isfinite(entry[key]):
        raise InputError(f"{where}: {key}: expected a finite number, found {entry[key]}")


def _check_box(box: list[float] | None, where: str) -> list[float]:
    if (
        box is None
        or len(box) != 4
        or min(box[2:]) < 0
        # which leaves out NaN, too
        or not all(-LARGEST_COORDINATE <= value <= LARGEST_COORDINATE for value in box)
    ):
        raise InputError(f"{where}: bbox: expected [x, y, width, height], found {shorten(box)}")
    return box


def _check_mask(entry: Mapping[str, Any], size: tuple[int, int] | None, where: str) -> float:
    if size is None:
        raise InputError(
            f"{where}: segmentation: the ground truth gives no height and width of image "
            f"{entry['image_id']}"
        )
    try:
        return check_segmentation(entry["segmentation"], size)
    except InputError as error:
        raise InputError(f"{where}: segmentation: {error}") from None
