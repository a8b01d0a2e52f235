"""Names of the classes of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from timm.data import ImageNetInfo, infer_imagenet_subset

from crate_interp.errors import InputError
from crate_interp.files import parse_json_as
from crate_interp.runs.inference import RANDOM
from crate_interp.runs.options import ModelOptions
from crate_interp.weights import resolve_weights

__all__ = ["class_names_of", "name_class"]


def class_names_of(config: ModelOptions, num_classes: int) -> list[str] | None:
    """Find the names of a model's classes: those in its weight file, or ImageNet's by their number.

    Args:
        config: Options that name the model and its weights.
        num_classes: Outputs of the model.

    Returns:
        As many names as outputs; `None` where they are not known, as of an untrained model.
    """
    if config.weights == RANDOM:
        return None
    named = _named_in(resolve_weights(config.model, config.weights))
    if named is not None and len(named) == num_classes:
        return named
    subset: Any = infer_imagenet_subset({"num_classes": num_classes})
    if subset is None:
        return None
    known = ImageNetInfo(subset)
    return [known.index_to_description(number).partition(",")[0] for number in range(num_classes)]


def name_class(number: int, names: list[str] | None) -> str:
    """Call a class by its name, if it has one, and its number."""
    return f"class {number}" if names is None else f"{names[number]} (class {number})"


def _named_in(path: Path) -> list[str] | None:
    """Names in the metadata of a safetensors file, which `train` writes."""
    try:
        with safe_open(path, "numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except (SafetensorError, OSError):  # another layout, which has been read by others already
        return None
    if "classes" not in metadata:
        return None
    try:
        return parse_json_as(metadata["classes"], list[str], f"{path}: classes")
    except InputError:
        return None  # as if it named none: names are for the reader alone
