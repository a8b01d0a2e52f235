"""Backbones by name, with their weights: `load_backbone`."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from crate_interp.errors import CheckpointError, InputError, shorten
from crate_interp.files import is_file
from crate_interp.models.memory import usable_memory
from crate_interp.weights.arguments import check_arguments
from crate_interp.weights.files import Checkpoint, read_checkpoint
from crate_interp.weights.fit import load_checkpoint_into
from crate_interp.weights.names import ModelName, resolve_name
from crate_interp.weights.records import ModelRecord, checked_statistics
from crate_interp.weights.sources import fetch_weights

__all__ = [
    "RANDOM",
    "create_backbone",
    "create_on_meta",
    "load_backbone",
    "names_a_file",
    "resolve_weights",
]

logger = logging.getLogger(__name__)

Pathlike = str | os.PathLike[str]
RANDOM = Path("random")  # in place of a weight file: an untrained model

# What timm and torch raise for sizes that do not go together, and for Python's classes that do not.
_REFUSALS = (
    AssertionError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    TypeError,
    ValueError,
)
_MOST_PARAMETERS = 10_000_000_000  # the largest ViT of timm has 1.9e9
_MOST_BEYOND_THE_FILE = 16_000_000  # parameters: positions and patches of other sizes


def load_backbone(
    name: Pathlike,
    weights: Pathlike | None = None,
    *,
    pretrained: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    allow_nonfinite: bool = False,
    **timm_arguments: Any,
) -> VisionTransformer:
    """Make a backbone by name, with its published weights, those of a file, or random ones.

    Args:
        name: An alias (`crate_alpha_L8`), any timm VisionTransformer (`vit_small_patch8_224.dino`),
            or the path of one of our safetensors files, which knows its model.
        weights: A weight file in any official layout, instead of the published weights; or
            `random`: untrained, the same ones each time (seed 0).
        pretrained: Load weights; otherwise they are random, drawn from torch's global generator.
        mean: Of RGB in [0, 1], subtracted from the input; by default what the file says, or the
            named model's.
        std: Of RGB in [0, 1], the input is divided by; as `mean`.
        allow_nonfinite: Take weights that are NaN or infinite, too.
        **timm_arguments: For `timm.create_model`, for instance `embed_dim=48, depth=2`. Two
            defaults differ from timm's: `dynamic_img_size=True`, so that images of any whole number
            of patches are taken, and `num_classes` is what the weights have; `num_classes=0` drops
            the head.

    Returns:
        The model in evaluation mode, float32, on the CPU.

    Raises:
        InputError: Unknown name, not a VisionTransformer, or an argument that is no size or is out
            of its range.
        CheckpointError: The weights cannot be had, read, or do not fit the model.
    """
    statistics = {
        key: checked_statistics(key, value)
        for key, value in (("mean", mean), ("std", std))
        if value is not None
    }
    named = None if names_a_file(name) else resolve_name(str(name))
    untrained = weights is not None and Path(weights) == RANDOM
    if untrained or not pretrained:
        if named is None or (weights is not None and not untrained):
            raise InputError(
                f"asked for the weights of {weights or name}, and for pretrained=False"
                if named or not untrained
                else f"{name} holds its own weights; it cannot take random ones"
            )
        with torch.random.fork_rng(devices=[], enabled=untrained):
            if untrained:
                torch.manual_seed(0)
            model = create_backbone(_without_foreign_tag(name, named), **timm_arguments)
    else:
        if named and weights is None:
            create_on_meta(named, **timm_arguments)  # refuses before gigabytes are fetched
        path = resolve_weights(name, weights)
        if named and weights is not None:
            named = _without_foreign_tag(name, named)
        checkpoint = read_checkpoint(path, allow_nonfinite=allow_nonfinite)
        model, tells = _with_weights(named, checkpoint, timm_arguments)
        if weights is not None and not tells and len(statistics) < 2:
            _say_normalisation(model, path, named, statistics)
    cast("dict[str, Any]", model.pretrained_cfg).update(statistics)
    return model


def _without_foreign_tag(given: Pathlike, named: ModelName) -> ModelName:
    # timm's first tag of an architecture is not meant where its weights are not: it may bring
    # sizes of its own, as that of crate_base_patch8_224 does.
    bare = str(given).strip().lower() == named.architecture
    return ModelName(named.architecture, None) if bare else named


def resolve_weights(name: Pathlike, weights: Pathlike | None = None) -> Path:
    """Find the weight file that `load_backbone` reads; it is downloaded if it must be.

    Args:
        name: As for `load_backbone`.
        weights: As for `load_backbone`.

    Returns:
        An existing file.

    Raises:
        InputError: Unknown name, or two files asked for.
        CheckpointError: There is no such file, or it cannot be had.
    """
    if weights is not None and names_a_file(name):
        raise InputError(f"{name} holds its own weights; it cannot take those of {weights}")
    if weights is None and not names_a_file(name):
        return fetch_weights(resolve_name(str(name)))
    path = Path(name if weights is None else weights)
    if not is_file(path):
        raise CheckpointError(f"{path}: no such weight file")
    return path


def create_backbone(name: ModelName, **timm_arguments: Any) -> VisionTransformer:
    """Make a backbone with random weights, in evaluation mode.

    Args:
        name: A resolved model name.
        **timm_arguments: As for `load_backbone`.

    Raises:
        InputError: Not a VisionTransformer, an argument that timm refuses, or parameters that do
            not fit into the memory.
    """
    planned = create_on_meta(name, **timm_arguments)  # refuses at once what would take gigabytes
    needed, there = 4 * _parameters_of(planned), usable_memory()
    if needed > there:
        raise InputError(
            f"{name} with {shorten(timm_arguments)}: expected parameters that fit into the memory, "
            f"{there / 1e9:.1f} GB, found {needed / 1e9:.1f} GB"
        )
    arguments = {"dynamic_img_size": True, **timm_arguments}
    return cast("VisionTransformer", timm.create_model(str(name), **arguments).eval())


def create_on_meta(name: ModelName, **timm_arguments: Any) -> VisionTransformer:
    """Make a backbone without memory for its parameters, in milliseconds, to look at its sizes.

    Args:
        name: A resolved model name.
        **timm_arguments: As for `load_backbone`.

    Raises:
        InputError: Not a VisionTransformer, or an argument that timm refuses.
    """
    check_arguments(timm_arguments, str(name))
    arguments = {"dynamic_img_size": True, **timm_arguments}
    with torch.device("meta"):
        try:
            model = timm.create_model(str(name), **arguments)
        except _REFUSALS as error:
            model = timm.create_model(str(name))  # the arguments are not to blame for the class
            if isinstance(model, VisionTransformer):
                raise InputError(f"{name} cannot be made with {arguments}: {error}") from error
    if not isinstance(model, VisionTransformer):
        raise InputError(
            f"{name} is a {type(model).__name__}; expected CRATE, CRATE-alpha, or another model of "
            "timm's VisionTransformer class (ViT, DeiT, DINO, DINOv2, CLIP, MAE, SigLIP)"
        )
    grid, patch = model.patch_embed.grid_size, model.patch_embed.patch_size
    if grid is not None and min(grid) < 1:
        raise InputError(
            f"{name} cannot be made with {arguments}: expected images of a patch of {patch} pixels "
            f"or more, found {model.patch_embed.img_size}"
        )
    count = _parameters_of(model)
    if count > _MOST_PARAMETERS:
        raise InputError(
            f"{name} cannot be made with {arguments}: it would have {count} parameters, expected "
            f"at most {_MOST_PARAMETERS}"
        )
    return model


def names_a_file(name: Pathlike) -> bool:
    """Whether `load_backbone` takes a name for the path of a safetensors file."""
    # Not by looking whether there is such a file: a folder `demo` must not hide the model `demo`.
    if isinstance(name, os.PathLike):
        return True
    if not isinstance(name, str):
        raise InputError(f"name: expected the name of a model or a path, found {shorten(name)}")
    return "/" in name or os.sep in name or name.endswith(".safetensors")


def _with_weights(
    name: ModelName | None, checkpoint: Checkpoint, arguments: dict[str, Any]
) -> tuple[VisionTransformer, bool]:
    """The model of a file, and whether the file tells the mean and deviation of its input."""
    path, record = checkpoint.path, ModelRecord.of(checkpoint)
    if name is None:
        if record is None:
            raise CheckpointError(
                f"{path}: does not say which model it is; name it: load_backbone(NAME, weights=...)"
            )
        try:
            name = _without_foreign_tag(record.model, resolve_name(record.model))
        except InputError as error:
            raise CheckpointError(f"{path}: {error}") from error
    told: dict[str, Any] = {}
    if record and record.model.partition(".")[0] == name.architecture:
        told = {"mean": record.mean, "std": record.std}
        arguments = {**record.model_args, **arguments}
    try:
        planned = create_on_meta(name, **arguments)
    except InputError as error:
        raise CheckpointError(f"{path}: {error}") from error
    _refuse_another_size(planned, checkpoint)
    model = create_backbone(name, **arguments)
    load_checkpoint_into(model, checkpoint, "num_classes" in arguments)
    config = cast("dict[str, Any]", model.pretrained_cfg)
    config.update(told, num_classes=model.num_classes)
    return model, bool(told)


def _say_normalisation(
    model: VisionTransformer, path: Path, name: ModelName | None, given: dict[str, Any]
) -> None:
    used = {**cast("dict[str, Any]", model.pretrained_cfg), **given}
    mean, std = (" ".join(f"{value:g}" for value in used[key]) for key in ("mean", "std"))
    logger.warning(
        "%s says nothing of its normalisation: mean %s, std %s are used, as of %s; --mean and "
        "--std (in Python: mean=, std=) change them",
        path.name,
        mean,
        std,
        name,
    )


def _refuse_another_size(model: VisionTransformer, checkpoint: Checkpoint) -> None:
    """Refuse a file that a model is far too large for, before there is memory for the model."""
    there = sum(tensor.numel() for tensor in checkpoint.state_dict.values())
    head = sum(parameter.numel() for parameter in model.get_classifier().parameters())
    wanted = _parameters_of(model) - head
    if wanted > 2 * there + _MOST_BEYOND_THE_FILE:
        raise CheckpointError(
            f"{checkpoint.path}: expected the {wanted} weights of {type(model).__name__}, "
            f"found {there}"
        )


def _parameters_of(model: VisionTransformer) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
