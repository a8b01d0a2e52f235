"""The built-in sets as images with labels, which are drawn of their annotations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from crate_interp.data.built_in import BUILT_IN_SETS, built_in_name, scenes_folder
from crate_interp.data.class_folders import ClassFolders, classes_by_name
from crate_interp.data.coco import ImageRecord, ImageSet, open_coco, open_split
from crate_interp.data.coco_masks import check_segmentation, draw_segmentation
from crate_interp.data.label_maps import VOID, LabelledKind, LabelledSet
from crate_interp.errors import InputError, shorten

Drawn = list[tuple[dict[str, Any], int | None]]  # annotations with their labels

__all__ = [
    "built_in_kinds",
    "open_built_in_classes",
    "open_built_in_labels",
    "open_labelled_scenes",
    "open_largest_objects",
]


def built_in_kinds() -> dict[str, LabelledKind]:
    """Make the kinds of labelled data sets that the built-in sets are, by name."""
    return {
        name: LabelledKind(
            "",
            partial(_is_named, name),
            lambda data, split: open_built_in_labels(str(data), split),
        )
        for name in BUILT_IN_SETS
    }


def open_built_in_labels(name: str, split: str = "val") -> LabelledSet:
    """Open a built-in set with the classes and objects of its images.

    Args:
        name: Name of the set.
        split: Part of the set; `val` is the set itself.

    Returns:
        The images; label 0 is background, the others are the categories in the order of the
        annotation file. Crowds are void.

    Raises:
        InputError: No such part, or as `open_coco`.
    """
    folder = BUILT_IN_SETS[name].find_folder(split, None)
    return _labelled(open_split(folder, name), f"{BUILT_IN_SETS[name].title}-{split}")


def open_labelled_scenes(split: str = "val", count: int = 64) -> LabelledSet:
    """Open the built-in scenes, drawn where they are not there yet, with their labels.

    Args:
        split: `val` is the set that `demo` stands for everywhere; `train` are others.
        count: Number of scenes.

    Raises:
        InputError: No such split, or as `write_scenes`.
    """
    folder = scenes_folder(split, count=count)
    return _labelled(open_split(folder, "demo"), f"scenes-{split}")


def open_largest_objects(name: str) -> LabelledSet:
    """Open the images of a built-in set that have an object, the largest being the salient one.

    Args:
        name: Name of the set.

    Returns:
        The images; label 1 is the largest object that is no crowd, 0 is background.

    Raises:
        InputError: As `open_coco`.
    """
    images = open_coco(name)
    objects = _largest_objects(images)
    return LabelledSet(
        ImageSet(name, tuple(each for each in images.records if each.image_id in objects)),
        ("background", "salient object"),
        0,
        partial(_draw, {image_id: [(entry, 1)] for image_id, entry in objects.items()}),
    )


def open_built_in_classes(name: str, split: str) -> ClassFolders:
    """Open the images of a built-in set that have an object; the largest one says the class.

    Args:
        name: Name of the set.
        split: Part of the set.

    Raises:
        InputError: No such part, or as `open_coco`.
    """
    images = open_split(BUILT_IN_SETS[name].find_folder(split, None), name)
    objects = _largest_objects(images)
    categories = (images.annotations or {})["categories"]
    names = {category["id"]: str(category.get("name", category["id"])) for category in categories}
    by_class: dict[str, list[ImageRecord]] = defaultdict(list)
    for record in images.records:
        if record.image_id in objects:
            by_class[names[objects[record.image_id]["category_id"]]].append(record)
    return classes_by_name(f"{BUILT_IN_SETS[name].title}-{split}", by_class)


def _largest_objects(images: ImageSet) -> dict[int, dict[str, Any]]:
    """Annotation of the largest object of each image that has one, crowds aside."""
    return {
        image_id: max(things, key=_area)
        for image_id, entries in _annotations_of(images).items()
        if (things := [entry for entry in entries if not _is_crowd(entry)])
    }


def _is_named(name: str, data: Path) -> bool:
    return built_in_name(data) == name


def _labelled(images: ImageSet, name: str) -> LabelledSet:
    categories = (images.annotations or {}).get("categories", ())
    if len(categories) >= VOID:
        raise InputError(f"{name}: expected less than {VOID} categories, found {len(categories)}")
    label_of = {category["id"]: label for label, category in enumerate(categories, start=1)}
    by_class: dict[int, Drawn] = {}
    by_object: dict[int, Drawn] = {}
    for image_id, entries in _annotations_of(images).items():
        by_class[image_id] = [(entry, label_of.get(entry["category_id"])) for entry in entries]
        by_object[image_id] = [(entry, number) for number, entry in enumerate(entries, start=1)]
    return LabelledSet(
        ImageSet(name, images.records),
        ("background", *(str(category.get("name", category["id"])) for category in categories)),
        0,
        partial(_draw, by_class),
        partial(_draw, by_object),
    )


def _annotations_of(images: ImageSet) -> dict[int, list[dict[str, Any]]]:
    """Group the annotations by image."""
    annotations: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in (images.annotations or {})["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    return annotations


def _draw(
    drawn_of: Mapping[int, Drawn], record: ImageRecord, image_hw: tuple[int, int]
) -> UInt8[np.ndarray, "H W"]:
    """Draw a map of labels: crowds as void, then large objects, then small ones over them."""
    drawn: UInt8[np.ndarray, "H W"] = np.zeros(image_hw, np.uint8)
    entries = drawn_of.get(record.image_id, [])
    for entry, label in sorted(entries, key=lambda one: (not _is_crowd(one[0]), -_area(one[0]))):
        try:
            check_segmentation(entry.get("segmentation"), image_hw)
            if label is None or label >= VOID:
                raise InputError(
                    f"expected a category of the file, and less than {VOID} objects, found "
                    f"category {entry['category_id']}, object {label}"
                )
        except InputError as error:
            raise InputError(f"annotation {entry['id']} of {record.path}: {error}") from None
        mask = draw_segmentation(entry["segmentation"], image_hw)
        drawn[mask] = VOID if _is_crowd(entry) else label
    return drawn


def _is_crowd(entry: Mapping[str, Any]) -> bool:
    return bool(entry.get("iscrowd"))


def _area(entry: Mapping[str, Any]) -> float:
    area = entry.get("area")
    if not isinstance(area, (int, float)):
        raise InputError(
            f"annotation {entry['id']}: area: expected a number, found {shorten(area)}"
        )
    return float(area)
