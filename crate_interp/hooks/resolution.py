"""Runs a backbone at any resolution, and with denser tokens than it was trained with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from typing import Any

from timm.layers import Format, HybridEmbed

from crate_interp.errors import InputError
from crate_interp.hooks.own_passes import changed, original_of, seen_here, uncompiled
from crate_interp.hooks.sites import blocks_of

__all__ = ["any_resolution", "check_resolution", "check_stride", "grid_size_of"]


def grid_size_of(model: Any, input_hw: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patch tokens for an input of `input_hw` pixels."""
    patch_embed = seen_here(model.patch_embed)
    if isinstance(patch_embed, HybridEmbed):  # its patches are cut from the stem's features
        rows, columns = patch_embed.dynamic_feat_size((input_hw[0], input_hw[1]))
        return int(rows), int(columns)
    pads = getattr(patch_embed, "dynamic_img_pad", False)
    rows, columns = (
        (size + (-size % patch if pads else 0) - patch) // stride + 1
        for size, patch, stride in zip(
            input_hw, patch_embed.patch_size, patch_embed.proj.stride, strict=True
        )
    )
    return rows, columns


def check_resolution(model: Any) -> None:
    """Refuse a model that cannot take images of any whole number of patches.

    Raises:
        InputError: No vision transformer, or one that does not resample its position embedding to
            the grid of an image, as timm's `VisionTransformer` and `Eva` do.
    """
    blocks_of(model)
    if not (
        hasattr(model, "dynamic_img_size")
        and hasattr(model, "_pos_embed")
        and hasattr(model.patch_embed, "patch_size")
        and hasattr(model.patch_embed, "proj")
    ):
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
    if isinstance(model.patch_embed, HybridEmbed):
        raise InputError(f"stride {stride}: the patches of a model with a stem cannot overlap")
    patch_hw = model.patch_embed.patch_size
    if not 1 <= stride <= min(patch_hw):
        raise InputError(f"stride {stride}: expected 1 to the patch size {tuple(patch_hw)}")


@contextmanager
def any_resolution(model: Any, stride: int | None = None) -> Iterator[None]:
    """Let a vision transformer take any whole number of patches, non-square too, in a `with` block.

    The position embedding is resampled to the grid of each input (bicubic, as timm does; the class
    token's entry is kept). Only passes of the thread that runs the block are changed; for these,
    compiled models run as they were written.

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
    patch_embed = seen_here(model.patch_embed)
    attributes: dict[str, Any] = {}
    if stride is not None:
        check_stride(model, stride)
        attributes["proj"] = dense = copy(patch_embed.proj)
        dense.stride = (stride, stride)
    with ExitStack() as changes:
        changes.enter_context(uncompiled())
        if not seen_here(model).dynamic_img_size:
            attributes |= {
                "strict_img_size": False,
                "flatten": False,
                "output_fmt": Format.NHWC,
            }
            changes.enter_context(changed(model, ["_pos_embed"], dynamic_img_size=True))
        if attributes:
            methods = ["forward", "dynamic_feat_size"]
            changes.enter_context(changed(model.patch_embed, methods, **attributes))
        yield
