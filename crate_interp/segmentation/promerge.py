"""ProMerge: masks of patches that are like a prompt, merged where they overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import scipy.ndimage
from jaxtyping import Bool, Float
from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.models.float64 import to_float64
from crate_interp.segmentation.affinity import affinity, unit_columns
from crate_interp.segmentation.partition import checked_grid
from crate_interp.segmentation.segmenters.promerge import ProMergeSegmenter

__all__ = ["promerge"]

_MAX_SIDES = 1  # of the grid, of which an object covers more than half
_PART_SHARE = 0.5  # of the size of the part that holds the prompt
_BACKGROUND_SHARE = 0.5  # of the votes
_MIN_BACKGROUND = 0.1  # share of the grid
_MAX_BACKGROUND = 0.8  # share of a mask's new patches
_ALIKE = 0.1  # product of mean features, with the background or another mask
_MERGED_SHARE = 0.5  # of a mask that lies in a larger one
_TOUCHING_SHARE = 0.1  # the same, if the two are alike

Mask = Bool[np.ndarray, "h w"]


def promerge(
    features: Float[Tensor, "D n"],
    grid_size: Sequence[int],
    tau: float = ProMergeSegmenter.tau,
    spacing: int = ProMergeSegmenter.spacing,
) -> Bool[np.ndarray, "M h w"]:
    """Find objects by merging the masks of prompts, without an eigenvector.

    Every `spacing`-th patch of every `spacing`-th row is a prompt; its mask is the patches whose
    features have a cosine above tau with it. A mask that covers more than half of two sides of the
    grid or more votes for the background; more than half of the votes make a patch background.
    Other masks fall into 4-connected parts; those of at least half the size of the part with the
    prompt are candidates. From the smallest to the largest, a candidate stays if less than 80 %
    of its patches that no earlier one holds are background, and if its mean feature has a product
    below 0.1 with the background's. From the largest to the smallest, a candidate joins the masks
    that hold more than half of it, or more than 10 % if their mean features have a product of 0.1
    or more; a mask that joins none is an object.

    Args:
        features: One feature per patch, row-major on the grid.
        grid_size: Rows and columns of patches.
        tau: Threshold on the cosine of two features, inside (-1, 1).
        spacing: Distance of prompts, patches.

    Returns:
        Masks, the largest first; they may overlap. None without a background of 10 % of the grid.

    Raises:
        InputError: Features or tau as in `affinity`; a grid that does not fit them; a spacing
            below 1.

    Reference:
        Li and Shin, ProMerge (arXiv 2409.18961), section 3; thresholds of its release. Mean
        features are means of features of unit length, as there. Order of masks of the same size,
        which the paper leaves open, is that of their prompts.
    """
    grid_hw = checked_grid(features, grid_size)
    if spacing < 1:
        raise InputError(f"spacing: expected at least 1 patch, found {spacing}")
    alike = affinity(features[None], tau)[0].cpu().numpy().reshape(-1, *grid_hw)
    unit = unit_columns(to_float64(features.detach())).cpu().numpy().reshape(-1, *grid_hw)
    candidates: list[Mask] = []
    votes: list[Mask] = []
    for row in range(0, grid_hw[0], spacing):
        for column in range(0, grid_hw[1], spacing):
            mask = alike[row * grid_hw[1] + column]
            if _sides_of(mask) > _MAX_SIDES:
                votes.append(mask)
            elif mask[row, column]:  # not so for a feature of zeros
                candidates += _parts_of(mask, (row, column))
    nothing = np.zeros((0, *grid_hw), dtype=bool)
    if not votes:
        return nothing
    background = np.mean(votes, axis=0) > _BACKGROUND_SHARE
    if background.mean() < _MIN_BACKGROUND:
        return nothing
    objects = _merged(_in_front(candidates, background, unit), unit)
    objects.sort(key=_area, reverse=True)
    return np.stack(objects) if objects else nothing


def _sides_of(mask: Mask) -> int:
    """Number of sides of the grid of which a mask holds more than half."""
    sides = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    return sum(bool(side.mean() > 1 / 2) for side in sides)


def _parts_of(mask: Mask, prompt: tuple[int, int]) -> Iterator[Mask]:
    """Parts of at least half the size of that of the prompt, the largest first."""
    labels, count = scipy.ndimage.label(mask)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    least = _PART_SHARE * areas[labels[prompt]]
    for number in 1 + np.argsort(-areas[1:], kind="stable"):
        if areas[number] >= least:
            yield labels == number


def _in_front(
    candidates: list[Mask], background: Mask, unit: Float[np.ndarray, "D h w"]
) -> list[Mask]:
    """Candidates that bring patches other than the background's and are not like it."""
    behind = unit[:, background].mean(axis=1)
    taken = np.zeros_like(background)
    kept = []
    for mask in sorted(candidates, key=_area):
        new = mask & ~taken
        if not new.any() or background[new].mean() >= _MAX_BACKGROUND:
            continue
        if unit[:, mask].mean(axis=1) @ behind < _ALIKE:
            taken |= mask
            kept.append(mask)
    return kept


def _merged(masks: list[Mask], unit: Float[np.ndarray, "D h w"]) -> list[Mask]:
    """Join masks that overlap, the largest first."""
    objects: list[Mask] = []
    for mask in sorted(masks, key=_area, reverse=True):
        own = unit[:, mask].mean(axis=1)
        joined = [mask]
        others: list[Mask] = []
        for other in objects:
            share = other[mask].mean()
            is_near = share > _TOUCHING_SHARE and own @ unit[:, other].mean(axis=1) >= _ALIKE
            (joined if share > _MERGED_SHARE or is_near else others).append(other)
        objects = [*others, np.logical_or.reduce(joined)]
    return objects


def _area(mask: Mask) -> int:
    return int(mask.sum())
