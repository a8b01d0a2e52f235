"""Ground truth and results, checked and copied, as pycocotools wants to have them.

pycocotools writes into what it is given and lets most mistakes pass, or fails far from them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool
from pycocotools import mask as coco_mask

from crate_interp.data.coco import check_coco, is_integer, read_coco, read_json
from crate_interp.data.rle import check_rle, decode_mask, results_of
from crate_interp.errors import InputError
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
        source, coco = str(ground_truth), read_coco(Path(ground_truth))
    else:
        source, coco = "ground truth", dict(ground_truth)
        check_coco(coco, source)
    categories = [{"id": 1}] if class_agnostic else coco.get("categories")
    if categories is None:
        raise InputError(f"{source}: categories: expected a list, found no such key")
    known = {category["id"] for category in categories}
    sizes = sizes_of(coco)
    annotations = []
    for number, annotation in enumerate(coco["annotations"]):
        where = f"{source}: annotations[{number}] (id {annotation['id']})"
        copied = {**annotation, "iscrowd": annotation.get("iscrowd", 0)}
        if class_agnostic:
            copied["category_id"] = 1
        elif copied["category_id"] not in known:
            raise InputError(f"{where}: category_id {copied['category_id']} is not listed")
        if copied["iscrowd"] not in (0, 1):
            raise InputError(f"{where}: iscrowd: expected 0 or 1, found {copied['iscrowd']!r}")
        _number(copied, "area", where)
        if iou_type == "bbox":
            _check_box(copied, where)
        else:
            size = _known_size(copied, sizes[copied["image_id"]], where)
            _check_segmentation(copied, size, where)
        annotations.append(copied)
    images = [dict(image) for image in coco["images"]]
    return {"images": images, "annotations": annotations, "categories": list(categories)}


def has_masks(ground_truth: Mapping[str, Any]) -> bool:
    """Whether masks can be scored: some annotation has one, or there is no annotation."""
    annotations = ground_truth["annotations"]
    return not annotations or any(annotation.get("segmentation") for annotation in annotations)


def object_masks(
    annotations: Sequence[Mapping[str, Any]], image_hw: tuple[int, int]
) -> Bool[np.ndarray, "G H W"]:
    """Draw the objects of one image.

    Args:
        annotations: Of that image, as `prepare_ground_truth` returns them for masks.
        image_hw: Height and width, pixels.

    Returns:
        One mask an object. Crowds are none, nor is an annotation in which no pixel lies.
    """
    masks = [np.zeros((0, *image_hw), dtype=np.bool_)]
    for annotation in annotations:
        shape = annotation["segmentation"]
        if isinstance(shape, list):
            shape = coco_mask.merge(coco_mask.frPyObjects(shape, *image_hw))
        mask = decode_mask(shape)
        if mask.any() and not annotation["iscrowd"]:
            masks.append(mask[None])
    return np.concatenate(masks)


def read_results(path: Path) -> ResultsFile:
    """Read a COCO results file.

    Raises:
        InputError: The file cannot be read, is no JSON, or is no list.
    """
    entries = read_json(path)
    if not isinstance(entries, list):
        raise InputError(f"{path}: expected a list of results, found {type(entries).__name__}")
    return ResultsFile(path, entries)


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
        iou_type: What to score.
        class_agnostic: Put every result in category 1.

    Raises:
        InputError: A result is malformed, or for an image or category that the ground truth
            does not list; the message names the file, the entry and the key.
    """
    if isinstance(results, (str, Path)):
        results = read_results(Path(results))
    source = str(results.path) if isinstance(results, ResultsFile) else "results"
    entries = _entries_of(results)
    sizes = sizes_of(ground_truth)
    categories = {category["id"] for category in ground_truth["categories"]}
    with_boxes = bool(entries) and isinstance(entries[0], Mapping) and bool(entries[0].get("bbox"))
    prepared = []
    for number, entry in enumerate(entries):
        where = f"{source}: entry {number}"
        if not isinstance(entry, Mapping):
            raise InputError(f"{where}: expected an object, found {type(entry).__name__}")
        copied = {key: _integer(entry, key, where) for key in ("image_id", "category_id")}
        copied["score"] = _number(entry, "score", where)
        if class_agnostic:
            copied["category_id"] = 1
        for key, known in (("image_id", sizes), ("category_id", categories)):
            if copied[key] not in known:
                raise InputError(f"{where}: {key} {copied[key]} is not in the ground truth")
        if with_boxes:
            copied["bbox"] = _check_box(entry, where)
        elif entry.get("bbox"):
            raise InputError(f"{where}: has a bbox, but entry 0 has none")
        if iou_type == "segm" or not with_boxes:
            copied["segmentation"] = _result_mask(entry, sizes[copied["image_id"]], where)
        prepared.append(copied)
    return prepared


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
                f"results: expected Instances of image {key!r}, found {type(instances).__name__}"
            )
    return [entry for key, instances in results.items() for entry in results_of(instances, key)]


def _result_mask(entry: Mapping[str, Any], size: tuple[int, int] | None, where: str) -> Any:
    if not isinstance(entry.get("segmentation"), (Mapping, list)):
        found = type(entry.get("segmentation")).__name__
        raise InputError(f"{where}: segmentation: expected an RLE or polygons, found {found}")
    image_hw = _known_size(entry, size, where)
    rle = _check_segmentation(entry, image_hw, where)
    if isinstance(rle, list):
        return coco_mask.merge(coco_mask.frPyObjects(rle, *image_hw))
    if isinstance(rle["counts"], list):  # loadRes measures compressed ones only
        return coco_mask.frPyObjects(dict(rle), *rle["size"])
    return rle


def sizes_of(coco: Mapping[str, Any]) -> dict[int, tuple[int, int] | None]:
    """Height and width of the images by id, `None` where the file does not tell."""
    return {
        image["id"]: (image["height"], image["width"]) if "height" in image else None
        for image in coco["images"]
    }


def _integer(entry: Mapping[str, Any], key: str, where: str) -> Any:
    if not is_integer(entry.get(key)):
        raise InputError(f"{where}: {key}: expected an integer, found {entry.get(key)!r}")
    return entry[key]


def _number(entry: Mapping[str, Any], key: str, where: str) -> Any:
    value = entry.get(key)
    if not _finite([value]):
        raise InputError(f"{where}: {key}: expected a finite number, found {value!r}")
    return value


def _check_box(entry: Mapping[str, Any], where: str) -> Any:
    box = entry.get("bbox")
    if not isinstance(box, (list, tuple)) or len(box) != 4 or not _finite(box) or min(box[2:]) < 0:
        raise InputError(f"{where}: bbox: expected [x, y, width, height], found {box!r}")
    return list(box)


def _known_size(
    entry: Mapping[str, Any], size: tuple[int, int] | None, where: str
) -> tuple[int, int]:
    if size is None:
        raise InputError(
            f"{where}: segmentation: the ground truth gives no height and width of image "
            f"{entry['image_id']}"
        )
    return size


def _check_segmentation(entry: Mapping[str, Any], size: tuple[int, int], where: str) -> Any:
    segmentation: Any = entry.get("segmentation")
    if isinstance(segmentation, list):
        # A polygon of 4 numbers would be taken for a box.
        if not segmentation or not all(
            isinstance(polygon, list)
            and len(polygon) >= 6
            and len(polygon) % 2 == 0
            and _finite(polygon)
            for polygon in segmentation
        ):
            raise InputError(
                f"{where}: segmentation: expected polygons of three points or more, or an RLE"
            )
        return segmentation
    try:
        check_rle(segmentation)
    except InputError as error:
        raise InputError(f"{where}: segmentation: {error}") from error
    if tuple(segmentation["size"]) != size:
        raise InputError(
            f"{where}: segmentation: expected size {list(size)} of image {entry['image_id']}, "
            f"found {segmentation['size']}"
        )
    return segmentation


def _finite(values: Sequence[Any]) -> bool:
    try:
        # What JSON files hold; a million coordinates through `isinstance` take seconds.
        if set(map(type, values)) <= {int, float}:
            return all(map(math.isfinite, values))
        return all(
            isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
            for value in values
        )
    except OverflowError:  # an integer beyond any float
        return False
