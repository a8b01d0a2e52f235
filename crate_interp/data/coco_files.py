"""COCO annotation files, read as a declared type and bounded before anything is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

import msgspec
import numpy as np

from crate_interp.data.rle import MAX_PIXELS
from crate_interp.errors import InputError, shorten
from crate_interp.files import checked_as, read_json_as

__all__ = [
    "CocoAnnotation",
    "CocoCategory",
    "CocoFile",
    "CocoImage",
    "Id",
    "check_coco",
    "checked_values",
    "read_coco",
    "source_of",
]

MAX_SIDE = 1 << 16  # of an image, pixels

Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # numpy sorts them as int64
Side = Annotated[int, msgspec.Meta(ge=1, le=MAX_SIDE)]


class CocoCategory(TypedDict):
    """A category; other keys are left alone."""

    id: Id


class CocoImage(CocoCategory, total=False):
    """An image, with height and width in pixels, or neither."""

    height: Side
    width: Side


class CocoAnnotation(TypedDict):
    """An annotation, as far as every user of it relies on it."""

    id: Id
    image_id: Id
    category_id: Id


class _RequiredSections(TypedDict):
    images: list[CocoImage]
    annotations: list[CocoAnnotation]


class _Content(_RequiredSections, total=False):
    categories: list[CocoCategory]


class CocoFile(dict[str, Any]):
    """Content of a COCO annotation file: a dictionary that knows the name of its file."""

    def __init__(self, content: Mapping[str, Any], path: Path) -> None:
        super().__init__(content)
        self.path = path


def read_coco(path: Path) -> CocoFile:
    """Read a COCO annotation file of instances, and check it as `check_coco` does.

    Raises:
        InputError: The file cannot be read, is no JSON, or is malformed.
    """
    coco = CocoFile(read_json_as(path, dict[str, Any]), Path(path))
    check_coco(coco, source_of(coco))
    return coco


def source_of(coco: Any) -> str:
    """Name what a ground truth was read from, for messages."""
    return str(coco.path) if isinstance(coco, CocoFile) else "ground truth"


def check_coco(coco: Any, source: str, kind: Any = _Content) -> dict[str, Any]:
    """Check what every user of COCO instance annotations relies on.

    That is: unique integer `id` and positive `height` and `width` (both or neither) of every
    image; unique `id`, known `image_id` and integer `category_id` of every annotation; unique
    `id` of every category. Integers have 64 bits at most; an image has 65,536 pixels a side and
    2^29 together, at most.

    Args:
        coco: Content of an annotation file.
        source: Name of the file, for messages.
        kind: A `TypedDict` of `images`, `annotations` and, maybe, `categories`, whose entries have
            the keys of `CocoImage`, `CocoAnnotation` and `CocoCategory`, or more.

    Returns:
        A copy, reduced to the keys of the type.

    Raises:
        InputError: The message names the source, the entry, and the key.
    """
    content: dict[str, Any] = checked_values(coco, kind, source)
    image_ids = _unique_ids(content["images"], f"{source}: images")
    for number, image in enumerate(content["images"]):
        where = f"{source}: images[{number}]"
        if ("height" in image) != ("width" in image):
            key = "width" if "height" in image else "height"
            raise InputError(f"{where}: {key}: expected a positive integer, found no such key")
        if "height" in image and image["height"] * image["width"] > MAX_PIXELS:
            raise InputError(
                f"{where}: expected at most {MAX_PIXELS} pixels, found {image['height']} x "
                f"{image['width']} of them"
            )
    _unique_ids(content["annotations"], f"{source}: annotations")
    for number, annotation in enumerate(content["annotations"]):
        if annotation["image_id"] not in image_ids:
            raise InputError(
                f"{source}: annotations[{number}]: image_id {annotation['image_id']} is not among "
                "the images"
            )
    _unique_ids(content.get("categories", ()), f"{source}: categories")
    return content


def checked_values(value: Any, kind: Any, source: str) -> Any:
    """Check that a Python value is of a type, as `checked_as`; numbers may be numpy's.

    Raises:
        InputError: The value does not fit the type.
    """
    try:
        return checked_as(value, kind, source)
    except InputError:  # numpy's numbers and arrays, which msgspec does not know; or truly wrong
        return checked_as(_plain(value, source), kind, source)


def _plain(value: Any, source: str) -> Any:
    def plain(part: Any) -> Any:
        if isinstance(part, (np.generic, np.ndarray)):
            return part.tolist()
        if isinstance(part, Mapping):
            return dict(part)
        raise InputError(f"{source}: expected what a JSON file holds, found {shorten(part)}")

    try:
        return msgspec.to_builtins(value, builtin_types=(bytes, bytearray), enc_hook=plain)
    except (TypeError, ValueError, RecursionError) as error:  # keys that are no texts; too deep
        if isinstance(error, InputError):
            raise
        raise InputError(f"{source}: expected what a JSON file holds: {error}") from None


def _unique_ids(entries: Sequence[Mapping[str, Any]], source: str) -> set[int]:
    seen: set[int] = set()
    for number, entry in enumerate(entries):
        if entry["id"] in seen:
            raise InputError(f"{source}[{number}]: id {entry['id']} is not unique")
        seen.add(entry["id"])
    return seen
