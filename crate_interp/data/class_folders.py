"""Folders of class folders: FOLDER/CLASS/picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from crate_interp.data.coco import ImageRecord, ImageSet
from crate_interp.data.images import IMAGE_SUFFIXES, list_images

__all__ = ["ClassFolders", "open_class_folders"]


@dataclass(frozen=True)
class ClassFolders:
    """Images whose class is known by their folder.

    Attributes:
        images: The first of each class, then the second of each, and so on.
        classes: Names of the class folders, sorted.
        labels: Index into `classes` of each image, by its id.
    """

    images: ImageSet
    classes: tuple[str, ...]
    labels: Mapping[int, int]


def open_class_folders(folder: Path) -> ClassFolders | None:
    """Open a folder of class folders, `None` if it is none: if images lie directly in it.

    Hidden folders are no classes.

    Raises:
        InputError: A class folder holds no image.
    """
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    subfolders = [entry for entry in entries if entry.is_dir()]
    if not subfolders or any(entry.suffix.lower() in IMAGE_SUFFIXES for entry in entries):
        return None
    by_class = [
        [(label, path) for path in list_images([subfolder])]
        for label, subfolder in enumerate(subfolders)
    ]
    # In turn, so that the first images of the set are of all classes.
    in_turn = [item for item in chain.from_iterable(zip_longest(*by_class)) if item is not None]
    records = tuple(
        ImageRecord(number, f"{path.parent.name}/{path.name}", path)
        for number, (_, path) in enumerate(in_turn, start=1)
    )
    return ClassFolders(
        ImageSet(folder.absolute().name, records),
        tuple(subfolder.name for subfolder in subfolders),
        {number: label for number, (label, _) in enumerate(in_turn, start=1)},
    )
