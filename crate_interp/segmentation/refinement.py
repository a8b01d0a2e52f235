"""Masks that follow the edges of the image: hole filling, a dense CRF and the bilateral solver."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import scipy.ndimage
import torch
from jaxtyping import Bool, UInt8

from crate_interp.data import resize_image
from crate_interp.errors import InputError
from crate_interp.options.choices import Refine
from crate_interp.segmentation.bilateral_solver import bilateral_solver
from crate_interp.segmentation.dense_crf import check_crf, check_masks, dense_crf
from crate_interp.structures import ImageGeometry, Instances

__all__ = ["fill_holes", "on_original", "refine_masks"]

_logger = logging.getLogger(__name__)

_MIN_IOU = 0.5
PARAMETERS: Any = {"gaussian": (3.0, 7.0), "bilateral": (50.0, 5.0, 10.0), "iterations": 10}


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
    gaussian: tuple[float, float] = PARAMETERS["gaussian"],
    bilateral: tuple[float, float, float] = PARAMETERS["bilateral"],
    iterations: int = PARAMETERS["iterations"],
    device: str | torch.device = "cpu",
) -> Bool[np.ndarray, "M2 H W"]:
    """Refine each mask against the image, and drop those that changed too much.

    The CRF is that of `dense_crf`; the bilateral solver's map is cut at 0.5. The holes of the
    result are filled, and of the solver's, which is made for one object, the largest 4-connected
    part is kept. A mask whose IoU with its result is below 0.5, or that is empty, is dropped.

    Args:
        image: RGB in [0, 255], in the frame of the masks.
        masks: Any number of masks, also none.
        method: `crf`; `pydensecrf`, the reference, slower and on the CPU; `bilateral`, the
            refinement of TokenCut, see `bilateral_solver`; or `none` to return the masks as they
            are.
        gaussian: As for `dense_crf`.
        bilateral: As for `dense_crf`.
        iterations: As for `dense_crf`.
        device: Device that computes `crf`.

    Returns:
        The masks that were kept, refined, in order.

    Raises:
        InputError: Shapes or types do not agree; the method is unknown; a parameter is not
            positive; `pydensecrf` without the extra that brings it.

    Reference:
        Krähenbühl and Koltun, Efficient Inference in Fully Connected CRFs with Gaussian Edge
        Potentials (arXiv 1210.5644); parameters as in Wang et al. (arXiv 2301.11320). Barron and
        Poole, The Fast Bilateral Solver (arXiv 1511.03296); used as in Wang et al. (arXiv
        2202.11539), whose release takes the second largest part of all, background included: the
        object, as long as the background is larger.
    """
    if method not in get_args(Refine):
        raise InputError(f"method: expected one of {get_args(Refine)}, found {method!r}")
    check_masks(masks)
    check_crf(image, masks.shape[1:], gaussian, bilateral, iterations)
    if method == "none":
        return masks
    parameters = {"gaussian": gaussian, "bilateral": bilateral, "iterations": iterations}
    refined, kept = _refine(image, masks, method, parameters, device)
    return np.asarray(refined[kept])


def _refine(
    image: UInt8[np.ndarray, "H W 3"],
    masks: Bool[np.ndarray, "M H W"],
    method: Refine,
    parameters: Mapping[str, Any],
    device: str | torch.device,
) -> tuple[Bool[np.ndarray, "M H W"], Bool[np.ndarray, " M"]]:
    """Refine all masks, and say which changed so little that they are kept."""
    if method == "crf":
        likely = dense_crf(image, masks, **parameters, device=device) > 0.5
    elif method == "bilateral":
        likely = bilateral_solver(image, masks) > 0.5
    else:
        labels = [_pydensecrf(image, mask, **parameters) for mask in masks]
        likely = np.array(labels, dtype=np.bool_).reshape(masks.shape)
    refined = fill_holes(likely)
    if method == "bilateral":
        refined = _largest_parts(refined)
    intersection = (masks & refined).sum(axis=(1, 2))
    union = (masks | refined).sum(axis=(1, 2))
    kept = masks.any(axis=(1, 2)) & (intersection >= _MIN_IOU * union)
    return refined, kept


def _largest_parts(masks: Bool[np.ndarray, "M H W"]) -> Bool[np.ndarray, "M H W"]:
    """Keep the largest 4-connected part of each mask; the first one, among equals."""
    kept = np.zeros_like(masks)
    for part, mask in zip(kept, masks, strict=True):
        labels, count = scipy.ndimage.label(mask)
        if count:
            part[:] = labels == 1 + np.bincount(labels.ravel())[1:].argmax()
    return kept


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


def on_original(
    instances: Instances,
    geometry: ImageGeometry,
    rgb: UInt8[np.ndarray, "H W 3"],
    refine: Refine,
    device: str | torch.device,
    name: str = "image",
) -> Instances:
    """Refine instances of the patch grid, and bring them to the pixels of the original image.

    Args:
        instances: Masks on the grid, with scores.
        geometry: Geometry of the grid, the model's input and the original image.
        rgb: The image in [0, 255], of any size; refinement looks at it at the size of the input.
        refine: As for `refine_masks`.
        device: As for `refine_masks`.
        name: Name of the image, for the log, which says if refinement drops all masks.

    Returns:
        The masks that refinement keeps and that have a pixel, with their scores.
    """
    masks, scores = geometry.grid_to_input(instances.masks), instances.scores
    if refine != "none":
        resized = resize_image(rgb, geometry.input_hw)
        refined, kept = _refine(resized, masks, refine, PARAMETERS, device)
        if len(masks) and not kept.any():
            _logger.warning("%s: refinement by %s drops all masks", name, refine)
        masks, scores = refined[kept], scores[kept]
    masks = geometry.input_to_original(masks)
    seen = masks.any(axis=(1, 2))
    return Instances(masks[seen], scores[seen])
