"""Images with a class of every pixel: sets of them, kinds of sets, the reading of a label map.

Shapes: H W pixels, G masks of a ground truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from crate_interp.data.coco import ImageRecord, ImageSet
from crate_interp.data.image_files import opened_image
from crate_interp.errors import InputError

__all__ = [
    "MAX_LABELS",
    "VOID",
    "LabelledKind",
    "LabelledSet",
    "check_size",
    "class_masks",
    "read_label_map",
    "truth_masks",
]

VOID = 255
"""Label of a pixel that does not count."""

MAX_LABELS = 2**24
"""Largest label map, pixels: 4096 x 4096. To score one takes up to 60 bytes per pixel."""

_MAX_SPLIT = 2**28  # pixels of the masks that a map is split into, together
_LOSSLESS = ("PNG", "BMP", "GIF", "TIFF")

# Takes an image and its height and width; refuses a map of another size, and names its file.
LabelReader = Callable[[ImageRecord, tuple[int, int]], UInt8[np.ndarray, "H W"]]


@dataclass(frozen=True)
class LabelledSet:
    """Images of which every pixel has a label: a class, or `VOID`.

    Attributes:
        images: The images, without COCO annotations.
        classes: Name of each class, by label.
        background: Label of what is no object; `None` if every label is a thing of its own.
        read_labels: Label map of an image, in its own pixels.
        read_objects: Map of the objects' numbers: 0 is background, `VOID` is void; `None` if the
            set tells no objects of one class apart.
    """

    images: ImageSet
    classes: tuple[str, ...]
    background: int | None
    read_labels: LabelReader
    read_objects: LabelReader | None = None

    def limit(self, count: int | None) -> LabelledSet:
        """Keep the first `count` images; all of them for `None`."""
        return replace(self, images=self.images.limit(count))

    def between(self, first: int, last: int) -> LabelledSet:
        """Keep the images from the `first` one to the `last`, which are numbered from 1."""
        return replace(self, images=self.images.between(first, last))

    def labels_of(
        self, record: ImageRecord, original_hw: tuple[int, int]
    ) -> UInt8[np.ndarray, "H W"]:
        """Read the label map of an image.

        Raises:
            InputError: As `read_label_map`, or the map is not of the size of the image.
        """
        return self.read_labels(record, original_hw)

    def objects_of(
        self, record: ImageRecord, original_hw: tuple[int, int]
    ) -> UInt8[np.ndarray, "H W"]:
        """Read the map of the objects of an image.

        Raises:
            InputError: As `labels_of`, or the set has no objects.
        """
        if self.read_objects is None:
            raise InputError(f"{self.images.name}: has classes, but tells no objects apart")
        return self.read_objects(record, original_hw)


@dataclass(frozen=True)
class LabelledKind:
    """A kind of labelled data sets: how one is recognised, and how it is opened.

    Attributes:
        contents: Content of the folder of a set, for messages, such as "images/ and masks/"; empty
            for a set that is no folder.
        recognises: Tells whether a path is a set of this kind; reads no file and raises nothing.
        open: Opens the set at a path; takes the path and the split, such as `val`.
    """

    contents: str
    recognises: Callable[[Path], bool]
    open: Callable[[Path, str], LabelledSet]


def read_label_map(
    path: Path, count: int, image_hw: tuple[int, int] | None = None
) -> UInt8[np.ndarray, "H W"]:
    """Read a PNG of 8 bits whose values, or palette entries, are labels.

    Args:
        path: The file.
        count: Labels are 0 to `count` - 1, and `VOID`.
        image_hw: Height and width of its image, pixels; not looked at if not given.

    Raises:
        InputError: The file is missing, damaged, too large, of another kind or of another size
            than its image, or a label is out of range.
    """
    with opened_image(path, formats=_LOSSLESS, max_pixels=MAX_LABELS) as image:
        if image.mode not in ("P", "L"):
            raise InputError(
                f"expected labels, as a palette or grey image of 8 bits, found mode {image.mode}"
            )
        check_size((image.height, image.width), image_hw)
        labels = np.array(image)
    wrong = np.unique(labels[(labels >= count) & (labels != VOID)])
    if wrong.size:
        raise InputError(
            f"{path}: expected labels 0 to {count - 1}, and {VOID} for void, "
            f"found {wrong[:5].tolist()}"
        )
    return labels


def check_size(map_hw: tuple[int, int], image_hw: tuple[int, int] | None) -> None:
    """Refuse a map of another size than its image; the caller names the file.

    Raises:
        InputError: The sizes differ.
    """
    if image_hw is not None and map_hw != image_hw:
        raise InputError(
            f"expected the size of its image, {image_hw} pixels (height, width); "
            f"its mask has {map_hw}"
        )


def class_masks(
    labels: UInt8[np.ndarray, "H W"], background: int | None
) -> tuple[Bool[np.ndarray, "G H W"], Int64[np.ndarray, " G"]]:
    """Split a label map into one mask per class.

    Args:
        labels: Class of each pixel, `VOID` where there is none.
        background: A label that gets no mask.

    Returns:
        Masks, and the label of each, ascending.

    Raises:
        InputError: The masks would have more than 2^28 pixels together.
    """
    present = np.setdiff1d(np.unique(labels), [VOID, *([] if background is None else [background])])
    if len(present) * labels.size > _MAX_SPLIT:
        raise InputError(
            f"labels: expected masks of {_MAX_SPLIT} pixels together at most, found "
            f"{len(present)} labels in {labels.shape[0]} x {labels.shape[1]} pixels"
        )
    return labels == present[:, None, None], present.astype(np.int64)


def truth_masks(
    labels: UInt8[np.ndarray, "H W"],
    objects: UInt8[np.ndarray, "H W"] | None,
    background: int | None,
) -> tuple[Bool[np.ndarray, "G H W"], Int64[np.ndarray, " G"]]:
    """Split an image into one mask per class, or one mask per object.

    Args:
        labels: The class of each pixel.
        objects: The object of each pixel, from 1, and 0 for background; `None` for classes.
        background: As for `class_masks`. If `None`, the background has a mask, too.

    Returns:
        Masks without void pixels, and the label of each: the commonest of its pixels.

    Raises:
        InputError: The maps differ in size, or as `class_masks`.
    """
    if objects is None:
        return class_masks(labels, background)
    if labels.shape != objects.shape:
        raise InputError(f"labels of {labels.shape} and objects of {objects.shape} do not agree")
    objects = np.where(labels == VOID, np.uint8(VOID), objects)
    masks, _ = class_masks(objects, None if background is None else 0)
    return masks, np.array([np.bincount(labels[mask]).argmax() for mask in masks], np.int64)
