"""The `segmentation` of a COCO entry: checked against its image, then drawn by pycocotools.

pycocotools draws a polygon at five times its size, every point of its outline in 32 bits: one that
leads far outside its image takes all memory, or ends the process.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Bool
from pycocotools import mask as coco_mask

from crate_interp.data.rle import check_rle, decode_mask
from crate_interp.errors import InputError, shorten

__all__ = ["check_outlines", "check_segmentation", "draw_segmentation"]

# Outlines of COCO's own objects have 300 pixels in the mean.
MAX_OUTLINE = 4_000_000  # pixels of one polygon
FREE_OUTLINE = 2_000  # of every entry of a file
MAX_OUTLINES = 50_000_000  # of a file, beside that


def check_segmentation(segmentation: Any, image_hw: tuple[int, int]) -> float:
    """Check that a segmentation, polygons or an RLE, describes a mask of an image.

    Points may lie outside the image, as they do in real files, by as much as its longer side.

    Args:
        segmentation: A list of polygons, each a list of numbers x, y, x, y, ..., or an RLE.
        image_hw: Height and width of the image, pixels.

    Returns:
        Pixels that the outlines have at most, for `check_outlines`; 0 for an RLE.

    Raises:
        InputError: A polygon has less than three points, or one far outside; an RLE is malformed
            or of another size.
    """
    if isinstance(segmentation, list):
        if not segmentation:
            raise InputError("expected polygons or an RLE, found an empty list")
        return sum(_checked_outline(polygon, image_hw) for polygon in segmentation)
    check_rle(segmentation)
    if tuple(segmentation["size"]) != tuple(image_hw):
        raise InputError(f"expected size {list(image_hw)}, found {shorten(segmentation['size'])}")
    return 0.0


def check_outlines(segmentations: Sequence[Any], bound: float, source: str) -> None:
    """Check that the polygons of a file fit into memory once they are drawn.

    Args:
        segmentations: Segmentations of all its entries.
        bound: Sum of what `check_segmentation` returned for them.
        source: Name of the file, for messages.

    Raises:
        InputError: Their outlines are too long together.
    """
    limit = MAX_OUTLINES + FREE_OUTLINE * len(segmentations)
    if bound <= limit:
        return
    length = _outline(
        [polygon for part in segmentations if isinstance(part, list) for polygon in part]
    )
    if length > limit:
        raise InputError(
            f"{source}: expected polygons with outlines of at most {limit} pixels together, "
            f"found {length:.0f}"
        )


def draw_segmentation(
    segmentation: Mapping[str, Any] | Sequence[Sequence[float]], image_hw: tuple[int, int]
) -> Bool[np.ndarray, "H W"]:
    """Draw a segmentation that `check_segmentation` let pass."""
    if isinstance(segmentation, Mapping):
        return decode_mask(segmentation)
    return decode_mask(coco_mask.merge(coco_mask.frPyObjects(segmentation, *image_hw)))


def _checked_outline(polygon: Any, image_hw: tuple[int, int]) -> float:
    # A polygon of 4 numbers would be taken for a box.
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        raise InputError(
            "expected polygons of three points or more, x and y of each, found "
            + (f"{len(polygon)} numbers" if isinstance(polygon, list) else shorten(polygon))
        )
    try:
        finite = math.isfinite(sum(polygon))
    except (TypeError, OverflowError):
        finite = False
    if not finite:
        raise InputError("expected polygons of finite numbers, found something else among them")
    extent, margin = 0.0, max(image_hw)
    for name, values, size in (
        ("x", polygon[::2], image_hw[1]),
        ("y", polygon[1::2], image_hw[0]),
    ):
        low, high = min(values), max(values)
        if low < -margin or high > size + margin:
            raise InputError(
                f"expected polygons with {name} from {-margin} to {size + margin}, in or near an "
                f"image of {image_hw[1]} x {image_hw[0]} pixels, found "
                f"{shorten(low if low < -margin else high)}"
            )
        extent = max(extent, high - low)
    bound: float = extent * len(polygon) / 2
    if bound > MAX_OUTLINE and _outline([polygon]) > MAX_OUTLINE:
        raise InputError(
            f"expected polygons with outlines of at most {MAX_OUTLINE} pixels, "
            f"found {_outline([polygon]):.0f}"
        )
    return bound


def _outline(polygons: Sequence[Sequence[float]]) -> float:
    """Length of the outlines of all polygons together, as pycocotools allocates them."""
    ends = np.cumsum([len(polygon) // 2 for polygon in polygons])
    points = np.fromiter(chain.from_iterable(polygons), np.float64).reshape(-1, 2)
    before = np.arange(len(points)) - 1
    before[np.concatenate([[0], ends[:-1]])] = ends - 1
    return float(np.abs(points - points[before]).max(axis=1).sum())
