"""Labels of ImageNet-ReaL: for each image of the validation set, every class that it shows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from crate_interp.errors import InputError, shorten
from crate_interp.files import read_json_as

if TYPE_CHECKING:
    from crate_interp.training.data import Pictures

__all__ = ["read_real_labels"]

_NAME = re.compile(r"ILSVRC2012_val_(\d{8})")


def read_real_labels(path: Path, pictures: Pictures) -> Mapping[int, Sequence[int]]:
    """Read the classes of images, by the images' index; those without a class are left out.

    Args:
        path: The file `real.json`: a list of classes for ILSVRC2012_val_00000001, a list for the
            next one, and so on. Classes are numbered from 0, in the order of their WordNet ids.
        pictures: Images of the validation set of ImageNet-1K, in files of these names.

    Raises:
        InputError: The file is malformed, the name of an image tells no number of it, or no image
            has a class.

    Reference:
        Beyer et al., Are we done with ImageNet? (arXiv 2006.07159).
    """
    lists = read_json_as(path, list[list[int]])
    if not lists:
        raise InputError(f"{path}: expected a list of classes for each image, found none")
    most = len(pictures.classes)
    for number, classes in enumerate(lists, start=1):
        wrong = [label for label in classes if not 0 <= label < most]
        if wrong:
            raise InputError(
                f"{path}: list {number}: expected classes 0 to {most - 1}, found {wrong[0]}"
            )
    labels = {
        index: lists[number - 1]
        for index, number in enumerate(_numbers(pictures, len(lists), path))
        if lists[number - 1]
    }
    if not labels:
        raise InputError(f"{path}: expected an image that has a class, found none")
    return labels


def _numbers(pictures: Pictures, count: int, path: Path) -> list[int]:
    """Number of each image in the validation set, from 1."""
    names = getattr(pictures, "names", None)
    if names is None:
        raise InputError(f"{path}: --real is for files of ImageNet-1K, found built-in scenes")
    numbers = []
    for name, _ in names():
        known = _NAME.fullmatch(PurePath(name).stem)
        if known is None or not 1 <= int(known[1]) <= count:
            raise InputError(
                f"{path}: expected images ILSVRC2012_val_{1:08} to ILSVRC2012_val_{count:08}, "
                f"found {shorten(name)}"
            )
        numbers.append(int(known[1]))
    return numbers
