"""The file of a fitted classifier, which a run that goes on does not fit again."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np

from crate_interp.errors import InputError
from crate_interp.files import checksum_of, parse_json_as, read_arrays
from crate_interp.runs.number_files import text_in, write_arrays

__all__ = ["read_classifier", "write_classifier"]

Array: TypeAlias = np.ndarray[Any, Any]

_logger = logging.getLogger(__name__)

_MOST_BYTES = 1 << 28  # of arrays that pack well


class _About(msgspec.Struct):
    sha256: str


def write_classifier(path: Path, arrays: Mapping[str, Array], about: Mapping[str, Any]) -> None:
    """Write a classifier with its checksum, as a whole or not at all.

    Args:
        path: The file.
        arrays: Arrays of the classifier, by name.
        about: Provenance, as `Run.provenance` has it.

    Raises:
        InputError: It cannot be written.
    """
    write_arrays(path, arrays, {"sha256": _checksum(arrays), **about})


def read_classifier(path: Path, names: Sequence[str]) -> dict[str, Array] | None:
    """Read what `write_classifier` wrote; `None` if there is no such file, or it is damaged.

    A damaged file is named in a warning.

    Args:
        path: The file.
        names: Names of its arrays.
    """
    if not path.exists():
        return None
    try:
        limit = max(_MOST_BYTES, 4 * path.stat().st_size)
        arrays = read_arrays(path, limit, ("about", *names))
        text = text_in(arrays.pop("about"), f"{path}: about")
        about = parse_json_as(text, _About, str(path))
        if (actual := _checksum(arrays)) != about.sha256:
            raise InputError(f"{path}: expected arrays of checksum {about.sha256}, found {actual}")
    except InputError as error:
        _logger.warning("%s; it is fitted again", error)
        return None
    return arrays


def _checksum(arrays: Mapping[str, Array]) -> str:
    parts = [(array.dtype.str, array.shape) for array in arrays.values()]
    content = [array.tobytes() for array in arrays.values()]
    return checksum_of(b"".join([repr(parts).encode(), *content]))
