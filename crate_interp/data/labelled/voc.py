"""PASCAL VOC 2012, and sets of its layout and classes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from crate_interp.data.coco import ImageRecord, ImageSet
from crate_interp.data.label_files import check_files, check_split, read_beside, read_list
from crate_interp.data.label_maps import VOID, LabelledKind, LabelledSet
from crate_interp.errors import InputError
from crate_interp.files import is_folder

__all__ = ["DATASET", "VOC_CLASSES", "open_voc"]

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)


def open_voc(root: Path, split: str = "val") -> LabelledSet:
    """Open the segmentation part of PASCAL VOC 2012, or of any set of its layout and classes.

    Args:
        root: Folder of `JPEGImages`, `SegmentationClass`, `ImageSets/Segmentation` and, if there
            are any, `SegmentationObject`.
        split: A list of names, `ImageSets/Segmentation/<split>.txt`.

    Returns:
        The images in the order of the list, numbered from 1; classes as `VOC_CLASSES`.

    Raises:
        InputError: The list is missing, empty, or names an image twice, or a listed image or its
            mask is missing.

    Reference:
        Everingham et al., The PASCAL Visual Object Classes Challenge: A Retrospective (IJCV 2015).
    """
    root = Path(root)
    listing = root / "ImageSets" / "Segmentation" / f"{check_split(split)}.txt"
    names = _listed(listing)
    paths = [root / "JPEGImages" / f"{name}.jpg" for name in names]
    records = tuple(ImageRecord(number, path.name, path) for number, path in enumerate(paths, 1))
    check_files(paths, listing)
    by_class, by_object = root / "SegmentationClass", root / "SegmentationObject"
    check_files((by_class / f"{name}.png" for name in names), listing)
    if is_folder(by_object):
        check_files((by_object / f"{name}.png" for name in names), listing)
    return LabelledSet(
        ImageSet(f"{root.absolute().name}-{split}", records),
        VOC_CLASSES,
        0,
        partial(read_beside, by_class, len(VOC_CLASSES)),
        partial(read_beside, by_object, VOID) if is_folder(by_object) else None,
    )


def _listed(path: Path) -> list[str]:
    """Read names of images, one per line."""
    names = read_list(path).split()
    twice = len(names) != len(set(names))
    if twice or not names or any(Path(name).name != name or name == ".." for name in names):
        instead = "none" if not names else "one twice" if twice else "a path"
        raise InputError(f"{path}: expected names of images, one a line, found {instead}")
    return names


DATASET = LabelledKind(
    "ImageSets/, JPEGImages/ and SegmentationClass/ as in VOC",
    lambda data: is_folder(data / "ImageSets"),
    open_voc,
)
