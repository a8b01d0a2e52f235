"""Masks that follow the edges of the image: hole filling and a dense CRF."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import scipy.ndimage
import torch
from jaxtyping import Bool, UInt8

from crate_interp.errors import InputError
from crate_interp.options.choices import Refine
from crate_interp.segmentation.dense_crf import check_crf, check_masks, dense_crf

__all__ = ["fill_holes", "refine_masks"]

_MIN_IOU = 0.5


def fill_holes(masks: Bool[np.ndarray, "M H W"]) -> Bool[np.ndarray, "M H W"]:
    """Add to each mask the background that its 4-connected surroundings do not reach.

    Args:
        masks: Any number of masks, also none.

    Raises:
        InputError: Not a bool array of shape (M, H, W).
    """
    check_masks(masks)
    filled = np.empty_like(masks)
    for number, mask in enumerate(masks):
        filled[number] = scipy.ndimage.binary_fill_holes(mask)
    return filled


def refine_masks(
    image: UInt8[np.ndarray, "H W 3"],
    masks: Bool[np.ndarray, "M H W"],
    method: Refine = "crf",
    *,
    gaussian: tuple[float, float] = (3.0, 7.0),
    bilateral: tuple[float, float, float] = (50.0, 5.0, 10.0),
    iterations: int = 10,
    device: str | torch.device = "cpu",
) -> Bool[np.ndarray, "M2 H W"]:
    """Refine each mask against the image, and drop those that changed too much.

    The CRF is that of `dense_crf`. The holes of its result are filled; a mask whose IoU with its
    result is below 0.5, or that is empty, is dropped.

    Args:
        image: RGB in [0, 255], in the frame of the masks.
        masks: Any number of masks, also none.
        method: `crf`; `pydensecrf`, the reference, slower and on the CPU; or `none` to return the
            masks as they are.
        gaussian: As for `dense_crf`.
        bilateral: As for `dense_crf`.
        iterations: As for `dense_crf`.
        device: Where `crf` is computed.

    Returns:
        The masks that were kept, refined, in order.

    Raises:
        InputError: Shapes or types do not agree; the method is unknown; a parameter is not
            positive; `pydensecrf` without the extra that brings it.

    Reference:
        Krähenbühl and Koltun, Efficient Inference in Fully Connected CRFs with Gaussian Edge
        Potentials (arXiv 1210.5644); parameters as in Wang et al. (arXiv 2301.11320).
    """
    if method not in get_args(Refine):
        raise InputError(f"method: expected one of {get_args(Refine)}, found {method!r}")
    check_masks(masks)
    check_crf(image, masks.shape[1:], gaussian, bilateral, iterations)
    if method == "none":
        return masks
    parameters: dict[str, Any] = {
        "gaussian": gaussian,
        "bilateral": bilateral,
        "iterations": iterations,
    }
    if method == "crf":
        likely = dense_crf(image, masks, **parameters, device=device) > 0.5
    else:
        found = [_pydensecrf(image, mask, **parameters) for mask in masks]
        likely = np.array(found, dtype=np.bool_).reshape(masks.shape)
    refined = fill_holes(likely)
    intersection = (masks & refined).sum(axis=(1, 2))
    union = (masks | refined).sum(axis=(1, 2))
    kept = masks.any(axis=(1, 2)) & (intersection >= _MIN_IOU * union)
    return np.asarray(refined[kept])


def _pydensecrf(
    image: UInt8[np.ndarray, "H W 3"],
    mask: Bool[np.ndarray, "H W"],
    gaussian: tuple[float, float],
    bilateral: tuple[float, float, float],
    iterations: int,
) -> Bool[np.ndarray, "H W"]:
    try:
        from pydensecrf.densecrf import DenseCRF2D
    except ImportError as error:
        raise InputError(
            "refinement by pydensecrf needs the package pydensecrf2, which is not installed: "
            'pip install "crate-interp[crf]" (Python 3.12 or earlier, and a C++ compiler); or take '
            "`crf`, which needs neither"
        ) from error
    height, width = mask.shape
    values = np.stack([~mask, mask]).astype(np.float32)
    log_sum = np.log(np.exp(0.0) + np.exp(1.0))  # of the two values, one of which is 1
    crf = DenseCRF2D(width, height, 2)
    crf.setUnaryEnergy((log_sum - values).astype(np.float32).reshape(2, -1))
    crf.addPairwiseGaussian(sxy=gaussian[0], compat=gaussian[1])
    crf.addPairwiseBilateral(
        sxy=bilateral[0],
        srgb=bilateral[1],
        rgbim=image.copy(),  # it takes no array that is read-only
        compat=bilateral[2],
    )
    labels = np.argmax(crf.inference(iterations), axis=0)
    return np.asarray(labels.reshape(height, width) == 1)
