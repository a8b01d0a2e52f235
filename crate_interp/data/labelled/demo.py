"""The built-in scenes as images with labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from crate_interp.data.coco import ImageRecord, ImageSet, data_folder
from crate_interp.data.coco_masks import check_segmentation, draw_segmentation
from crate_interp.data.image_sets import open_images
from crate_interp.data.label_maps import VOID, LabelledKind, LabelledSet
from crate_interp.data.scene_categories import CATEGORIES
from crate_interp.data.scenes import write_scenes
from crate_interp.errors import InputError, shorten

__all__ = ["DATASET", "open_labelled_scenes"]

SCENES = 64
_SCENE_SEEDS = {"val": 0, "train": 2}  # 0: the demo set of `open_coco`; 1 trained the demo models


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


DATASET = LabelledKind(
    "",
    lambda data: data == Path("demo") and not data.exists(),
    lambda _, split: open_labelled_scenes(split),
)
