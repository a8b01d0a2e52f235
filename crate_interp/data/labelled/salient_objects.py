"""Sets of images with a mask of the salient object: ECSSD, DUTS, DUT-OMRON and the like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from crate_interp.data.coco import ImageRecord
from crate_interp.data.image_files import opened_image
from crate_interp.data.image_sets import open_images
from crate_interp.data.images import to_rgb
from crate_interp.data.label_files import check_files
from crate_interp.data.label_maps import MAX_LABELS, LabelledKind, LabelledSet, check_size
from crate_interp.errors import InputError
from crate_interp.files import is_folder

__all__ = ["DATASET", "open_saliency"]

_MASKS = ("masks", "ground_truth_mask")  # ECSSD's own name is the latter


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
    image_set = open_images([images], recursive=recursive)
    mask_of = {
        record.image_id: Path(masks) / _below(images, record).with_suffix(".png")
        for record in image_set.records
    }
    check_files(mask_of.values())
    classes = ("background", "salient object")
    return LabelledSet(image_set, classes, 0, partial(_read_salient, mask_of))


def _below(folder: Path, record: ImageRecord) -> Path:
    path = record.path
    if not isinstance(path, Path):
        return Path(record.file_name)
    return path.relative_to(folder) if path.is_relative_to(folder) else Path(path.name)


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


def _open_folder(data: Path, _: str) -> LabelledSet:
    """Open images and masks of a folder: one part only, whatever the split is called."""
    masks = next((data / name for name in _MASKS if is_folder(data / name)), data / _MASKS[0])
    salient = open_saliency(data / "images", masks)
    return replace(salient, images=replace(salient.images, name=data.absolute().name))


DATASET = LabelledKind(
    "images/ and masks/ (or ground_truth_mask/) of salient objects",
    lambda data: is_folder(data / "images") and any(is_folder(data / name) for name in _MASKS),
    _open_folder,
)
