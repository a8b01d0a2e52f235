"""Weights of another patch size or grid, resampled to those of a model.

Two ways. `preserving`, timm's: the patch kernel by the pseudo-inverse of the patch's own resizing
and the positions bicubic, so that the model computes nearly what it did. `linear`, that of
CRATE-alpha's training from L/32 to L/14 to L/8: the kernel bilinear, as an image, the positions
linear between the corners of the grid; the training that follows makes good for the change.
Reference: Scaling White-Box Transformers for Vision, arXiv 2405.20299, and its released code.

Shapes: D embed dim, N tokens, C colours.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor

from crate_interp.models.backbones import embedding_of
from crate_interp.models.patches import PatchProjection
from crate_interp.weights.layout import Way

__all__ = ["CLASSIFIER", "patch_size_of", "resample", "resample_patches", "resample_positions"]

logger = logging.getLogger(__name__)

STEM = "patch_embed.proj."
CLASSIFIER = ("head.", "head_dist.")


def resample(tensors: dict[str, Tensor], model: Any, way: Way, any_grid: bool) -> None:
    """Resample patches and positions to those of a model.

    Args:
        tensors: Weights by the parameter's name; changed. In the linear way the classifier of
            other patches is left out, as in CRATE-alpha's training.
        model: A timm VisionTransformer or one of ours.
        way: See the module.
        any_grid: As for `resample_positions`.
    """
    other_patches = resample_patches(tensors, model, way)
    if "pos_embed" in tensors:
        tensors["pos_embed"] = resample_positions(tensors["pos_embed"], model, way, any_grid)
    if other_patches and way == "linear":
        for key in [key for key in tensors if key.startswith(CLASSIFIER)]:
            del tensors[key]


def patch_size_of(tensors: Mapping[str, Tensor], in_chans: int = 3) -> int | None:
    """Read the side of a square patch off a patch embedding, pixels; `None` if it does not tell."""
    kernel = tensors.get(f"{STEM}weight")
    if kernel is not None and kernel.ndim == 4:
        return kernel.shape[-1]
    pixels = tensors.get(f"{STEM}norm.weight")
    side = 0 if pixels is None else math.isqrt(pixels.numel() // in_chans)
    return side if pixels is not None and side * side * in_chans == pixels.numel() else None


def resample_patches(tensors: dict[str, Tensor], model: Any, way: Way) -> bool:
    """Resample a patch embedding as `resample` does; return whether its patches were others."""
    side = patch_size_of(tensors, model.in_chans)
    rows, columns = embedding_of(model).patch_size
    if side is None or (side, side) == (rows, columns):
        return False
    for key in [key for key in tensors if key.startswith(STEM)]:
        resampled = _resampled(key.removeprefix(STEM), tensors[key], side, model, way)
        if resampled is not tensors[key]:
            logger.info("%s resampled from %dx%d pixels to %dx%d", key, side, side, rows, columns)
            tensors[key] = resampled
    return True


def _resampled(name: str, tensor: Tensor, side: int, model: Any, way: Way) -> Tensor:
    projection = model.patch_embed.proj
    if isinstance(projection, PatchProjection):
        if tensor.shape[-1] != side * side * model.in_chans:
            return tensor
        return projection.resampled(name, tensor, (side, side), bilinear=way == "linear")
    if tensor.ndim != 4:
        return tensor
    size = list(projection.kernel_size)
    if way == "linear":  # antialiased where it shrinks, as jax.image.resize does it
        resized = F.interpolate(tensor.float(), size, mode="bilinear", antialias=True)
        return resized.to(tensor.dtype)
    preserving: Tensor = resample_patch_embed(tensor, size)
    return preserving


def resample_positions(
    positions: Float[Tensor, "1 N D"], model: Any, way: Way, any_grid: bool
) -> Float[Tensor, "1 M D"]:
    """Resample the position embeddings of a square grid to the grid of a model.

    Args:
        positions: Positions of the class token, if the model has one for it, and of the patches.
        model: As for `resample`.
        way: As for `resample`.
        any_grid: Whether the grid they are of may be another than square; as many patches as the
            model has are then taken for the model's grid.

    Returns:
        Those of the class token unchanged, those of the patches resampled if need be.
    """
    if positions.ndim != 3:
        return positions
    rows, columns = model.patch_embed.grid_size
    prefix = 0 if model.no_embed_class else model.num_prefix_tokens
    patches = positions.shape[1] - prefix
    side = math.isqrt(max(patches, 0))
    square = rows == columns or not any_grid
    if (
        side < 1
        or side * side != patches
        or (patches == rows * columns and (rows == side or not square))
    ):
        return positions
    logger.info("positions resampled from %dx%d patches to %dx%d", side, side, rows, columns)
    if way == "preserving":
        preserving: Tensor = resample_abs_pos_embed(
            positions, [rows, columns], [side, side], num_prefix_tokens=prefix
        )
        return preserving
    grid = positions[:, prefix:].unflatten(1, (side, side)).movedim(-1, 1)  # (1, D, h, w)
    resized = F.interpolate(grid.float(), (rows, columns), mode="bilinear", align_corners=True)
    patch_positions = resized.to(positions.dtype).flatten(2).transpose(1, 2)
    return torch.cat([positions[:, :prefix], patch_positions], dim=1)
