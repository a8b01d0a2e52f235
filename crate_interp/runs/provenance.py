"""Provenance of numbers: weights, settings and versions."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from crate_interp.data import ImageSet, plain_place
from crate_interp.files import checksum_of
from crate_interp.hooks import Observer
from crate_interp.runs.inference import (
    batch_size_of,
    describe_model,
    describe_weights,
    statistics_of,
)
from crate_interp.runs.options import ImageOptions, ModelOptions
from crate_interp.weights import RANDOM, resolve_weights

__all__ = [
    "default_output",
    "describe_images",
    "provenance_of",
    "settings_of",
    "versions",
    "weights_of",
]


def provenance_of(options: ModelOptions, observer: Observer) -> dict[str, Any]:
    """Record what a command's numbers are made of: weights, settings and versions.

    The settings are all that decides the results, but for the images; a run goes on only if they
    are the same.

    Args:
        options: Options of the command.
        observer: Observer of the model; tells size, device and number type that `auto` stands for.
    """
    weights = weights_of(options)
    settings = {
        **settings_of(options),
        "model": describe_model(options.model, options.weights),
        "weights_sha256": weights["sha256"],
        "size": observer.size,
        "device": observer.device.type,
        "precision": observer.precision,
        **statistics_of(observer.model),
        "batch_size": batch_size_of(options.batch_size, observer),
    }
    if isinstance(options, ImageOptions):  # which may be given as paths, and with slashes at ends
        settings["images"] = [plain_place(place) for place in options.images]
    return {"weights": weights, "settings": settings, "versions": versions()}


def _resolved(folder: Path | str) -> str:
    return str(folder.resolve() if isinstance(folder, Path) else folder)


def settings_of(options: Any) -> dict[str, Any]:
    """Give the options that decide results: all but those declared as `presentation`."""
    shown = {option.name for option in fields(options) if option.metadata.get("presentation")}
    return {name: value for name, value in asdict(options).items() if name not in shown}


def weights_of(options: ModelOptions) -> dict[str, Any]:
    """Describe the weight file of a command: its name and its checksum."""
    if options.weights == RANDOM:
        return describe_weights(None)
    return describe_weights(resolve_weights(options.model, options.weights))


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    packages = ("crate-interp", "torch", "timm", "numpy", "scipy", "pycocotools")
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in packages
    }


def default_output(command: str, model: str, images: ImageSet) -> Path:
    """Name the run folder of a command that was given none."""
    return Path("runs") / re.sub(r"[^\w.-]+", "-", f"{command}-{Path(model).name}-{images.name}")


def describe_images(images: ImageSet) -> Mapping[str, Any]:
    """Describe which images a run is over, for its settings."""
    folders = {record.path.parent for record in images.records}
    names = json.dumps([(record.image_id, record.file_name) for record in images.records])
    return {
        "name": images.name,
        "count": len(images.records),
        "folders": sorted({_resolved(folder) for folder in folders}),
        "sha256_of_names": checksum_of(names.encode()),
    }
