"""Patches of images, which of them are hidden, and how far a prediction of these is off.

Shapes: B batch, n patches of an image, C colours, H W pixels; `pixels` is the numbers in a patch,
flattened as (row, column, colour).

Reference: Masked Autoencoders Are Scalable Vision Learners, arXiv 2111.06377, section 3.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crate_interp.errors import InputError

__all__ = [
    "cut_patches",
    "draw_mask",
    "hidden_patches",
    "join_patches",
    "patch_statistics",
    "reconstruction_errors",
]


def hidden_patches(patches: int, mask_ratio: float) -> int:
    """Count the patches to hide: the ratio's share, rounded.

    Args:
        patches: Number of patches of an image.
        mask_ratio: Share to hide, between 0 and 1.

    Raises:
        InputError: No patch would be hidden, or none seen.
    """
    count = round(patches * mask_ratio) if 0 < mask_ratio < 1 else 0
    if not 0 < count < patches:
        raise InputError(
            f"mask_ratio: expected a share between 0 and 1 that hides some of {patches} patches "
            f"and not all, found {mask_ratio}"
        )
    return count


def draw_mask(
    patches: int, mask_ratio: float, generator: torch.Generator | None = None
) -> Bool[Tensor, " n"]:
    """Choose the patches of an image to hide, True for them; every set of as many is as likely.

    Errors are those of `hidden_patches`.

    Args:
        patches: Number of patches of the image.
        mask_ratio: Share to hide, between 0 and 1.
        generator: Generator of random numbers, on the CPU; `None`: torch's global one.
    """
    mask = torch.zeros(patches, dtype=torch.bool)
    order = torch.randperm(patches, generator=generator)
    mask[order[: hidden_patches(patches, mask_ratio)]] = True
    return mask


def cut_patches(
    images: Float[Tensor, "B C H W"], patch_size: tuple[int, int]
) -> Float[Tensor, "B n pixels"]:
    """Cut images into patches, row by row.

    Args:
        images: Images, a whole number of patches high and wide.
        patch_size: Height and width of a patch, pixels.

    Raises:
        InputError: The images are not a whole number of patches.
    """
    (height, width), (rows, columns) = images.shape[2:], patch_size
    if height % rows or width % columns:
        raise InputError(
            f"images: expected a multiple of {rows}x{columns} pixels, found {height}x{width}"
        )
    cut = images.unflatten(3, (-1, columns)).unflatten(2, (-1, rows))  # (B, C, h, p1, w, p2)
    patches: Tensor = cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    return patches


def join_patches(
    patches: Float[Tensor, "B n pixels"], patch_size: tuple[int, int], grid_size: tuple[int, int]
) -> Float[Tensor, "B C H W"]:
    """Put patches together again; the inverse of `cut_patches`.

    Args:
        patches: Patches, row by row.
        patch_size: Height and width of a patch, pixels.
        grid_size: Rows and columns of patches.

    Raises:
        InputError: There are more or fewer patches than the grid has.
    """
    if patches.shape[1] != grid_size[0] * grid_size[1]:
        raise InputError(
            f"patches: expected {grid_size[0]}x{grid_size[1]}, found {patches.shape[1]}"
        )
    cut = patches.unflatten(2, (*patch_size, -1)).unflatten(1, grid_size)
    joined: Tensor = cut.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)
    return joined  # (B, C, h p1, w p2)


def patch_statistics(
    patches: Float[Tensor, "B n pixels"],
) -> tuple[Float[Tensor, "B n 1"], Float[Tensor, "B n 1"]]:
    """Mean and standard deviation of each patch, its colours together, as MAE normalises targets.

    The variance is the unbiased one plus 1e-6, so that a patch of one colour has a deviation too.
    """
    mean = patches.mean(dim=2, keepdim=True)
    # Not torch.var: it warns of a batch without images.
    variance = (patches - mean).square().sum(dim=2, keepdim=True) / (patches.shape[2] - 1)
    return mean, (variance + 1e-6).sqrt()


def reconstruction_errors(
    predicted: Float[Tensor, "B n pixels"],
    images: Float[Tensor, "B C H W"],
    mask: Bool[Tensor, "B n"],
    patch_size: tuple[int, int],
    normalised_target: bool,
) -> Float[Tensor, " B"]:
    """Mean squared error of the hidden patches of each image; seen ones do not count.

    Args:
        predicted: Predicted pixels of all patches.
        images: Images as the model saw them.
        mask: True for the hidden patches, as many in every image.
        patch_size: Height and width of a patch, pixels.
        normalised_target: Compare with patches less their mean and over their deviation.
    """
    target = cut_patches(images, patch_size)
    if normalised_target:
        mean, deviation = patch_statistics(target)
        target = (target - mean) / deviation
    squares = (predicted - target).square().mean(dim=2)
    errors: Tensor = (squares * mask).sum(dim=1) / mask.sum(dim=1)
    return errors
