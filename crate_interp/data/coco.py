"""Sets of images, with COCO annotations or without."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from jaxtyping import UInt8

from crate_interp.data.built_in import BUILT_IN_SETS
from crate_interp.data.coco_files import read_coco
from crate_interp.data.folders import data_folder
from crate_interp.data.image_files import ImageReadError
from crate_interp.data.images import ResizedImage, read_image, resize_image
from crate_interp.data.stored import StoredImage
from crate_interp.errors import InputError, shorten
from crate_interp.files import is_file
from crate_interp.structures import InputSize

__all__ = [
    "ImageRecord",
    "ImageSet",
    "coco_annotation_file",
    "images_by_name",
    "open_coco",
    "open_split",
    "record_of",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of a set; the file may be missing, which reading it will tell.

    Attributes:
        image_id: Number of the image, unique in the set, as the annotations give it.
        file_name: Name in the annotations; else the path from the folder that was searched, or from
            a folder above, where that is needed to tell files apart.
        path: Path of the file, or its place behind a URL or in a tar file.
        hw: Height and width that the annotations give, pixels; `None` without annotations.
        source: The annotation file, for messages; `None` without annotations.
    """

    image_id: int
    file_name: str
    path: Path | StoredImage
    hw: tuple[int, int] | None = None
    source: Path | None = field(default=None, repr=False, compare=False)

    def read(self) -> UInt8[np.ndarray, "H W 3"]:
        """Read the image as `read_image` does.

        Raises:
            InputError: It cannot be read, or has not the size that the annotations give.
        """
        try:
            rgb = read_image(self.path)
        except ImageReadError as error:
            if self.source is None or not isinstance(self.path, Path) or is_file(self.path):
                raise
            raise ImageReadError(f"{error}; it is named in {self.source}") from error
        if self.hw is not None and rgb.shape[:2] != self.hw:
            raise InputError(
                f"{self.path}: {rgb.shape[:2]} pixels (height, width), "
                f"the annotations say {self.hw}" + (f", {self.source}" if self.source else "")
            )
        return rgb

    def read_resized(self, size: InputSize, keep_picture: bool = False) -> ResizedImage:
        """Read the image as `read` does, and resize it as `resize_image` does.

        Args:
            size: Size of a model's input.
            keep_picture: Return the image's own pixels as well.
        """
        rgb = self.read()
        original_hw = (rgb.shape[0], rgb.shape[1])
        resized = resize_image(rgb, size.of(original_hw))
        return ResizedImage(resized, original_hw, rgb if keep_picture else None)


@dataclass(frozen=True)
class ImageSet:
    """The images of a set, and its COCO ground truth if there is any.

    Attributes:
        name: A COCO split, or the name of the folder.
        records: Images, in the order of the annotation file, or of `list_images`.
        annotations: The COCO annotation file as read; it may describe more images.
    """

    name: str
    records: tuple[ImageRecord, ...]
    annotations: dict[str, Any] | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.records)

    def limit(self, count: int | None) -> ImageSet:
        """Keep the first `count` images; all of them for `None`.

        Raises:
            InputError: `count` is below 1.
        """
        if count is not None and count < 1:
            raise InputError(f"limit: expected at least 1 image, found {count}")
        return replace(self, records=self.records[:count])

    def between(self, first: int, last: int) -> ImageSet:
        """Keep the images from the `first` one to the `last`, which are numbered from 1.

        Raises:
            InputError: There is none.
        """
        chosen = self.records[max(first, 1) - 1 : last]
        if not chosen:
            raise InputError(
                f"{self.name}: expected numbers of its {len(self)} images, found {first} to {last}"
            )
        return replace(self, records=chosen)


def coco_annotation_file(split: str, root: Path | None = None) -> Path:
    """Find `<root>/annotations/instances_<split>.json`.

    Args:
        split: val2017, train2017, or any other of the same naming; or the name of a built-in set.
            The scenes of demo are drawn if they are not there yet.
        root: Folder of the splits; if not given, `data_folder()/coco`, or the folder of the
            built-in set.

    Raises:
        InputError: The split is no plain name, or the file is missing.
    """
    if not re.fullmatch(r"\w[\w.-]*", split):
        raise InputError(f"COCO split: expected a name such as val2017, found {shorten(split)}")
    if split in BUILT_IN_SETS:
        root = BUILT_IN_SETS[split].find_folder("val", None if root is None else Path(root))
    elif root is None:
        root = data_folder() / "coco"
    return _annotation_file(Path(root), split)


def open_coco(split: str, root: Path | None = None) -> ImageSet:
    """Open a split of COCO: `<root>/<split>/*.jpg` and its instance annotations.

    Args:
        split: As for `coco_annotation_file`.
        root: As for `coco_annotation_file`.

    Returns:
        Every image of the annotation file, whether its file is there or not.

    Raises:
        InputError: Images or annotations are missing or malformed, or a `file_name` leads
            outside the folder of the images.
    """
    return open_split(coco_annotation_file(split, root).parent.parent, split)


def open_split(root: Path, split: str) -> ImageSet:
    """Open `<root>/<split>/` and `<root>/annotations/instances_<split>.json`, as `open_coco`."""
    annotation_file, folder = _annotation_file(root, split), root / split
    if not folder.is_dir() or next(folder.iterdir(), None) is None:
        raise InputError(f"{folder}: expected the images of {split}; {_how_to_get(split)}")
    coco = read_coco(annotation_file)
    inside = folder.resolve()
    records = []
    for file_name, image in images_by_name(coco, annotation_file).items():
        path = folder / file_name
        if not path.resolve().is_relative_to(inside):  # a symbolic link may lead anywhere
            raise InputError(
                f"{annotation_file}: file_name {shorten(file_name)} leads outside {folder}"
            )
        records.append(record_of(image, path, annotation_file))
    return ImageSet(split, tuple(records), coco)


def images_by_name(coco: Mapping[str, Any], source: Path) -> dict[str, dict[str, Any]]:
    """Entries of the images of an annotation file by their `file_name`.

    Raises:
        InputError: A `file_name` is missing, is not unique, or leads outside its folder.
    """
    by_name: dict[str, dict[str, Any]] = {}
    for number, image in enumerate(coco["images"]):
        where, name = f"{source}: images[{number}]", image.get("file_name")
        if not isinstance(name, str) or not name.strip("./\\") or "\0" in name:
            raise InputError(
                f"{where}: file_name: expected the name of a file, found {shorten(name)}"
            )
        as_windows = PureWindowsPath(name)  # splits at both kinds of slash
        if as_windows.anchor or ".." in as_windows.parts:
            raise InputError(
                f"{where}: file_name {shorten(name)} leads outside the folder of the images"
            )
        if name in by_name:
            raise InputError(f"{where}: file_name {shorten(name)} is not unique")
        by_name[name] = image
    return by_name


def record_of(image: Mapping[str, Any], path: Path | StoredImage, source: Path) -> ImageRecord:
    """The record of an image that `source` annotates, whose file lies at `path`."""
    hw = (image["height"], image["width"]) if "height" in image else None
    return ImageRecord(image["id"], image["file_name"], path, hw, source)


def _annotation_file(root: Path, split: str) -> Path:
    path = root / "annotations" / f"instances_{split}.json"
    if not path.is_file():
        raise InputError(f"{path}: no such annotation file; {_how_to_get(split)}")
    return path


def _how_to_get(split: str) -> str:
    if split in BUILT_IN_SETS:
        return "the built-in set of this name needs no folder: leave --coco-root out"
    return (
        f"fetch them with `crate-interp download coco-{split}`, or name the folder that holds "
        f"{split}/ and annotations/ with --coco-root"
    )
