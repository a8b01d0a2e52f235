"""The parts of a run: model, loss, optimizer and schedule, made by timm from a recipe."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from timm.data import Mixup
from timm.layers import PatchDropout
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.models.vision_transformer import VisionTransformer
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn

from crate_interp.errors import InputError
from crate_interp.files import is_file
from crate_interp.models import CrateMaeAutoencoder
from crate_interp.models.mae import CrateMae, CrateMaeDecoder
from crate_interp.training.recipe import Recipe
from crate_interp.weights import (
    ModelName,
    ModelRecord,
    create_backbone,
    create_on_meta,
    names_a_file,
    read_checkpoint,
    resolve_name,
    resolve_weights,
)
from crate_interp.weights.fit import load_initial_into
from crate_interp.weights.mae import load_decoder_into

__all__ = [
    "backbone_of",
    "build_loss",
    "build_mixup",
    "build_model",
    "build_optimizer",
    "build_schedule",
    "record_of",
    "set_patch_drop",
    "updates_of",
]


def build_model(recipe: Recipe, num_classes: int) -> nn.Module:
    """Make the model of a recipe, in training mode, float32, on the CPU.

    Returns:
        A VisionTransformer; for reconstruction, one with its decoder.

    Raises:
        InputError: Unknown model, an argument that it refuses, an image size that is no whole
            number of patches, or reconstruction by a model that has no decoder.
        CheckpointError: The initial weights cannot be had or do not fit.
    """
    name = _name_of(recipe)
    arguments = _arguments_of(recipe)
    patches: Any = create_on_meta(name, **recipe.model_args).patch_embed
    for size in (recipe.image_size, *(stage.image_size for stage in recipe.staged)):
        if any(size % side for side in patches.patch_size):
            raise InputError(
                f"image_size: expected a multiple of the patch of {patches.patch_size[0]} pixels, "
                f"found {size}"
            )
    backbone = create_backbone(
        name,
        **arguments,
        num_classes=num_classes,
        drop_path_rate=recipe.drop_path,
        patch_drop_rate=max(part.patch_drop for part in (recipe, *recipe.staged)),
    )
    initial: Path | None = None
    if recipe.initial_weights is not None:
        initial = _initial_weights(recipe)
        load_initial_into(backbone, initial)
    model: CrateMaeAutoencoder | VisionTransformer = backbone
    if recipe.task == "reconstruction":
        model = _with_decoder(recipe, backbone, initial)
    if recipe.gradient_checkpointing:
        model.set_grad_checkpointing(True)
    if recipe.precision == "bfloat16" and not torch.cuda.is_available():
        modules: Iterable[Any] = model.modules()
        for module in modules:
            if hasattr(module, "fused_attn"):
                module.fused_attn = False  # its backward pass is slow on a CPU
    return model.train()


def _initial_weights(recipe: Recipe) -> Path:
    wanted = str(recipe.initial_weights)
    if wanted == "published":
        return resolve_weights(recipe.model)
    if is_file(Path(wanted)) or names_a_file(wanted):
        return resolve_weights(recipe.model, wanted)
    try:
        return resolve_weights(wanted)
    except InputError as error:
        raise InputError(f"initial_weights {wanted}: no such file, and {error}") from error


def _with_decoder(
    recipe: Recipe, encoder: VisionTransformer, initial: Path | None
) -> CrateMaeAutoencoder:
    if not isinstance(encoder, CrateMae):
        raise InputError(
            f"model {recipe.model}: expected a CRATE-MAE for the task reconstruction, found a "
            f"{type(encoder).__name__}"
        )
    decoder = CrateMaeDecoder.of(encoder)
    if initial is not None:
        load_decoder_into(decoder, read_checkpoint(initial))
    return CrateMaeAutoencoder(encoder, decoder, recipe.normalised_target)


def backbone_of(model: nn.Module) -> VisionTransformer:
    """Give what `load_backbone` would of a model in training: all of it, or its encoder."""
    backbone = model.encoder if isinstance(model, CrateMaeAutoencoder) else model
    return cast("VisionTransformer", backbone)


def set_patch_drop(model: VisionTransformer, share: float) -> None:
    """Leave out another share of the patches, if the model was built to leave out any."""
    if isinstance(model.patch_drop, PatchDropout):
        model.patch_drop.prob = share


def record_of(recipe: Recipe, backbone: VisionTransformer) -> ModelRecord:
    """What the exported file says about its model."""
    config: Any = backbone.pretrained_cfg
    return ModelRecord(
        model=str(_name_of(recipe)),
        model_args=_arguments_of(recipe),
        num_classes=backbone.num_classes,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _name_of(recipe: Recipe) -> ModelName:
    return ModelName(resolve_name(recipe.model).architecture, None)


def _arguments_of(recipe: Recipe) -> dict[str, Any]:
    return {**recipe.model_args, "img_size": recipe.image_size}


def build_mixup(recipe: Recipe, num_classes: int) -> Mixup | None:
    """Make what mixes a batch's images and labels; `None` if the recipe does not ask for it."""
    if not recipe.mixes:
        return None
    return Mixup(
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        prob=recipe.mix_probability,
        switch_prob=recipe.mix_switch_probability,
        label_smoothing=recipe.label_smoothing,
        num_classes=num_classes,
    )


def build_loss(recipe: Recipe) -> nn.Module:
    """Make the loss; where batches are mixed, the labels are smoothed there."""
    if recipe.mixes:
        return SoftTargetCrossEntropy()
    if recipe.label_smoothing > 0:
        return LabelSmoothingCrossEntropy(smoothing=recipe.label_smoothing)
    return nn.CrossEntropyLoss()


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
        recipe: Gives both in epochs or updates.
        pictures: Of an epoch, of which a last, smaller batch is left out.

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
