"""Masks that follow the edges of the picture: hole filling and a dense CRF."""

from __future__ import annotations

from typing import get_args

import numpy as np
import scipy.ndimage
from jaxtyping import Bool, UInt8

from crate_interp.config import Refine
from crate_interp.errors import InputError

__all__ = ["fill_holes", "refine_masks"]

_MIN_IOU = 0.5


def fill_holes(masks: Bool[np.ndarray, "M H W"]) -> Bool[np.ndarray, "M H W"]:
    """Add to each mask the background that its 4-connected surroundings do not reach.

    Args:
        masks: Any number of masks, also none.

    Raises:
        InputError: Not a bool array of shape (M, H, W).
    """
    _check_masks(masks)
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
) -> Bool[np.ndarray, "M2 H W"]:
    """Refine each mask against the image, and drop those that changed too much.

    The fully connected CRF of two labels has the unary energy -log softmax(1 - mask, mask), an
    appearance and a smoothness kernel. The holes of its result are filled; a mask whose IoU with
    its result is below 0.5, or that is empty, is dropped.

    Args:
        image: RGB in [0, 255], in the frame of the masks.
        masks: Any number of masks, also none.
        method: `crf`, or `none` to return the masks as they are.
        gaussian: Smoothness kernel: deviation in pixels, weight.
        bilateral: Appearance kernel: deviation in pixels, deviation in RGB levels, weight.
        iterations: Mean-field iterations, at least 1.

    Returns:
        The masks that were kept, refined, in order.

    Raises:
        InputError: Shapes or types do not agree; the method is unknown; a parameter is not
            positive; `crf` without the extra that brings pydensecrf2.

    Reference:
        Krähenbühl and Koltun, Efficient Inference in Fully Connected CRFs with Gaussian Edge
        Potentials (arXiv 1210.5644); parameters as in Wang et al. (arXiv 2301.11320).
    """
    if method not in get_args(Refine):
        raise InputError(f"method: expected one of {get_args(Refine)}, found {method!r}")
    _check_masks(masks)
    expected = (*masks.shape[1:], 3)
    if image.dtype != np.uint8 or image.shape != expected:
        raise InputError(
            f"image: expected uint8 of shape {expected}, found {image.dtype} of {image.shape}"
        )
    if min(*gaussian, *bilateral, iterations) <= 0:
        raise InputError(
            "CRF: expected positive parameters, found "
            f"gaussian={gaussian}, bilateral={bilateral}, iterations={iterations}"
        )
    if method == "none":
        return masks
    crf = [_crf(image, mask, gaussian, bilateral, iterations) for mask in masks]
    refined = fill_holes(np.array(crf, dtype=np.bool_).reshape(masks.shape))
    intersection = (masks & refined).sum(axis=(1, 2))
    union = (masks | refined).sum(axis=(1, 2))
    kept = masks.any(axis=(1, 2)) & (intersection >= _MIN_IOU * union)
    return np.asarray(refined[kept])


def _check_masks(masks: Bool[np.ndarray, "M H W"]) -> None:
    if masks.ndim != 3 or masks.dtype != np.bool_:
        raise InputError(
            "masks: expected a bool array of shape (M, H, W), "
            f"found {masks.dtype} of shape {masks.shape}"
        )


def _crf(
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
            "refinement by CRF needs the package pydensecrf2, which is not installed: "
            'pip install "crate-interp[crf]" (Python 3.12 or earlier, and a C++ compiler)'
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
        rgbim=np.ascontiguousarray(image),
        compat=bilateral[2],
    )
    labels = np.argmax(crf.inference(iterations), axis=0)
    return np.asarray(labels.reshape(height, width) == 1)
