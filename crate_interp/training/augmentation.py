"""Augmentation of training images and preparation of validation images, both by timm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from PIL import Image
from timm.data import create_transform
from torch import Tensor

from crate_interp.training.recipe import Recipe

__all__ = ["Normalisation", "Transform", "training_transform", "validation_preparation"]

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
Transform = Callable[[Image.Image], Float[Tensor, "3 H W"]]


def validation_preparation(recipe: Recipe) -> dict[str, Any]:
    """Give the arguments of timm's transform for validation images; mean and deviation are missing.

    Images are not cropped where training does not crop either.
    """
    whole = recipe.data == "scenes" or recipe.crop_area is None
    return {
        "input_size": (3, recipe.image_size, recipe.image_size),
        "crop_pct": recipe.crop_pct or (1.0 if whole else None),
        "interpolation": _fixed(recipe.interpolation),
    }


def training_transform(recipe: Recipe, size: int, normalisation: Normalisation) -> Transform:
    """Make what augments a training image.

    Args:
        recipe: Strength of the augmentation.
        size: Side of the square that comes out, pixels.
        normalisation: Mean and standard deviation of RGB in [0, 1].
    """
    augmentation: dict[str, Any] = {"no_aug": True, "interpolation": _fixed(recipe.interpolation)}
    if recipe.crop_area is not None:
        augmentation = {
            "scale": recipe.crop_area,
            "hflip": recipe.flip,
            "color_jitter": recipe.color_jitter,
            "auto_augment": recipe.auto_augment,
            "re_prob": recipe.random_erasing,
            "interpolation": recipe.interpolation,
        }
    mean, std = normalisation
    transform: Transform = create_transform(
        size, is_training=True, mean=mean, std=std, **augmentation
    )
    return transform


def _fixed(interpolation: str) -> str:
    return "bicubic" if interpolation == "random" else interpolation
