"""PASCAL VOC, ADE20K, sets of salient objects and the built-in scenes as images with labels."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from crate_interp.data.coco import ImageRecord, ImageSet, data_folder
from crate_interp.data.coco_masks import check_segmentation, draw_segmentation
from crate_interp.data.folders import find_images
from crate_interp.data.image_files import opened_image
from crate_interp.data.image_sets import numbered, open_images
from crate_interp.data.images import to_rgb
from crate_interp.data.label_maps import (
    MAX_LABELS,
    VOID,
    LabelledSet,
    check_size,
    read_label_map,
)
from crate_interp.data.scene_categories import CATEGORIES
from crate_interp.data.scenes import write_scenes
from crate_interp.errors import InputError, shorten
from crate_interp.files import is_file, is_folder

__all__ = [
    "VOC_CLASSES",
    "open_ade20k",
    "open_labelled",
    "open_labelled_scenes",
    "open_saliency",
    "open_voc",
]

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)
ADE20K_CLASSES = 150
SCENES = 64
_LARGEST_LIST = 2**24  # bytes; those of VOC and ADE20K are of 20,000 and less
_SCENE_SEEDS = {"val": 0, "train": 2}  # 0: the demo set of `open_coco`; 1 trained the demo models


def open_labelled(data: Path, split: str) -> LabelledSet:
    """Open a VOC folder, an ADE20K folder, or the built-in scenes.

    Args:
        data: Folder with `ImageSets` (VOC) or with `annotations` (ADE20K); `demo`, where there is
            no such folder, for the scenes.
        split: As the data have it: `val` or `train` (VOC, scenes), `validation` or `training`
            (ADE20K, which is also known by the short names).

    Raises:
        InputError: It is none of these, or as the function of its kind.
    """
    if data == Path("demo") and not data.exists():
        return open_labelled_scenes(split)
    if not is_folder(data):
        raise InputError(f"{data}: no such folder")
    if is_folder(data / "ImageSets"):
        return open_voc(data, split)
    if is_folder(data / "annotations"):
        return open_ade20k(data, {"val": "validation", "train": "training"}.get(split, split))
    raise InputError(
        f"{data}: expected ImageSets/, JPEGImages/ and SegmentationClass/ as in VOC, or images/ "
        "and annotations/ as in ADE20K"
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
    listing = root / "ImageSets" / "Segmentation" / f"{_plain(split)}.txt"
    names = _listed(listing)
    records = _records(root / "JPEGImages" / f"{name}.jpg" for name in names)
    _all_there((record.path for record in records), listing)
    by_class, by_object = root / "SegmentationClass", root / "SegmentationObject"
    _all_there((by_class / f"{name}.png" for name in names), listing)
    if is_folder(by_object):
        _all_there((by_object / f"{name}.png" for name in names), listing)
    return LabelledSet(
        ImageSet(f"{root.absolute().name}-{split}", records),
        VOC_CLASSES,
        0,
        partial(_read_beside, by_class, len(VOC_CLASSES)),
        partial(_read_beside, by_object, VOID) if is_folder(by_object) else None,
    )


def open_ade20k(root: Path, split: str = "validation") -> LabelledSet:
    """Open the scene parsing part of ADE20K, or any set of its layout with 150 classes at most.

    In its masks 0 is void, and the classes are numbered from 1. Here they are numbered from 0.

    Args:
        root: Folder of `images/<split>` and `annotations/<split>`; `objectInfo150.txt` names the
            classes, if it is there.
        split: `validation` or `training`.

    Returns:
        The images sorted by name, numbered from 1. No class is background.

    Raises:
        InputError: There is no image, or a mask is missing.

    Reference:
        Zhou et al., Scene Parsing through ADE20K Dataset (CVPR 2017).
    """
    root = Path(root)
    masks = root / "annotations" / _plain(split)
    records = numbered(find_images([root / "images" / split]))
    _all_there(masks / f"{record.path.stem}.png" for record in records)
    return LabelledSet(
        ImageSet(f"{root.absolute().name}-{split}", records),
        _ade20k_classes(root / "objectInfo150.txt"),
        None,
        partial(_read_ade20k, masks),
    )


def open_saliency(images: Path, masks: Path, recursive: bool = False) -> LabelledSet:
    """Open images with a mask of the salient object, as ECSSD, DUTS and DUT-OMRON have them.

    Args:
        images: Folder of the images.
        masks: Folder of their masks, `<name>.png`, grey above 127 being the object.
        recursive: Search the folders in the folder of the images, too; the masks lie in folders
            of the same names.

    Returns:
        The images sorted by name, numbered from 1; label 1 is the object, 0 is background.

    Raises:
        InputError: There is no image, or a mask is missing.
    """
    found = open_images([images], recursive=recursive)
    mask_of = {
        record.image_id: Path(masks) / _below(images, record.path).with_suffix(".png")
        for record in found.records
    }
    _all_there(mask_of.values())
    return LabelledSet(found, ("background", "salient object"), 0, partial(_read_salient, mask_of))


def open_labelled_scenes(split: str = "val", count: int = SCENES) -> LabelledSet:
    """Open the built-in scenes, drawn where they are not there yet, with their labels.

    Args:
        split: `val` is the set that `demo` stands for everywhere; `train` are others.
        count: Number of scenes.

    Raises:
        InputError: No such split, or as `write_scenes`.
    """
    if split not in _SCENE_SEEDS:
        raise InputError(
            f"split: expected one of {list(_SCENE_SEEDS)} of the scenes, found {split}"
        )
    folder = data_folder() / ("scenes" if split == "val" else f"scenes-{split}")
    write_scenes(folder, count, _SCENE_SEEDS[split])
    images = open_images([folder / "demo"], folder / "annotations" / "instances_demo.json")
    annotations: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in (images.annotations or {})["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    return LabelledSet(
        ImageSet(f"scenes-{split}", images.records),
        ("background", *(category.name for category in CATEGORIES)),
        0,
        partial(_draw_annotations, annotations, "category_id"),
        partial(_draw_annotations, annotations, None),
    )


def _plain(split: str) -> str:
    if not re.fullmatch(r"[\w.+-]{1,100}", split) or not split.strip("."):
        raise InputError(f"split: expected a name such as val, found {shorten(split)}")
    return split


def _listed(path: Path) -> list[str]:
    """Names of images, one a line."""
    names = _text(path).split()
    twice = len(names) != len(set(names))
    if twice or not names or any(Path(name).name != name or name == ".." for name in names):
        found = "none" if not names else "one twice" if twice else "a path"
        raise InputError(f"{path}: expected names of images, one a line, found {found}")
    return names


def _text(path: Path) -> str:
    """The content of a list, which is no large file."""
    try:
        if path.stat().st_size > _LARGEST_LIST:
            raise InputError(f"{path}: expected a list of at most {_LARGEST_LIST} bytes")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file (UTF-8)"
        raise InputError(f"{path}: cannot be read: {reason}") from error


def _below(folder: Path, path: Path) -> Path:
    return path.relative_to(folder) if path.is_relative_to(folder) else Path(path.name)


def _records(paths: Iterable[Path]) -> tuple[ImageRecord, ...]:
    return tuple(ImageRecord(number, path.name, path) for number, path in enumerate(paths, 1))


def _all_there(paths: Iterable[Path], listing: Path | None = None) -> None:
    """Refuse missing files; `listing` is the list that names them, if there is one."""
    missing = [path for path in paths if not is_file(path)]
    if missing:
        named = f"{listing}: names what is not there: " if listing else ""
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{named}{missing[0]}: no such file{more}")


def _read_beside(
    folder: Path, count: int, record: ImageRecord, image_hw: tuple[int, int]
) -> UInt8[np.ndarray, "H W"]:
    return read_label_map(folder / f"{record.path.stem}.png", count, image_hw)


def _read_ade20k(
    folder: Path, record: ImageRecord, image_hw: tuple[int, int]
) -> UInt8[np.ndarray, "H W"]:
    labels = _read_beside(folder, ADE20K_CLASSES + 1, record, image_hw)
    labels[labels != VOID] -= 1  # 0 becomes VOID
    return labels


def _read_salient(
    mask_of: Mapping[int, Path], record: ImageRecord, image_hw: tuple[int, int]
) -> UInt8[np.ndarray, "H W"]:
    path = mask_of[record.image_id]
    with opened_image(path, max_pixels=MAX_LABELS) as image:
        grey = to_rgb(image)[:, :, 0]
        check_size((grey.shape[0], grey.shape[1]), image_hw)
    if 0 < grey.max() <= 127:
        raise InputError(
            f"{path}: expected a mask of black and white (255), found no value above {grey.max()}"
        )
    return (grey > 127).astype(np.uint8)


def _ade20k_classes(path: Path) -> tuple[str, ...]:
    if not is_file(path):
        return tuple(f"class {number}" for number in range(1, ADE20K_CLASSES + 1))
    rows = [line.split("\t") for line in _text(path).splitlines()[1:]]
    if len(rows) != ADE20K_CLASSES:
        raise InputError(
            f"{path}: expected a heading and {ADE20K_CLASSES} classes, found {len(rows)}"
        )
    return tuple(row[-1].split(",")[0].strip() for row in rows)


def _draw_annotations(
    annotations: Mapping[int, list[dict[str, Any]]],
    key: str | None,
    record: ImageRecord,
    image_hw: tuple[int, int],
) -> UInt8[np.ndarray, "H W"]:
    """A map of what the annotations hold under a key, or of their numbers from 1."""
    drawn: UInt8[np.ndarray, "H W"] = np.zeros(image_hw, np.uint8)
    highest = len(CATEGORIES) if key else VOID - 1
    for number, entry in enumerate(annotations[record.image_id], start=1):
        value = entry[key] if key else number
        try:
            check_segmentation(entry.get("segmentation"), image_hw)
            if not 1 <= value <= highest:
                raise InputError(f"expected a label from 1 to {highest}, found {shorten(value)}")
        except InputError as error:
            raise InputError(f"annotation {entry['id']} of {record.path}: {error}") from None
        drawn[draw_segmentation(entry["segmentation"], image_hw)] = value
    return drawn
