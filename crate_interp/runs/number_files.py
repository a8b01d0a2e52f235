"""Files of numbers that commands write, each with a record of what the numbers were made of.

An .npz file holds the record in the array `about`, as JSON. A CSV file has it beside it, in a JSON
file of the same name: a comment inside would stop those who read it as a table.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from crate_interp.data.export import Content
from crate_interp.errors import InputError
from crate_interp.files import write_whole

__all__ = [
    "naming",
    "text_in",
    "write_arrays",
    "write_file",
    "write_json",
    "write_table",
]


def write_arrays(path: Path, arrays: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write arrays as .npz, the same bytes for the same arrays; the file appears whole or not.

    Args:
        path: Path of the file; folders that are missing are made.
        arrays: Arrays by name.
        about: Provenance, as `provenance_of` has it.

    Raises:
        InputError: The file cannot be written.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as file:
            np.savez_compressed(file, about=np.array(_json_of(about)), **arrays)


def text_in(array: Shaped[np.ndarray, ...], source: str) -> str:
    """Give the text of an array such as `about`.

    Args:
        array: The array, as it was read.
        source: Name of the file and the array, for messages.

    Raises:
        InputError: It is not one text.
    """
    if array.dtype.kind != "U" or array.ndim:
        raise InputError(f"{source}: expected a text, found {array.dtype} {array.shape}")
    try:
        return str(array[()])
    except (ValueError, SystemError):  # numbers that are no characters
        raise InputError(f"{source}: expected a text, found other bytes") from None


def write_table(
    path: Path,
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    about: Mapping[str, Any],
) -> None:
    """Write a CSV file, and the record of it as JSON beside it; each appears whole or not.

    Args:
        path: Path of the CSV file; folders that are missing are made.
        header: Names of the columns.
        rows: The cells of each line.
        about: Provenance, as `provenance_of` has it.

    Raises:
        InputError: A file cannot be written.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_json(path.with_suffix(".json"), about)
    with naming(path), write_whole(path, "w") as file:
        file.write(text.getvalue())


def write_json(path: Path, content: Any, advice: str = "") -> None:
    """Write JSON, a dictionary by line; the file appears whole or not.

    Args:
        path: Path of the file; folders that are missing are made.
        content: Plain values and paths.
        advice: As for `naming`.

    Raises:
        InputError: The file cannot be written.
    """
    text = _json_of(content, indent=1 if isinstance(content, dict) else None)
    write_file(path, text + "\n", advice)


def write_file(path: Path, content: Content, advice: str = "") -> None:
    """Write a file; it appears whole or not.

    Args:
        path: Path of the file; folders that are missing are made.
        content: Text, which becomes UTF-8; bytes; or a function that writes to the open file.
        advice: As for `naming`.

    Raises:
        InputError: The file cannot be written.
    """
    with naming(path, advice):
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path, "w" if isinstance(content, str) else "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)


@contextmanager
def naming(path: Path, advice: str = "") -> Iterator[None]:
    """Name the file that cannot be written; the system's message of a full disk does not.

    Args:
        path: The file.
        advice: Advice for the end of the message.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}{advice}") from error


def _json_of(content: Any, indent: int | None = None) -> str:
    return json.dumps(content, indent=indent, default=_plain)


def _plain(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"expected plain values or a path, found {type(value).__name__}")
