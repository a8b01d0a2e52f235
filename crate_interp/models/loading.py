"""Backbones by name, with their weights: `load_backbone`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from crate_interp.errors import CheckpointError, InputError
from crate_interp.models.checkpoint_files import Checkpoint, read_checkpoint
from crate_interp.models.layouts import load_checkpoint_into
from crate_interp.models.names import ModelName, resolve_name
from crate_interp.models.weights import fetch_weights

__all__ = [
    "ModelRecord",
    "create_backbone",
    "create_on_meta",
    "load_backbone",
    "names_a_file",
    "resolve_weights",
]

Pathlike = str | os.PathLike[str]


@dataclass(frozen=True)
class ModelRecord:
    """What one of our safetensors files says about its model, in its metadata.

    Attributes:
        model: `architecture.tag`.
        model_args: Keyword arguments that differ from the named model's.
        num_classes: Outputs of the head, 0 without one.
        mean: Of RGB in [0, 1], subtracted from the input.
        std: Of RGB in [0, 1], the input is divided by.
    """

    model: str
    model_args: Mapping[str, Any]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> ModelRecord | None:
        """Read the record of a file, `None` if it has none.

        Raises:
            CheckpointError: There is a record, but not a whole one.
        """
        metadata = checkpoint.metadata
        if not {"model", "model_args"} <= metadata.keys():
            return None  # another program's file; PyTorch files may have a `model` beside weights
        try:
            return cls(
                model=metadata["model"],
                model_args=dict(json.loads(metadata["model_args"])),
                num_classes=int(json.loads(metadata["num_classes"])),
                mean=tuple(map(float, json.loads(metadata["mean"]))),
                std=tuple(map(float, json.loads(metadata["std"]))),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{checkpoint.path}: its metadata are not those of crate_interp: {error!r}"
            ) from error

    def to_metadata(self) -> dict[str, str]:
        """Write the record as safetensors metadata: texts, all but the model's name in JSON."""
        return {
            "model": self.model,
            "model_args": json.dumps(dict(self.model_args)),
            "num_classes": json.dumps(self.num_classes),
            "mean": json.dumps(self.mean),
            "std": json.dumps(self.std),
        }


def load_backbone(
    name: Pathlike,
    weights: Pathlike | None = None,
    *,
    pretrained: bool = True,
    **timm_arguments: Any,
) -> VisionTransformer:
    """Make a backbone by name, with its published weights, those of a file, or random ones.

    Args:
        name: An alias (`crate_alpha_L8`), any timm VisionTransformer (`vit_small_patch8_224.dino`),
            or the path of one of our safetensors files, which knows its model.
        weights: A weight file in any official layout, instead of the published weights.
        pretrained: Load weights; otherwise they are random, drawn from torch's global generator.
        **timm_arguments: For `timm.create_model`, for instance `embed_dim=48, depth=2`. Two
            defaults differ from timm's: `dynamic_img_size=True`, so that images of any whole number
            of patches are taken, and `num_classes` is what the weights have; `num_classes=0` drops
            the head.

    Returns:
        The model in evaluation mode, float32, on the CPU.

    Raises:
        InputError: Unknown name, not a VisionTransformer, or an argument that timm refuses.
        CheckpointError: The weights cannot be had, read, or do not fit the model.
    """
    named = None if names_a_file(name) else resolve_name(str(name))
    if pretrained and named and weights is None:
        create_on_meta(named, **timm_arguments)  # refuses before gigabytes are fetched
        return _with_weights(named, fetch_weights(named), timm_arguments)
    if named and str(name).strip().lower() == named.architecture:
        # timm's first tag of an architecture is not meant where its weights are not: it may bring
        # sizes of its own, as that of crate_base_patch8_224 does.
        named = ModelName(named.architecture, None)
    if pretrained:
        return _with_weights(named, resolve_weights(name, weights), timm_arguments)
    if named is None or weights is not None:
        raise InputError(f"asked for the weights of {weights or name}, and for pretrained=False")
    return create_backbone(named, **timm_arguments)


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
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weight file")
    return path


def create_backbone(name: ModelName, **timm_arguments: Any) -> VisionTransformer:
    """Make a backbone with random weights, in evaluation mode.

    Args:
        name: A resolved model name.
        **timm_arguments: As for `load_backbone`.

    Raises:
        InputError: Not a VisionTransformer, or an argument that timm refuses.
    """
    create_on_meta(name, **timm_arguments)  # refuses at once what would take gigabytes to refuse
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
    arguments = {"dynamic_img_size": True, **timm_arguments}
    with torch.device("meta"):
        try:
            model = timm.create_model(str(name), **arguments)
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            model = timm.create_model(str(name))  # the arguments are not to blame for the class
            if isinstance(model, VisionTransformer):
                raise InputError(f"{name} cannot be made with {arguments}: {error}") from error
    if not isinstance(model, VisionTransformer):
        raise InputError(
            f"{name} is a {type(model).__name__}; expected CRATE, CRATE-alpha, or another model of "
            "timm's VisionTransformer class (ViT, DeiT, DINO, DINOv2, CLIP, MAE, SigLIP)"
        )
    return model


def names_a_file(name: Pathlike) -> bool:
    """Whether `load_backbone` takes a name for the path of a safetensors file."""
    # Not by looking whether there is such a file: a folder `demo` must not hide the model `demo`.
    if isinstance(name, os.PathLike):
        return True
    return "/" in name or os.sep in name or name.endswith(".safetensors")


def _with_weights(
    name: ModelName | None, path: Path, arguments: dict[str, Any]
) -> VisionTransformer:
    checkpoint = read_checkpoint(path)
    record = ModelRecord.of(checkpoint)
    if name is None:
        if record is None:
            raise CheckpointError(
                f"{path}: does not say which model it is; name it: load_backbone(NAME, weights=...)"
            )
        name = resolve_name(record.model)
    told: dict[str, Any] = {}
    if record and record.model.partition(".")[0] == name.architecture:
        told = {"mean": record.mean, "std": record.std}
        arguments = {**record.model_args, **arguments}
    model = create_backbone(name, **arguments)
    load_checkpoint_into(model, checkpoint, "num_classes" in arguments)
    config = cast("dict[str, Any]", model.pretrained_cfg)
    config.update(told, num_classes=model.num_classes)
    return model
