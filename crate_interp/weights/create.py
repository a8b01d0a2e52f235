"""Makes a backbone of a name and sizes, once what would be too large or no backbone is refused."""

from __future__ import annotations

from typing import Any, cast

import timm
import torch

from crate_interp.errors import InputError, shorten
from crate_interp.models.backbones import (
    Backbone,
    embedding_of,
    has_absolute_positions,
    is_backbone,
    lacking_in,
    without_projector,
)
from crate_interp.models.memory import usable_memory
from crate_interp.weights.model_arguments import check_arguments
from crate_interp.weights.names import ModelName

__all__ = ["create_as_planned", "create_backbone", "create_on_meta", "parameters_of"]

# What timm and torch raise for sizes and tensors that do not go together.
TIMM_REFUSALS = (
    *(AssertionError, AttributeError, LookupError, ArithmeticError),
    *(RuntimeError, TypeError, ValueError),
)
_MOST_PARAMETERS = 10_000_000_000  # the largest ViT of timm has 1.9e9


def create_backbone(name: ModelName, **timm_arguments: Any) -> Backbone:
    """Make a backbone with random weights, in evaluation mode; arguments as for `load_backbone`.

    Raises:
        InputError: No backbone, an argument that timm refuses, or parameters that do
            not fit into the memory.
    """
    return create_as_planned(create_on_meta(name, **timm_arguments), name, timm_arguments)


def create_as_planned(
    planned: Backbone, name: ModelName, timm_arguments: dict[str, Any]
) -> Backbone:
    """Make a backbone as `create_backbone` does, once `create_on_meta` made it of these.

    Raises:
        InputError: Its parameters do not fit into the memory.
    """
    needed, there = 4 * parameters_of(planned), usable_memory()
    if needed > there:
        raise InputError(
            f"{name} with {shorten(timm_arguments)}: expected parameters that fit into the memory, "
            f"{there / 1e9:.1f} GB, found {needed / 1e9:.1f} GB"
        )
    model = timm.create_model(str(name), **{**_defaults_of(planned), **timm_arguments})
    return cast("Backbone", model.eval())


def create_on_meta(name: ModelName, **timm_arguments: Any) -> Backbone:
    """Make a backbone without memory for its parameters, in milliseconds, to look at its sizes.

    Raises:
        InputError: No backbone, or an argument that timm refuses.
    """
    check_arguments(timm_arguments, str(name))
    with torch.device("meta"):
        try:
            model = timm.create_model(str(name), **{"dynamic_img_size": True, **timm_arguments})
        except TIMM_REFUSALS as error:
            model = timm.create_model(str(name))  # the arguments are not to blame for the class
            if is_backbone(model):
                model = _create_again(model, name, timm_arguments, error)
    refused = f"{name} cannot be made with {timm_arguments}"
    if not is_backbone(model):
        raise InputError(
            f"{name} is a {type(model).__name__}; expected CRATE, CRATE-alpha, or another model of "
            "timm's VisionTransformer or Eva class (ViT, DeiT, DINO, DINOv2, DINOv3, CLIP, MAE, "
            "SigLIP, EVA), or its BEiT and ViTs of relative positions; this one has "
            f"{lacking_in(model)}"
        )
    patches = embedding_of(model)
    grid = getattr(patches, "grid_size", None)
    if grid is not None and min(grid) < 1:
        raise InputError(
            f"{refused}: expected images of a patch of {patches.patch_size} pixels "
            f"or more, found {patches.img_size}"
        )
    count = parameters_of(model)
    if count > _MOST_PARAMETERS:
        raise InputError(
            f"{refused}: it would have {count} parameters, expected at most {_MOST_PARAMETERS}"
        )
    return model


def parameters_of(model: torch.nn.Module) -> int:
    """Count the numbers in a model's parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def _defaults_of(model: torch.nn.Module) -> dict[str, Any]:
    # Models whose positions are relative alone have no such argument.
    return {"dynamic_img_size": True} if has_absolute_positions(model) else without_projector(model)


def _create_again(
    model: Backbone, name: ModelName, timm_arguments: dict[str, Any], error: Exception
) -> Any:
    """Make a backbone without the argument that its class lacks, or say what timm refused."""
    arguments = {**_defaults_of(model), **timm_arguments}
    try:
        if not has_absolute_positions(model):
            return timm.create_model(str(name), **arguments)
    except TIMM_REFUSALS as again:
        error = again
    raise InputError(f"{name} cannot be made with {arguments}: {error}") from error
