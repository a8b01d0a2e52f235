"""Common parts of the folders of labelled data sets: lists of names, masks beside images."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from crate_interp.data.coco import ImageRecord
from crate_interp.data.label_maps import read_label_map
from crate_interp.errors import InputError, shorten
from crate_interp.files import is_file, read_bytes

__all__ = ["check_files", "check_split", "read_beside", "read_list"]

_LARGEST_LIST = 2**24  # bytes; those of VOC and ADE20K are of 20,000 and less


def check_split(split: str) -> str:
    """Refuse the name of a split that could lead to another folder.

    Raises:
        InputError: It is no plain name.
    """
    if not re.fullmatch(r"[\w.+-]{1,100}", split) or not split.strip("."):
        raise InputError(f"split: expected a name such as val, found {shorten(split)}")
    return split


def read_list(path: Path) -> str:
    """Read a list, which is no large file.

    Raises:
        InputError: It cannot be read, is no text, or is large.
    """
    content = read_bytes(path, _LARGEST_LIST + 1)
    if len(content) > _LARGEST_LIST:
        raise InputError(f"{path}: expected a list of at most {_LARGEST_LIST} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot be read: not a text file (UTF-8)") from error


def check_files(paths: Iterable[Path], listing: Path | None = None) -> None:
    """Refuse missing files; `listing` is the list that names them, if there is one.

    Raises:
        InputError: A file is missing.
    """
    missing = [path for path in paths if not is_file(path)]
    if missing:
        named = f"{listing}: names what is not there: " if listing else ""
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{named}{missing[0]}: no such file{more}")


def read_beside(
    folder: Path, count: int, record: ImageRecord, image_hw: tuple[int, int]
) -> UInt8[np.ndarray, "H W"]:
    """Read the label map of an image, a PNG of the same name in another folder.

    Args:
        folder: Folder of the label maps.
        count: Number of labels, see `read_label_map`.
        record: The image.
        image_hw: Height and width of the image, pixels.

    Raises:
        InputError: As `read_label_map`.
    """
    return read_label_map(folder / f"{record.path.stem}.png", count, image_hw)
