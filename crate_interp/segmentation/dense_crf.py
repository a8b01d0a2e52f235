"""The dense CRF: mean-field inference where every pixel is a neighbour of every other."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.segmentation.permutohedral import PermutohedralLattice

__all__ = ["check_crf", "check_masks", "dense_crf", "dense_crf_labels"]


def dense_crf(
    image: UInt8[np.ndarray, "H W 3"],
    masks: Bool[np.ndarray, "M H W"],
    *,
    gaussian: tuple[float, float] = (3.0, 7.0),
    bilateral: tuple[float, float, float] = (50.0, 5.0, 10.0),
    iterations: int = 10,
    device: str | torch.device = "cpu",
) -> Float[np.ndarray, "M H W"]:
    """Compute how likely each pixel belongs to each mask, given where the image has edges.

    Each mask is a problem of its own, of two labels with the unary energy -log softmax(1 - mask,
    mask); the masks share the image, and so the kernels. Kernels are normalised symmetrically, as
    pydensecrf does by default.

    Args:
        image: RGB in [0, 255].
        masks: Any number of masks, also none.
        gaussian: Smoothness kernel: deviation in pixels, weight.
        bilateral: Appearance kernel: deviation in pixels, deviation in RGB levels, weight.
        iterations: Number of mean-field updates, at least 1.
        device: Device to compute on.

    Returns:
        Marginals of the foreground, in [0, 1].

    Raises:
        InputError: Shapes or types do not agree, or a parameter is not positive.

    Reference:
        Krähenbühl and Koltun, Efficient Inference in Fully Connected CRFs with Gaussian Edge
        Potentials (arXiv 1210.5644).
    """
    check_masks(masks)
    check_crf(image, masks.shape[1:], gaussian, bilateral, iterations)
    if 0 in masks.shape:
        return np.zeros(masks.shape, dtype=np.float32)
    with torch.inference_mode():
        kernels = _kernels(image, gaussian, bilateral, torch.device(device))
        flat = torch.tensor(masks, device=device).flatten(1).T.contiguous()
        unary = 2.0 * flat - 1.0  # log-odds of the foreground
        marginals = unary.sigmoid()
        for _ in range(iterations):
            # Log-odds are moved by what foreground gets less what background, the rest, gets.
            marginals = _add_messages(unary, kernels, 2.0 * marginals - 1.0).sigmoid_()
        return marginals.T.reshape(masks.shape).cpu().numpy()


def dense_crf_labels(
    image: UInt8[np.ndarray, "H W 3"],
    energies: Float[np.ndarray, "L H W"],
    *,
    gaussian: tuple[float, float] = (3.0, 7.0),
    bilateral: tuple[float, float, float] = (50.0, 5.0, 10.0),
    iterations: int = 10,
    device: str | torch.device = "cpu",
) -> Float[np.ndarray, "L H W"]:
    """Compute how likely each pixel has each of several labels, given where the image has edges.

    Args:
        image: RGB in [0, 255].
        energies: Unary energy of each label at each pixel, for instance -log of a probability.
        gaussian: As for `dense_crf`.
        bilateral: As for `dense_crf`.
        iterations: As for `dense_crf`.
        device: Device to compute on.

    Returns:
        Marginals, which sum to 1 over the labels.

    Raises:
        InputError: As for `dense_crf`; no label, or an energy that is not finite.

    Reference:
        As for `dense_crf`; the labels are compatible as in the Potts model.
    """
    if energies.ndim != 3 or len(energies) < 1 or not np.isfinite(energies).all():
        raise InputError(
            "energies: expected finite numbers of shape (L, H, W), at least one label, "
            f"found {energies.dtype} of shape {energies.shape}"
        )
    check_crf(image, energies.shape[1:], gaussian, bilateral, iterations)
    if 0 in energies.shape:
        return np.zeros(energies.shape, dtype=np.float32)
    with torch.inference_mode():
        kernels = _kernels(image, gaussian, bilateral, torch.device(device))
        unary = -torch.tensor(energies, dtype=torch.float32, device=device)
        unary = unary.flatten(1).T.contiguous()
        marginals = unary.softmax(dim=1)
        for _ in range(iterations):
            marginals = _add_messages(unary, kernels, marginals).softmax(dim=1)
        return marginals.T.reshape(energies.shape).cpu().numpy()


def _add_messages(
    unary: Float[Tensor, "P C"],
    kernels: list[tuple[float, PermutohedralLattice]],
    values: Float[Tensor, "P C"],
) -> Float[Tensor, "P C"]:
    """The unary term and what all pixels say to each, by every kernel; a new tensor."""
    sums = unary.clone()
    for weight, lattice in kernels:
        sums.add_(lattice.filter(values), alpha=weight)
    return sums


def check_masks(masks: Bool[np.ndarray, "M H W"]) -> None:
    """Refuse what is no stack of masks.

    Raises:
        InputError: Not a bool array of shape (M, H, W).
    """
    if masks.ndim != 3 or masks.dtype != np.bool_:
        raise InputError(
            "masks: expected a bool array of shape (M, H, W), "
            f"found {masks.dtype} of shape {masks.shape}"
        )


def check_crf(
    image: np.ndarray,
    size_hw: tuple[int, ...],
    gaussian: tuple[float, float],
    bilateral: tuple[float, float, float],
    iterations: int,
) -> None:
    """Refuse an image or parameters that no CRF can have.

    Raises:
        InputError: The image is not uint8 RGB of `size_hw`, or a parameter is not positive.
    """
    if image.dtype != np.uint8 or image.shape != (*size_hw, 3):
        raise InputError(
            f"image: expected uint8 of shape {(*size_hw, 3)}, found {image.dtype} of {image.shape}"
        )
    if not min(*gaussian, *bilateral, iterations) > 0:
        raise InputError(
            "CRF: expected positive parameters, found "
            f"gaussian={gaussian}, bilateral={bilateral}, iterations={iterations}"
        )


def _kernels(
    image: UInt8[np.ndarray, "H W 3"],
    gaussian: tuple[float, float],
    bilateral: tuple[float, float, float],
    device: torch.device,
) -> list[tuple[float, PermutohedralLattice]]:
    """Make the two kernels, each with its weight."""
    height, width = image.shape[:2]
    colours = torch.tensor(image, device=device).view(-1, 3).T
    places = _places(height, width, device)
    features = torch.cat([places / bilateral[0], colours / bilateral[1]])
    appearance = PermutohedralLattice(features)
    appearance.normalise()
    return [
        (gaussian[1], _smoothness(height, width, gaussian[0], device)),
        (bilateral[2], appearance),
    ]


@lru_cache(maxsize=4)
def _smoothness(
    height: int, width: int, deviation: float, device: torch.device
) -> PermutohedralLattice:
    """The kernel that depends on the size of the image alone."""
    lattice = PermutohedralLattice(_places(height, width, device) / deviation)
    lattice.normalise()
    return lattice


def _places(height: int, width: int, device: torch.device) -> Float[Tensor, "2 H*W"]:
    y = torch.arange(height, dtype=torch.float32, device=device)
    x = torch.arange(width, dtype=torch.float32, device=device)
    return torch.stack([x.repeat(height), y.repeat_interleave(width)])
