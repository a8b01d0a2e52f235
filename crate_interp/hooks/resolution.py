"""Runs a backbone at any resolution, and with denser tokens than it was trained with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from typing import Any

from timm.layers import Format
from torch import Tensor, nn

from crate_interp.errors import InputError
from crate_interp.hooks.own_passes import changed, hooked, original_of, seen_here, uncompiled
from crate_interp.models.backbones import (
    RotaryOfAnyGrid,
    blocks_of,
    embedding_of,
    has_absolute_positions,
    has_stem,
    patch_grid_of,
    projection_of,
    relative_positions,
    takes_any_grid,
)

__all__ = ["any_resolution", "check_resolution", "check_stride", "grid_size_of"]


def grid_size_of(model: Any, input_hw: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patch tokens for an input of `input_hw` pixels."""
    return patch_grid_of(seen_here(embedding_of(model)), input_hw)


def check_resolution(model: Any) -> None:
    """Refuse a model that cannot take images of any whole number of patches.

    Raises:
        InputError: No vision transformer, or one that does not resample its positions to the grid
            of an image.
    """
    blocks_of(model)
    if not takes_any_grid(model):
        raise InputError(
            f"{type(model).__name__} cannot change its resolution: expected a CRATE family model "
            "or a timm vision transformer that resamples its position embedding"
        )


def check_stride(model: Any, stride: int) -> None:
    """Refuse a stride that leaves gaps between the patches, or does not move.

    Raises:
        InputError: The stride is not between 1 and the patch size, or the patches are not cut
            from the image.
    """
    patch_embed = embedding_of(model)
    if has_stem(patch_embed):
        raise InputError(f"stride {stride}: the patches of a model with a stem cannot overlap")
    if not hasattr(projection_of(patch_embed), "stride"):
        raise InputError(f"stride {stride}: patches that a linear layer projects cannot overlap")
    patch_hw = patch_embed.patch_size
    if not 1 <= stride <= min(patch_hw):
        raise InputError(f"stride {stride}: expected 1 to the patch size {tuple(patch_hw)}")


@contextmanager
def any_resolution(model: Any, stride: int | None = None) -> Iterator[None]:
    """Let a vision transformer take any whole number of patches, non-square too, in a `with` block.

    The position embedding is resampled to the grid of each input (bicubic, as timm does; the class
    token's entry is kept), and so is a bias of relative positions (as timm's `set_window_size`
    does). Only passes of the thread that runs the block are changed; for these, compiled models run
    as they were written.

    Args:
        model: A CRATE family model or a timm vision transformer.
        stride: Pixels between neighbouring patches; smaller than the patch size gives denser,
            overlapping tokens without any new weight (Amir et al. 2021, arXiv 2112.05814).
            `None` leaves the model's own.

    Raises:
        InputError: The stride is not between 1 and the patch size; a model that cannot change its
            resolution.
    """
    model = original_of(model)
    check_resolution(model)
    embedding = embedding_of(model)
    attributes: dict[str, Any] = {}
    if stride is not None:
        check_stride(model, stride)
        attributes["proj"] = dense = copy(seen_here(embedding).proj)
        dense.stride = (stride, stride)
    with ExitStack() as changes:
        changes.enter_context(uncompiled())
        if not has_absolute_positions(model):
            attributes["strict_img_size"] = False
            _fit_relative_positions(model, changes)
        elif not seen_here(model).dynamic_img_size:
            attributes |= {
                "strict_img_size": False,
                "flatten": False,
                "output_fmt": Format.NHWC,
            }
            positions: dict[str, Any] = {"dynamic_img_size": True}
            if getattr(model, "rope", None) is not None:
                positions["rope"] = RotaryOfAnyGrid(model.rope)
            changes.enter_context(changed(model, ["_pos_embed"], **positions))
        if attributes:
            methods = ["forward", "dynamic_feat_size"]
            changes.enter_context(changed(embedding, methods, **attributes))
        yield


def _fit_relative_positions(model: nn.Module, changes: ExitStack) -> None:
    """Give the modules of relative positions, as this thread sees them, the grid of each input."""
    modules = [module for module, _ in relative_positions(model)]
    as_they_are = [_copy_of(seen_here(module)) for module in modules]
    for module, method in relative_positions(model):
        changes.enter_context(changed(module, [method]))

    def fit(embedding: nn.Module, args: tuple[Tensor, ...], _: Any) -> None:
        grid = patch_grid_of(seen_here(embedding), (args[0].shape[-2], args[0].shape[-1]))
        for module, own in zip(modules, as_they_are, strict=True):
            seen = seen_here(module)
            if tuple(seen.window_size) != grid:
                fitted = _copy_of(own)
                fitted.set_window_size(grid)
                vars(seen).update(vars(fitted))

    changes.enter_context(hooked(embedding_of(model), fit, before=True))


def _copy_of(module: nn.Module) -> Any:
    """A copy that shares parameters and buffers, and can be given others."""
    copied = copy(module)
    for kind in ("_parameters", "_buffers"):
        vars(copied)[kind] = dict(vars(copied)[kind])
    return copied
