"""The scene parsing part of ADE20K, and sets of its layout."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from crate_interp.data.coco import ImageRecord, ImageSet
from crate_interp.data.image_sets import number_images
from crate_interp.data.label_files import check_files, check_split, read_beside, read_list
from crate_interp.data.label_maps import VOID, LabelledKind, LabelledSet
from crate_interp.data.places import find_images
from crate_interp.errors import InputError
from crate_interp.files import is_file, is_folder

__all__ = ["DATASET", "open_ade20k"]

ADE20K_CLASSES = 150
_SPLITS = {"val": "validation", "train": "training"}


def open_ade20k(root: Path, split: str = "validation") -> LabelledSet:
    """Open the scene parsing part of ADE20K, or any set of its layout with 150 classes at most.

    In its masks 0 is void, and the classes are numbered from 1. Here they are numbered from 0.

    Args:
        root: Folder of `images/<split>` and `annotations/<split>`; `objectInfo150.txt` names the
            classes, if it is there.
        split: `validation` or `training`, for short `val` or `train`.

    Returns:
        The images sorted by name, numbered from 1. No class is background.

    Raises:
        InputError: There is no image, or a mask is missing.

    Reference:
        Zhou et al., Scene Parsing through ADE20K Dataset (CVPR 2017).
    """
    root, split = Path(root), _SPLITS.get(split, split)
    masks = root / "annotations" / check_split(split)
    records = number_images(find_images([root / "images" / split]))
    check_files(masks / f"{record.path.stem}.png" for record in records)
    return LabelledSet(
        ImageSet(f"{root.absolute().name}-{split}", records),
        _ade20k_classes(root / "objectInfo150.txt"),
        None,
        partial(_read_ade20k, masks),
    )


def _read_ade20k(
    folder: Path, record: ImageRecord, image_hw: tuple[int, int]
) -> UInt8[np.ndarray, "H W"]:
    labels = read_beside(folder, ADE20K_CLASSES + 1, record, image_hw)
    labels[labels != VOID] -= 1  # 0 becomes VOID
    return labels


def _ade20k_classes(path: Path) -> tuple[str, ...]:
    if not is_file(path):
        return tuple(f"class {number}" for number in range(1, ADE20K_CLASSES + 1))
    rows = [line.split("\t") for line in read_list(path).splitlines()[1:]]
    if len(rows) != ADE20K_CLASSES:
        raise InputError(
            f"{path}: expected a heading and {ADE20K_CLASSES} classes, found {len(rows)}"
        )
    return tuple(row[-1].split(",")[0].strip() for row in rows)


DATASET = LabelledKind(
    "images/ and annotations/ as in ADE20K",
    lambda data: is_folder(data / "annotations"),
    open_ade20k,
)
