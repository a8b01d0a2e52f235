"""Files of numbers that commands write, each with a record of what the numbers were made of.

An .npz file holds the record in the array `about`, as JSON. A CSV file has it beside it, in a JSON
file of the same name: a comment inside would stop those who read it as a table.
"""

from __future__ import annotations

import csv
import importlib.metadata
import io
import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from crate_interp.config import FIGURE_OPTIONS, ModelConfig
from crate_interp.errors import InputError
from crate_interp.files import write_whole
from crate_interp.hooks import Observer
from crate_interp.runs.inference import RANDOM, describe_model, describe_weights, statistics_of
from crate_interp.weights import resolve_weights

__all__ = [
    "about_of",
    "naming",
    "text_in",
    "versions",
    "weights_of",
    "write_arrays",
    "write_file",
    "write_json",
    "write_table",
]

_PRESENTATION = {"output", "workers"}  # change where numbers go and how fast, not what they are


def about_of(config: ModelConfig, observer: Observer) -> dict[str, Any]:
    """Record what a command's numbers were made of: weights, settings and versions.

    Args:
        config: Of the command.
        observer: With its model; tells the size, device and number type that `auto` stood for.
    """
    shown = {*_PRESENTATION, *FIGURE_OPTIONS}
    settings = {name: value for name, value in asdict(config).items() if name not in shown}
    settings |= {
        "model": describe_model(config.model, config.weights),
        "size": observer.size,
        "device": observer.device.type,
        "precision": observer.precision,
        **statistics_of(observer.model),
    }
    return {"weights": weights_of(config), "settings": settings, "versions": versions()}


def weights_of(config: ModelConfig) -> dict[str, Any]:
    """Describe the weight file of a command, for its settings and its summary."""
    if config.weights == RANDOM:
        return describe_weights(None)
    return describe_weights(resolve_weights(config.model, config.weights))


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    packages = ("crate-interp", "torch", "timm", "numpy", "scipy", "pycocotools")
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in packages
    }


def write_arrays(path: Path, arrays: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write arrays as .npz, the same bytes for the same arrays; the file appears whole or not.

    Args:
        path: Where to; folders that are missing are made.
        arrays: By name.
        about: What they were made of, as `about_of` has it.

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
        array: As it was read.
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
        path: Of the CSV; folders that are missing are made.
        header: Names of the columns.
        rows: The cells of each line.
        about: What the numbers were made of, as `about_of` has it.

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
        path: Where to; folders that are missing are made.
        content: Plain values and paths.
        advice: As for `naming`.

    Raises:
        InputError: The file cannot be written.
    """
    text = _json_of(content, indent=1 if isinstance(content, dict) else None)
    write_file(path, text + "\n", advice)


def write_file(path: Path, content: str | bytes, advice: str = "") -> None:
    """Write a file; it appears whole or not.

    Args:
        path: Where to; folders that are missing are made.
        content: Text, which becomes UTF-8, or bytes.
        advice: As for `naming`.

    Raises:
        InputError: The file cannot be written.
    """
    with naming(path, advice):
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path, "w" if isinstance(content, str) else "wb") as file:
            file.write(content)


@contextmanager
def naming(path: Path, advice: str = "") -> Iterator[None]:
    """Name the file that cannot be written; the system's message of a full disk does not.

    Args:
        path: The file.
        advice: What to do, for the end of the message.
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
