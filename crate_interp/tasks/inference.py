"""What commands that run a model share: its device, its weights and how the results name it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer

from crate_interp.errors import InputError
from crate_interp.models import (
    load_backbone,
    names_a_file,
    resolve_name,
    resolve_weights,
    weights_checksum,
)

__all__ = ["RANDOM", "describe_model", "describe_weights", "device_of", "load_model"]

RANDOM = Path("random")  # `--weights random`: an untrained model


def device_of(name: str) -> torch.device:
    """Find the device of an option `--device`.

    Args:
        name: As torch names it, or `auto` for the fastest one here.

    Raises:
        InputError: It cannot be used here.
    """
    if name != "auto":
        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"device {name!r} cannot be used here: {error}") from None
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def load_model(
    name: str, weights: Path | None, model_args: Mapping[str, Any]
) -> tuple[VisionTransformer, Path | None]:
    """Load the model of the options `--model`, `--weights` and `--model-args`, on the CPU.

    Returns:
        The model in evaluation mode, and its weight file; `None` for random weights (seed 0).

    Raises:
        InputError: As `load_backbone`.
    """
    if weights == RANDOM:
        torch.manual_seed(0)
        return load_backbone(name, pretrained=False, **model_args), None
    model = load_backbone(name, weights, **model_args)
    return model, resolve_weights(name, weights)


def describe_model(name: str, weights: Path | None) -> str:
    """Name a model for a results file: a path as it is, otherwise `architecture.tag`."""
    if names_a_file(name):
        return name
    resolved = resolve_name(name)
    return f"{resolved.architecture} (untrained)" if weights == RANDOM else str(resolved)


def describe_weights(path: Path | None) -> dict[str, Any]:
    """Describe a weight file for a results file.

    Args:
        path: The file; `None` for random weights.
    """
    return {
        "file": path.name if path else "random initialisation, seed 0",
        "sha256": weights_checksum(path) if path else None,
    }
