"""Masks as COCO's run-length encoding, and instances as COCO's JSON entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64
from pycocotools import mask as coco_mask

from crate_interp.errors import InputError, shorten
from crate_interp.structures import Instances

__all__ = [
    "annotations_of",
    "area_of",
    "check_rle",
    "decode_mask",
    "encode_masks",
    "instances_of",
    "results_of",
]

MAX_PIXELS = 1 << 29  # of a mask: 512 MiB of them as bool
MAX_COUNTS = 1 << 24  # runs, or characters that stand for them


def encode_masks(masks: Bool[np.ndarray, "M H W"]) -> list[dict[str, Any]]:
    """Encode masks as compressed RLE, `{"size": [H, W], "counts": str}`, ready for JSON.

    Raises:
        InputError: The array is not bool of shape (M, H, W), or H or W is 0.
    """
    if masks.dtype != np.bool_ or masks.ndim != 3 or 0 in masks.shape[1:]:
        raise InputError(
            f"masks: expected bool of shape (M, H, W), found {masks.dtype} of shape {masks.shape}"
        )
    if not len(masks):
        return []
    by_column = np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8))
    return [
        {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}
        for rle in coco_mask.encode(by_column)
    ]


def decode_mask(rle: Mapping[str, Any]) -> Bool[np.ndarray, "H W"]:
    """Decode a mask from compressed (counts str or bytes) or uncompressed (list) RLE.

    Raises:
        InputError: As `check_rle` does.
    """
    runs = check_rle(rle)  # pycocotools' own decode is deprecated in numpy's eyes
    height, width = rle["size"]
    values = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, runs).reshape(width, height).T)


def area_of(rle: Mapping[str, Any]) -> int:
    """Count the pixels of a mask that `encode_masks` wrote, without decoding or checking it."""
    return int(coco_mask.area({"size": rle["size"], "counts": rle["counts"].encode()}))


def check_rle(rle: Any) -> Int64[np.ndarray, " runs"]:
    """Check that an RLE describes a mask; pycocotools would fill what is missing with noise.

    Returns:
        Lengths of the runs of 0, 1, 0, ... down the columns, pixels.

    Raises:
        InputError: A key is missing, the size is no pair of positive integers, or the runs are
            malformed or do not add up to the size.
    """
    if not isinstance(rle, Mapping):
        raise InputError(f"expected an RLE of size and counts, found {type(rle).__name__}")
    size, counts = rle.get("size"), rle.get("counts")
    if (
        not isinstance(size, (list, tuple))
        or len(size) != 2
        or any(type(side) is not int or side < 1 for side in size)
    ):
        raise InputError(f"size: expected [height, width] of an RLE, found {shorten(size)}")
    pixels = size[0] * size[1]
    if pixels > MAX_PIXELS:
        raise InputError(
            f"size: expected at most {MAX_PIXELS} pixels of a mask, found {shorten(size)}"
        )
    if not isinstance(counts, (list, str, bytes)):
        raise InputError(f"counts: expected runs of an RLE, found {type(counts).__name__}")
    if len(counts) > MAX_COUNTS:
        raise InputError(f"counts: expected a length of at most {MAX_COUNTS}, found {len(counts)}")
    runs = _listed(counts, pixels) if isinstance(counts, list) else _decompressed(counts)
    if (runs < 0).any() or runs.sum() != pixels:
        raise InputError(
            f"counts: expected runs of {size[0]} x {size[1]} pixels together, found {runs.sum()}"
            + (" and negative runs" if (runs < 0).any() else "")
        )
    return runs


def _listed(counts: list[Any], pixels: int) -> Int64[np.ndarray, " runs"]:
    if any(type(run) is not int for run in counts):
        raise InputError("counts: expected integers, found something else among them")
    longest = max(counts, key=abs, default=0)
    if abs(longest) > pixels:  # also what 64 bits cannot hold
        raise InputError(
            f"counts: expected runs of {pixels} pixels together, found one of {shorten(longest)}"
            + (" and negative runs" if min(counts) < 0 else "")
        )
    return np.array(counts, dtype=np.int64)


def _decompressed(counts: str | bytes) -> Int64[np.ndarray, " runs"]:
    if isinstance(counts, str):
        counts = counts.encode(errors="surrogatepass")
    # A run is stored in digits of 5 bits, lowest first; bit 5 says that another digit follows,
    # bit 4 of the last one is the sign; from the fourth run on, as the difference to the run
    # before the last.
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((digits & 32) == 0)
    lengths = np.diff(ends, prepend=-1)
    invalid = (digits < 0).any() or (digits > 63).any() or (lengths > 7).any()
    if not len(ends) or ends[-1] != len(digits) - 1 or invalid:
        raise InputError("counts: expected a compressed RLE, found a damaged string")
    starts = ends - lengths + 1
    places = 5 * (np.arange(len(digits)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((digits & 31) << places, starts)
    runs -= ((digits[ends] & 16) > 0).astype(np.int64) << (5 * lengths)
    runs[1::2], runs[2::2] = runs[1::2].cumsum(), runs[2::2].cumsum()
    return runs


def results_of(instances: Instances, image_id: int) -> list[dict[str, Any]]:
    """Write instances as entries of a COCO results file.

    Boxes are [x, y, width, height], rounded to a hundredth of a pixel as in COCO's own files
    (boxes around masks are whole pixels); scores are not rounded. The category is always 1.

    Args:
        instances: Instances in the frame of the original image.
        image_id: Number of the image in the annotation file.

    Returns:
        One entry an instance, in its order, of plain JSON types.

    Raises:
        InputError: The instances lie in another frame.
    """
    if instances.frame != "original":
        raise InputError(
            f"instances: expected the frame of the original image, found {instances.frame!r}"
        )
    return [
        {
            "image_id": int(image_id),
            "category_id": 1,
            "segmentation": rle,
            "bbox": [round(float(value), 2) for value in (x1, y1, x2 - x1, y2 - y1)],
            "score": float(score),
        }
        for rle, (x1, y1, x2, y2), score in zip(
            encode_masks(instances.masks), instances.boxes_xyxy, instances.scores, strict=True
        )
    ]


def instances_of(results: Sequence[Mapping[str, Any]], hw: tuple[int, int]) -> Instances:
    """Read instances back from entries that `results_of` wrote; boxes are those of the masks.

    Args:
        results: Entries of one image, in order.
        hw: Height and width of the image, pixels.

    Raises:
        InputError: A mask is malformed, or of another size.
    """
    masks = np.zeros((len(results), *hw), dtype=bool)
    for mask, result in zip(masks, results, strict=True):
        decoded = decode_mask(result["segmentation"])
        if decoded.shape != mask.shape:
            raise InputError(f"size: expected a mask of {mask.shape}, found {decoded.shape}")
        mask[:] = decoded
    return Instances(masks, [result["score"] for result in results])  # type: ignore[arg-type]


def annotations_of(instances: Instances, image_id: int, first_id: int) -> list[dict[str, Any]]:
    """Write instances as entries of a COCO annotation file, for training a detector.

    Args:
        instances: Instances in the frame of the original image.
        image_id: Number of the image in the annotation file.
        first_id: Id of the first entry, the others follow; at least 1, since pycocotools takes
            the id 0 for "no match".

    Returns:
        The entries of `results_of` with `id`, `area` (pixels of the mask) and `iscrowd` 0.

    Raises:
        InputError: The instances lie in another frame, or `first_id` is below 1.
    """
    if first_id < 1:
        raise InputError(f"first_id: expected at least 1, found {first_id}")
    return [
        {"id": annotation_id, **result, "area": int(mask.sum()), "iscrowd": 0}
        for annotation_id, (result, mask) in enumerate(
            zip(results_of(instances, image_id), instances.masks, strict=True), start=first_id
        )
    ]
