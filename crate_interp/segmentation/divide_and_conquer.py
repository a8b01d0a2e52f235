"""Divide and conquer: objects by MaskCut, and their parts by merging alike neighbours."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.models.float64 import to_float64
from crate_interp.segmentation.maskcut import maskcut_batch
from crate_interp.segmentation.partition import checked_grid
from crate_interp.segmentation.segmenters.divide_and_conquer import DivideAndConquerSegmenter

__all__ = ["Hierarchy", "divide_and_conquer", "merged_neighbours"]

logger = logging.getLogger(__name__)

_THRESHOLDS = (0.6, 0.5, 0.4, 0.3, 0.2, 0.1)  # least cosine of two neighbours that are merged
_MIN_INSIDE = 0.9  # share of a part that lies in its object
_SAME_IOU = 0.9  # of two parts that count as one


class Hierarchy(NamedTuple):
    """Objects of an image and their parts, on the patch grid.

    Attributes:
        masks: The objects, in the order in which they are cut, and after them the parts, object by
            object, the largest first.
        parents: Number of the mask of which each mask is a part; -1 for an object. A part's parent
            is the smallest mask of its object that holds all of it.
    """

    masks: Bool[np.ndarray, "M h w"]
    parents: Int[np.ndarray, " M"]


def divide_and_conquer(
    features: Float[Tensor, "D n"],
    grid_size: Sequence[int],
    tau: float = DivideAndConquerSegmenter.tau,
    max_masks: int = DivideAndConquerSegmenter.max_masks,
    min_patches: int = DivideAndConquerSegmenter.min_patches,
    name: str = "image",
) -> Hierarchy:
    """Cut an image into objects, and these into parts of parts.

    MaskCut divides. In the box around each object, neighbours conquer: see `merged_neighbours`.
    Regions of which more than 90 % are of the object are its parts, cut to it; of parts with an IoU
    above 0.9, also with the object, the larger one stays.

    Args:
        features: One feature per patch, row-major on the grid.
        grid_size: Rows and columns of patches.
        tau: Threshold on the cosine of two features for MaskCut, inside (-1, 1).
        max_masks: Number of objects, at most.
        min_patches: Least size of a part, patches.
        name: Name of the image, for the log.

    Returns:
        Objects and parts; none for a constant image, and the log says so.

    Raises:
        InputError: As `maskcut`; `min_patches` below 1.

    Reference:
        Wang et al., Segment Anything without Supervision (arXiv 2406.20081), section 3. There, a
        detector trained on MaskCut's masks divides, and the box of each object goes through the
        model once more, enlarged; here it is MaskCut itself, and the features of the whole image.
        The release does not cut parts to their object.
    """
    if min_patches < 1:
        raise InputError(f"min_patches: expected at least 1, found {min_patches}")
    checked_grid(features, grid_size)
    (result,) = maskcut_batch(features[None], grid_size, tau, max_masks)
    if result.is_constant:
        logger.warning(
            "%s: constant image: all pairs of patches are alike at tau %g, no mask", name, tau
        )
    cut = result.masks.cpu().numpy()
    objects = cut[cut.any(axis=(1, 2))]
    of_grid = to_float64(features.detach()).cpu().numpy().reshape(len(features), *cut.shape[1:])
    masks, parents = list(objects), [-1] * len(objects)
    for number, own in enumerate(objects):
        family = {number: own}
        for part in sorted(_regions_in(own, of_grid), key=np.count_nonzero, reverse=True):
            same = any(_iou(part, other) > _SAME_IOU for other in family.values())
            if same or part.sum() < min_patches:
                continue
            around = [at for at, other in family.items() if not (part & ~other).any()]
            parents.append(around[-1])  # the smallest one: masks come in order of size
            family[len(masks)] = part
            masks.append(part)
    return Hierarchy(np.stack(masks) if masks else objects, np.array(parents, dtype=np.int64))


def _regions_in(
    own: Bool[np.ndarray, "h w"], features: Float[np.ndarray, "D h w"]
) -> Iterator[Bool[np.ndarray, "h w"]]:
    """Regions of the box around an object that lie in it, cut to it."""
    rows, columns = (np.flatnonzero(own.any(axis=axis)) for axis in (1, 0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    for labels in merged_neighbours(features[:, box[0], box[1]]):
        for label in range(labels.max() + 1):
            inside = (labels == label) & own[box]
            if inside.sum() > _MIN_INSIDE * (labels == label).sum():
                region = np.zeros_like(own)
                region[box] = inside
                yield region


def merged_neighbours(
    features: Float[np.ndarray, "D h w"], thresholds: Sequence[float] = _THRESHOLDS
) -> Iterator[Int[np.ndarray, "h w"]]:
    """Merge regions that are neighbours and alike, the most alike first.

    Regions start as single patches; the feature of a region is the sum of those of its patches.

    Args:
        features: One feature per patch, finite.
        thresholds: Cosines, in descending order; down to each, regions are merged.

    Yields:
        Number of the region of each patch, from 0 in the order of the grid, for each threshold.
    """
    grid_hw = features.shape[1:]
    sums = dict(enumerate(features.reshape(len(features), -1).T))
    patches = {patch: [patch] for patch in sums}
    numbers = np.arange(len(sums)).reshape(grid_hw)
    pairs = [(numbers[:, :-1], numbers[:, 1:]), (numbers[:-1], numbers[1:])]
    neighbours: dict[int, set[int]] = {patch: set() for patch in sums}
    waiting: list[tuple[float, int, int]] = []

    def meet(one: int, other: int) -> None:
        neighbours[one].add(other)
        neighbours[other].add(one)
        heapq.heappush(waiting, (-_cosine(sums[one], sums[other]), one, other))

    for first, second in pairs:
        for one, other in zip(first.flat, second.flat, strict=True):
            meet(int(one), int(other))
    for threshold in thresholds:
        while waiting and -waiting[0][0] >= threshold:
            _, one, other = heapq.heappop(waiting)
            if one not in sums or other not in sums:
                continue  # merged with another region in the meantime
            new = len(patches)
            sums[new] = sums.pop(one) + sums.pop(other)
            patches[new] = patches[one] + patches[other]
            around = (neighbours.pop(one) | neighbours.pop(other)) - {one, other}
            neighbours[new] = set()
            for region in sorted(around):
                neighbours[region] -= {one, other}
                meet(region, new)
        labels = np.empty(numbers.size, dtype=np.int64)
        for number, region in enumerate(sorted(sums, key=lambda region: min(patches[region]))):
            labels[patches[region]] = number
        yield labels.reshape(grid_hw)


def _cosine(one: Float[np.ndarray, " D"], other: Float[np.ndarray, " D"]) -> float:
    lengths = np.linalg.norm(one) * np.linalg.norm(other)
    return float(one @ other / lengths) if lengths > 0 else 0.0


def _iou(one: Bool[np.ndarray, "h w"], other: Bool[np.ndarray, "h w"]) -> float:
    return float((one & other).sum() / (one | other).sum())
