"""The parts of a run: model, optimizer and schedule, made by timm from a recipe."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn

from crate_interp.errors import InputError
from crate_interp.files import is_file
from crate_interp.models.backbones import Backbone, embedding_of
from crate_interp.training.augmentation import Normalisation
from crate_interp.training.data import TrainingData
from crate_interp.training.recipe import Recipe
from crate_interp.weights import (
    ModelName,
    ModelRecord,
    create_backbone,
    create_on_meta,
    names_a_file,
    resolve_name,
    resolve_weights,
)
from crate_interp.weights.fit import load_checkpoint_into

__all__ = [
    "adapt_model",
    "build_model",
    "build_optimizer",
    "build_schedule",
    "export_record",
    "find_initial_weights",
    "normalisation_of",
    "patch_size_of",
    "updates_of",
]


def build_model(recipe: Recipe, num_classes: int) -> Backbone:
    """Make the vision transformer of a recipe, in training mode, float32, on the CPU.

    Args:
        recipe: Recipe, which names the model, its sizes and its initial weights.
        num_classes: Number of outputs of the head, 0 for none.

    Raises:
        InputError: Unknown model, an argument that it refuses, or an image size that is no whole
            number of patches.
        CheckpointError: The initial weights cannot be had or do not fit.
    """
    patch_size = patch_size_of(recipe)
    for size in recipe.image_sizes:
        if any(size % side for side in patch_size):
            raise InputError(
                f"image_size: expected a multiple of the patch of {patch_size[0]} pixels, "
                f"found {size}"
            )
    backbone = create_backbone(
        _name_of(recipe),
        **_arguments_of(recipe),
        num_classes=num_classes,
        drop_path_rate=recipe.drop_path,
        patch_drop_rate=max(part.patch_drop for part in (recipe, *recipe.staged)),
    )
    initial = find_initial_weights(recipe)
    if initial is not None:
        load_checkpoint_into(backbone, initial, way="linear")
    return backbone.train()


def patch_size_of(recipe: Recipe) -> tuple[int, int]:
    """Give height and width of a patch of the recipe's model, pixels."""
    model = create_on_meta(_name_of(recipe), **recipe.model_args)
    height, width = embedding_of(model).patch_size
    return height, width


def normalisation_of(recipe: Recipe) -> Normalisation:
    """Give mean and standard deviation of RGB in [0, 1] for the recipe's model."""
    config: Any = create_on_meta(_name_of(recipe), **recipe.model_args).pretrained_cfg
    return tuple(config["mean"]), tuple(config["std"])


def find_initial_weights(recipe: Recipe) -> Path | None:
    """Find the file of the weights that a run begins with; `None` for random weights.

    Raises:
        InputError: The recipe names neither a file nor a model.
        CheckpointError: The weights cannot be had.
    """
    name = recipe.initial_weights
    if name is None:
        return None
    if name == "published":
        return resolve_weights(recipe.model)
    if is_file(Path(name)) or names_a_file(name):
        return resolve_weights(recipe.model, name)
    try:
        return resolve_weights(name)
    except InputError as error:
        raise InputError(f"initial_weights {name}: no such file, and {error}") from error


def adapt_model(model: Any, recipe: Recipe) -> None:
    """Make a model compute as the recipe says: checkpointed, and fast in its number type."""
    if recipe.gradient_checkpointing:
        model.set_grad_checkpointing(True)
    if recipe.precision == "bfloat16" and not torch.cuda.is_available():
        for module in model.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False  # its backward pass is slow on a CPU


def export_record(recipe: Recipe, backbone: Backbone, data: TrainingData) -> dict[str, str]:
    """Give the metadata of an exported file that say which model it holds, and its classes."""
    config: Any = backbone.pretrained_cfg
    record = ModelRecord(
        model=str(_name_of(recipe)),
        model_args=_arguments_of(recipe),
        num_classes=backbone.num_classes,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    ).to_metadata()
    if backbone.num_classes == len(data.training.classes) > 0:
        record["classes"] = json.dumps(data.training.classes)
    return record


def _name_of(recipe: Recipe) -> ModelName:
    return ModelName(resolve_name(recipe.model).architecture, None)


def _arguments_of(recipe: Recipe) -> dict[str, Any]:
    return {**recipe.model_args, "img_size": recipe.image_size}


def build_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """Make the optimizer, with its groups by weight decay and layer."""
    own: dict[str, Any] = {} if recipe.betas is None else {"betas": recipe.betas}
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model,
        opt=recipe.optimizer,
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        layer_decay=recipe.layer_decay,
        **own,
    )
    return optimizer


def updates_of(recipe: Recipe, pictures: int) -> tuple[int, int]:
    """Say how many updates a run has, and how many of them are warm-up.

    Args:
        recipe: Recipe, which gives both in epochs or updates.
        pictures: Number of images in an epoch; a last, smaller batch is left out.

    Raises:
        InputError: The warm-up is longer than the run.
    """
    per_epoch = pictures // recipe.batch_size
    total = recipe.steps or max(1, math.floor(per_epoch * (recipe.epochs or 0)))
    warmup = recipe.warmup_steps or math.floor(per_epoch * (recipe.warmup_epochs or 0))
    if warmup >= total:
        key = "warmup_steps" if recipe.warmup_epochs is None else "warmup_epochs"
        raise InputError(
            f"{key}: the warm-up of {warmup} updates is no shorter than the run of {total}"
        )
    return total, warmup


def build_schedule(
    recipe: Recipe, optimizer: torch.optim.Optimizer, updates: int, warmup: int
) -> Scheduler:
    """Make the learning rate's course: a linear warm-up, then a cosine, by update.

    The cosine runs over the whole length; the warm-up covers its start, as in timm.
    """
    schedule: Scheduler
    schedule, _ = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=updates,
        warmup_epochs=warmup,
        min_lr=recipe.min_learning_rate,
        warmup_lr=recipe.warmup_learning_rate,
        step_on_epochs=False,
        updates_per_epoch=1,
    )
    return schedule
