"""Entries of COCO's files as instances, and back, without a digit lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Float

from crate_interp.data.coco_files import checked_values
from crate_interp.data.coco_masks import check_segmentation, draw_segmentation
from crate_interp.data.rle import check_rle, results_of
from crate_interp.errors import InputError, shorten
from crate_interp.structures import Instances, boxes_of_masks

__all__ = ["entries_from_instances", "instances_from_entries"]


class _Masked(TypedDict):
    segmentation: list[list[float]] | dict[str, Any]


class _Entry(_Masked, total=False):
    image_id: int
    bbox: tuple[float, float, float, float] | None
    score: float


def entries_from_instances(instances: Instances, image_id: int) -> list[dict[str, Any]]:
    """Write instances as `results_of` does, with boxes that are not rounded.

    Raises:
        InputError: The instances lie in another frame than the original image.
    """
    boxes = np.hstack([instances.boxes_xyxy[:, :2], _sides(instances.boxes_xyxy)]).tolist()
    entries = results_of(instances, image_id)
    return [{**entry, "bbox": box} for entry, box in zip(entries, boxes, strict=True)]


def instances_from_entries(
    entries: Sequence[Mapping[str, Any]], hw: tuple[int, int] | None
) -> Instances:
    """Read entries of one image, of a results file or of an annotation file.

    Args:
        entries: Masks as RLE or polygons; `bbox` and `score` may be missing.
        hw: Height and width of the image, pixels; `None` takes them from the first RLE.

    Raises:
        InputError: An entry is malformed or of another image, or nothing tells the size.
    """
    checked: list[_Entry] = checked_values(list(entries), list[_Entry], "entries")
    images = {entry.get("image_id") for entry in checked}
    if len(images) > 1:
        raise InputError(f"entries: expected those of one image, found {shorten(images)}")
    hw = _size(checked) if hw is None else hw
    masks = np.zeros((len(checked), *hw), dtype=bool)
    for number, (mask, entry) in enumerate(zip(masks, checked, strict=True)):
        try:
            check_segmentation(entry["segmentation"], hw)
        except InputError as error:
            raise InputError(f"entries: [{number}]: segmentation: {error}") from None
        mask[:] = draw_segmentation(entry["segmentation"], hw)
    boxes = boxes_of_masks(masks)
    for box, entry in zip(boxes, checked, strict=True):
        given = entry.get("bbox")
        if given is not None:
            x, y, width, height = given
            box[:] = x, y, x + width, y + height
    return Instances(masks, np.array([entry.get("score", 1.0) for entry in checked]), boxes)


def _size(entries: Sequence[_Entry]) -> tuple[int, int]:
    for number, entry in enumerate(entries):
        segmentation = entry["segmentation"]
        if isinstance(segmentation, dict):
            try:
                check_rle(segmentation)
            except InputError as error:
                raise InputError(f"entries: [{number}]: segmentation: {error}") from None
            height, width = segmentation["size"]
            return height, width
    raise InputError("hw: expected height and width, as no entry has an RLE; found None")


def _sides(boxes: Float[np.ndarray, "M 4"]) -> Float[np.ndarray, "M 2"]:
    """Widths and heights that, added to the first corner, give the second to the last bit.

    The rounded difference may miss it by one bit, and a neighbour of it does not. None does where
    a box ends much nearer to 0 than it begins, left of or above the image.
    """
    near, far = boxes[:, :2], boxes[:, 2:]
    sides: Float[np.ndarray, "M 2"] = far - near
    for direction in (np.inf, -np.inf):
        sides = np.where(near + sides == far, sides, np.nextafter(far - near, direction))
    return sides
