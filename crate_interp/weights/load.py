"""Backbones by name, with their weights: `load_backbone`."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from crate_interp.errors import CheckpointError, InputError, errors_of, shorten
from crate_interp.files import is_file
from crate_interp.models.backbones import Backbone
from crate_interp.weights.checkpoint import Checkpoint
from crate_interp.weights.create import (
    create_as_planned,
    create_backbone,
    create_on_meta,
    parameters_of,
)
from crate_interp.weights.files import read_checkpoint
from crate_interp.weights.fit import load_checkpoint_into
from crate_interp.weights.hub import HUB, fetch_from_hub, is_on_hub, record_of_config
from crate_interp.weights.names import ModelName, resolve_name
from crate_interp.weights.records import checked_statistics
from crate_interp.weights.sources import fetch_weights, find_local_weights, weight_source

__all__ = [
    "RANDOM",
    "from_pretrained",
    "load_backbone",
    "load_with_file",
    "names_a_file",
    "resolve_weights",
]

logger = logging.getLogger(__name__)

Pathlike = str | os.PathLike[str]
RANDOM = Path("random")  # in place of a weight file: an untrained model
_MOST_BEYOND_THE_FILE = 16_000_000  # parameters: positions and patches of other sizes


def load_backbone(
    name: Pathlike,
    weights: Pathlike | Checkpoint | None = None,
    *,
    pretrained: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    allow_nonfinite: bool = False,
    **timm_arguments: Any,
) -> Backbone:
    """Make a backbone by name, with its published weights, those of a file, or random ones.

    Args:
        name: An alias (`crate_alpha_L8`), any VisionTransformer or Eva of timm
            (`vit_small_patch8_224.dino`, `vit_small_patch16_dinov3`), a model of the hub in timm's
            format (`hf-hub:USER/NAME`), or the path of one of our safetensors files, which knows
            its model.
        weights: A weight file in any official layout, instead of the published weights, or what
            `read_checkpoint` read of one; or `random`: untrained, the same each time (seed 0).
        pretrained: Load weights; otherwise they are random, drawn from torch's global generator.
        mean: Mean of RGB in [0, 1], subtracted from the input; by default what the file says, or
            the named model's.
        std: Standard deviation of RGB in [0, 1], which the input is divided by; as `mean`.
        allow_nonfinite: Take weights that are NaN or infinite, too.
        **timm_arguments: Arguments of `timm.create_model`, such as `embed_dim=48, depth=2`. Two
            defaults differ from timm's: `dynamic_img_size=True`, so that images of any whole number
            of patches are taken, and `num_classes` is what the weights have; `num_classes=0` drops
            the head.

    Returns:
        The model in evaluation mode, float32, on the CPU.

    Raises:
        InputError: Unknown name, no backbone, or an argument that is no size or is out
            of its range.
        CheckpointError: The weights cannot be had, read, or do not fit the model.
    """
    if pretrained and not _are_random(weights):
        options: dict[str, Any] = {"allow_nonfinite": allow_nonfinite, "mean": mean, "std": std}
        return load_with_file(name, weights, **options, **timm_arguments)[0]
    model = _without_weights(name, weights, timm_arguments)
    cast("dict[str, Any]", model.pretrained_cfg).update(_statistics(mean, std))
    return model


def from_pretrained(repo_id: str, revision: str | None = None, **arguments: Any) -> Backbone:
    """Load a model of the hub; `load_backbone("hf-hub:USER/NAME@REVISION")` does the same.

    Args:
        repo_id: Repository, `USER/NAME`, of a vision transformer in timm's format.
        revision: Branch, tag or commit; the main branch by default.
        **arguments: As for `load_backbone`.

    Raises:
        InputError: No name of a repository, or as `load_backbone`.
        CheckpointError: The files cannot be had, read, or do not fit the model.
    """
    name = f"{HUB}{repo_id}" + (f"@{revision}" if revision else "")
    return load_backbone(name, **arguments)


def load_with_file(
    name: Pathlike,
    weights: Pathlike | Checkpoint | None = None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    allow_nonfinite: bool = False,
    **timm_arguments: Any,
) -> tuple[Backbone, Checkpoint]:
    """Load a backbone as `load_backbone` does, and give the file too, for what else lies in it."""
    given = _statistics(mean, std)
    named = None if names_a_file(name) else resolve_name(str(name))
    is_published, planned = named is not None and weights is None, None
    if named and is_published and not find_local_weights(weight_source(named)):
        planned = create_on_meta(named, **timm_arguments)  # refuses before gigabytes are fetched
    if isinstance(weights, Checkpoint):
        checkpoint = weights
    else:
        path = resolve_weights(name, weights)
        checkpoint = read_checkpoint(path, allow_nonfinite=allow_nonfinite)
        if is_on_hub(name) and checkpoint.record is None:  # another program put it there
            found = record_of_config(fetch_from_hub(str(name))[1]).to_metadata()
            checkpoint = replace(checkpoint, metadata={**checkpoint.metadata, **found})
    record, arguments, recorded = checkpoint.record, timm_arguments, {}
    if named is None:
        named = _recorded_name(checkpoint)
    elif not is_published:
        named = _without_foreign_tag(str(name), named)
    if record and record.model.partition(".")[0] == named.architecture:
        recorded = {"mean": record.mean, "std": record.std}
        if record.model_args:
            planned, arguments = None, {**record.model_args, **timm_arguments}
    with nullcontext() if is_published else errors_of(checkpoint.path):
        planned = planned or create_on_meta(named, **arguments)
    _refuse_another_size(planned, checkpoint)
    model = create_as_planned(planned, named, arguments)
    load_checkpoint_into(model, checkpoint, "refuse" if "num_classes" in arguments else "follow")
    config = cast("dict[str, Any]", model.pretrained_cfg)
    config.update({**recorded, "num_classes": model.num_classes, **given})
    if weights is not None and not recorded and len(given) < 2:
        used = [" ".join(f"{value:g}" for value in config[key]) for key in ("mean", "std")]
        logger.warning(
            "%s says nothing of its normalisation: mean %s, std %s are used, as of %s; --mean and "
            "--std (in Python: mean=, std=) change them",
            *(checkpoint.path.name, *used, named),
        )
    return model, checkpoint


def _statistics(mean: Sequence[float] | None, std: Sequence[float] | None) -> dict[str, Any]:
    given = {"mean": mean, "std": std}
    return {key: checked_statistics(key, v) for key, v in given.items() if v is not None}


def _are_random(weights: Pathlike | Checkpoint | None) -> bool:
    return isinstance(weights, str | os.PathLike) and Path(weights) == RANDOM


def _without_weights(
    name: Pathlike, weights: Pathlike | Checkpoint | None, arguments: dict[str, Any]
) -> Backbone:
    untrained = _are_random(weights)
    named = None if names_a_file(name) else resolve_name(str(name))
    if named is None or (weights is not None and not untrained):
        raise InputError(
            f"asked for the weights of {weights or name}, and for pretrained=False"
            if named or not untrained
            else f"{name} holds its own weights; it cannot take random ones"
        )
    with torch.random.fork_rng(devices=[], enabled=untrained):
        if untrained:
            torch.manual_seed(0)
        return create_backbone(_without_foreign_tag(str(name), named), **arguments)


def _recorded_name(checkpoint: Checkpoint) -> ModelName:
    with errors_of(checkpoint.path):
        if "text_model" in checkpoint.metadata:
            raise CheckpointError("holds a text model, which load_text_model reads")
        if checkpoint.record is None:
            raise CheckpointError(
                "does not say which model it is; name it: load_backbone(NAME, weights=...)"
            )
        name = checkpoint.record.model
        return _without_foreign_tag(name, resolve_name(name))


def _without_foreign_tag(given: str, named: ModelName) -> ModelName:
    # timm's first tag of an architecture is not meant where its weights are not: it may bring
    # sizes of its own, as that of crate_base_patch8_224 does.
    bare = given.strip().lower() == named.architecture
    return ModelName(named.architecture, None) if bare else named


def resolve_weights(name: Pathlike, weights: Pathlike | None = None) -> Path:
    """Find the weight file that `load_backbone` reads of these; it is downloaded if it must be.

    Raises:
        InputError: Unknown name, or two files asked for.
        CheckpointError: There is no such file, or it cannot be had.
    """
    if weights is not None and names_a_file(name):
        raise InputError(f"{name} holds its own weights; it cannot take those of {weights}")
    if is_on_hub(name):
        return fetch_from_hub(str(name))[0]
    if weights is None and not names_a_file(name):
        return fetch_weights(resolve_name(str(name)))
    path = Path(name if weights is None else weights)
    if not is_file(path):
        raise CheckpointError(f"{path}: no such weight file")
    return path


def names_a_file(name: Pathlike) -> bool:
    """Whether `load_backbone` takes a name for a safetensors file: its path, or one of the hub."""
    # Not by looking whether there is such a file: a folder `demo` must not hide the model `demo`.
    if isinstance(name, os.PathLike):
        return True
    if not isinstance(name, str):
        raise InputError(f"name: expected the name of a model or a path, found {shorten(name)}")
    return "/" in name or os.sep in name or name.endswith(".safetensors") or is_on_hub(name)


def _refuse_another_size(model: Backbone, checkpoint: Checkpoint) -> None:
    """Refuse a file that a model is far too large for, before there is memory for the model."""
    there = sum(tensor.numel() for tensor in checkpoint.state_dict.values())
    get_head = getattr(model, "get_classifier", nn.Identity)  # encoders have none
    needed = parameters_of(model) - parameters_of(get_head())
    if needed > 2 * there + _MOST_BEYOND_THE_FILE:
        raise CheckpointError(
            f"{checkpoint.path}: expected the {needed} weights of {type(model).__name__}, "
            f"found {there}"
        )
