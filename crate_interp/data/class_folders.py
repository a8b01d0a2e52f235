"""Images whose class is the folder that they are in: FOLDER/CLASS/image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import TypeVar

from crate_interp.data.coco import ImageRecord, ImageSet
from crate_interp.data.folders import ImageFile, search_folder
from crate_interp.data.image_files import image_suffixes
from crate_interp.data.image_sets import number_images
from crate_interp.data.stored import StoredImage
from crate_interp.errors import InputError
from crate_interp.files import is_folder

__all__ = ["ClassFolders", "classes_by_folder", "classes_by_name", "open_class_folders"]

Image = TypeVar("Image", ImageFile, ImageRecord)


@dataclass(frozen=True, kw_only=True)
class ClassFolders(ImageSet):
    """Images of one class each, such as their folder: the first of each class, then the second, ...

    Attributes:
        classes: Names of the classes, sorted.
        labels: Index into `classes` of each image, by its id.
    """

    classes: tuple[str, ...]
    labels: Mapping[int, int]


def open_class_folders(folder: Path, recursive: bool = False) -> ClassFolders | None:
    """Open a folder of class folders, `None` if it is none: if images lie directly in it.

    Hidden folders are no classes.

    Args:
        folder: Folder that holds the class folders.
        recursive: Search the folders in the class folders, too.

    Raises:
        InputError: The folder cannot be read, or a class folder holds no image.
    """
    try:
        entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from None
    subfolders = [entry.name for entry in entries if is_folder(entry)]
    if not subfolders or any(entry.suffix.lower() in image_suffixes() for entry in entries):
        return None
    by_class: dict[str, list[ImageFile]] = {name: [] for name in subfolders}
    for image in search_folder(folder, math.inf if recursive else 2):
        by_class[Path(image.name).parts[0]].append(image)
    empty = [name for name in subfolders if not by_class[name]]
    if empty:
        search_folder(folder / empty[0])  # says what it holds instead
        raise InputError(f"{folder / empty[0]}: the same folder as another class")
    labels = {name: label for label, name in enumerate(subfolders)}
    in_turn = _in_turn(by_class)
    records = number_images(in_turn)
    return ClassFolders(
        folder.absolute().name,
        records,
        classes=tuple(subfolders),
        labels={
            record.image_id: labels[Path(image.name).parts[0]]
            for record, image in zip(records, in_turn, strict=True)
        },
    )


def classes_by_folder(images: ImageSet) -> ClassFolders:
    """Class images by the names of the folders that they are in, whatever place they came from.

    Args:
        images: Images; those of a tar file are in its folders.
    """
    by_class: dict[str, list[ImageRecord]] = {}
    for record in images.records:
        path = record.path.whole_path if isinstance(record.path, StoredImage) else record.path
        by_class.setdefault(path.absolute().parent.name, []).append(record)
    return classes_by_name(images.name, by_class)


def classes_by_name(name: str, by_class: Mapping[str, Sequence[ImageRecord]]) -> ClassFolders:
    """Make a set of images whose classes are known.

    Args:
        name: Name of the set.
        by_class: Images of each class, by the name of the class.
    """
    by_class = dict(sorted(by_class.items()))
    return ClassFolders(
        name,
        tuple(_in_turn(by_class)),
        classes=tuple(by_class),
        labels={
            record.image_id: label
            for label, records in enumerate(by_class.values())
            for record in records
        },
    )


def _in_turn(by_class: Mapping[str, Sequence[Image]]) -> list[Image]:
    """Put images in an order in which the first ones are of all classes."""
    return [
        image for image in chain.from_iterable(zip_longest(*by_class.values())) if image is not None
    ]
