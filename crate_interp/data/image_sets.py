"""Image files, folders and other places as a set, with annotations or without."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from crate_interp.data.coco import ImageRecord, ImageSet, images_by_name, record_of
from crate_interp.data.coco_files import read_coco
from crate_interp.data.folders import ImageFile
from crate_interp.data.places import find_images
from crate_interp.data.stored import StoredImage, is_url, path_in
from crate_interp.errors import InputError, shorten

__all__ = ["number_images", "open_images"]

logger = logging.getLogger(__name__)


def open_images(
    paths: Iterable[str | Path], annotations: Path | None = None, recursive: bool = False
) -> ImageSet:
    """Open files, folders and other places as a set, as `find_images` finds them.

    Without annotations, the `file_name` of an image is its path from the folder that was searched;
    if two would be the same, all are paths from the folder that all images have in common. The ids
    follow from the order alone: the same names in the same order have the same ids, wherever they
    are.

    Args:
        paths: Image files, folders, tar files, lists, patterns and URLs; see `find_images`.
        annotations: COCO annotation file. An image belongs to the entry whose `file_name` is the
            end of its path; annotated images not among the paths are left out, and logged. If a
            `file_name` has folders in it, folders are searched as with `recursive`.
        recursive: Search the folders in the folders, too. Images in them that are not annotated
            are left out, and logged, where there are annotations.

    Returns:
        The images with the ids of the annotation file, or numbered from 1 without one.

    Raises:
        InputError: There is no image, an image is not in the annotations, two belong to one entry,
            or the annotations are malformed or lead outside the folder of the images.
    """
    sources = [str(path) for path in paths]
    name = _name_of(sources[0]) if len(sources) == 1 else "images"
    if annotations is None:
        return ImageSet(name, number_images(find_images(sources, recursive)))
    coco = read_coco(annotations)
    by_name = images_by_name(coco, annotations)
    # Separators as on Windows, and a leading "./", are taken for what they mean.
    entries = {name.replace("\\", "/").removeprefix("./"): by_name[name] for name in by_name}
    images = find_images(sources, recursive or any("/" in file_name for file_name in entries))
    matched = _match(images, entries | by_name, annotations)
    left_out = len(coco["images"]) - len(matched)
    if left_out:
        logger.warning("%s: %d images are not among the paths; left out", annotations, left_out)
    return ImageSet(name, tuple(matched), coco)


def number_images(images: Sequence[ImageFile]) -> tuple[ImageRecord, ...]:
    """Number images from 1, and name them as `open_images` says."""
    names = [image.name for image in images]
    if len(set(names)) < len(names):
        whole = [Path(os.path.normpath(_whole_path(image.path))) for image in images]
        common = Path(os.path.commonpath([path.parent for path in whole]))
        names = [path.relative_to(common).as_posix() for path in whole]
    # A name that is not UTF-8 could not be written as JSON that other programs read.
    names = [name.encode("utf-8", "backslashreplace").decode() for name in names]
    return tuple(
        ImageRecord(number, name, image.path)
        for number, (name, image) in enumerate(zip(names, images, strict=True), start=1)
    )


def _name_of(place: str) -> str:
    if is_url(place):
        return PurePosixPath(path_in(place)).name or "images"
    return Path(place).absolute().name


def _whole_path(path: Path | StoredImage) -> Path:
    return path.whole_path if isinstance(path, StoredImage) else path.absolute()


def _match(
    images: Sequence[ImageFile], entries: Mapping[str, dict[str, Any]], annotations: Path
) -> list[ImageRecord]:
    """The records of the images that are annotated; of those in folders, others are left out."""
    matched: dict[str, ImageRecord] = {}
    left_out = 0
    for path, name in images:
        parts = _whole_path(path).parts
        ends = ("/".join(parts[start:]) for start in range(1, len(parts)))
        entry = next((entries[end] for end in ends if end in entries), None)
        if entry is None:
            if "/" not in name:
                raise InputError(f"{path}: not among the images of {annotations}")
            left_out += 1
            continue
        file_name = entry["file_name"]
        if file_name in matched:
            raise InputError(
                f"{path} and {matched[file_name].path} are both {shorten(file_name)} "
                f"of {annotations}"
            )
        matched[file_name] = record_of(entry, path, annotations)
    if not matched:
        raise InputError(f"{images[0].path}: not among the images of {annotations}, as all others")
    if left_out:
        logger.warning(
            "%s: %d images in folders are not annotated; left out", annotations, left_out
        )
    return list(matched.values())
