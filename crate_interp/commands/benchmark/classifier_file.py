"""The file of a fitted classifier of patches, which a run that goes on does not fit again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from crate_interp.errors import InputError
from crate_interp.evaluation.patch_classifier import PatchClassifier
from crate_interp.files import checksum_of, parse_json_as, read_arrays
from crate_interp.runs.number_files import text_in, write_arrays

__all__ = ["read_classifier", "write_classifier"]

_logger = logging.getLogger(__name__)

_ARRAYS = ("weight", "bias", "labels")
_MOST_BYTES = 1 << 28


class _About(msgspec.Struct):
    sha256: str


def write_classifier(path: Path, classifier: PatchClassifier, about: Mapping[str, Any]) -> None:
    """Write a classifier with its checksum, as a whole or not at all.

    Args:
        path: The file.
        classifier: The classifier.
        about: Provenance, as `Run.provenance` has it.

    Raises:
        InputError: It cannot be written.
    """
    arrays = {name: getattr(classifier, name) for name in _ARRAYS}
    write_arrays(path, arrays, {"sha256": _checksum(arrays), **about})


def read_classifier(path: Path) -> PatchClassifier | None:
    """Read what `write_classifier` wrote; `None` if there is no such file, or it is damaged.

    A damaged file is named in a warning.
    """
    if not path.exists():
        return None
    try:
        arrays = read_arrays(path, _MOST_BYTES, ("about", *_ARRAYS))
        text = text_in(arrays.pop("about"), f"{path}: about")
        about = parse_json_as(text, _About, str(path))
        if (actual := _checksum(arrays)) != about.sha256:
            raise InputError(f"{path}: expected arrays of checksum {about.sha256}, found {actual}")
    except InputError as error:
        _logger.warning("%s; it is fitted again", error)
        return None
    return PatchClassifier(**arrays)


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    parts = [(arrays[name].dtype.str, arrays[name].shape) for name in _ARRAYS]
    content = [arrays[name].tobytes() for name in _ARRAYS]
    return checksum_of(b"".join([repr(parts).encode(), *content]))
