"""VoteCut: masks on which the cuts of several backbones or blocks agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.ndimage
from jaxtyping import Bool, Float, Int
from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.models.float64 import on_float64_device
from crate_interp.segmentation.affinity import affinity
from crate_interp.segmentation.normalized_cut import is_constant, second_eigenpairs
from crate_interp.segmentation.partition import checked_grid
from crate_interp.segmentation.segmenters.votecut import VoteCutSegmenter

__all__ = ["VoteCutResult", "votecut"]

_CLUSTERS = (2, 3)  # of the entries of an eigenvector
_TIE = 1e-9  # relative to the largest entry; closer ones are equal
_MAX_PARTS = 30  # of a cluster; one of more is noise
_CORNERS = 2  # a cluster that holds as many corners of the grid is background
_SAME_IOU = 0.6  # masks of more are votes for the same object
_PIVOT_STEPS = 5


class VoteCutResult(NamedTuple):
    """The objects of an image, that of most votes first.

    Attributes:
        masks: Masks on the largest grid; they may overlap.
        votes: Number of proposals that agree on each mask.
    """

    masks: Bool[np.ndarray, "M h w"]
    votes: Int[np.ndarray, " M"]


def votecut(
    features: Sequence[Float[Tensor, "D n"]],
    grid_sizes: Sequence[Sequence[int]],
    tau: float = VoteCutSegmenter.tau,
    agreement: float = VoteCutSegmenter.agreement,
    min_side: int = VoteCutSegmenter.min_side,
    max_masks: int = VoteCutSegmenter.max_masks,
) -> VoteCutResult:
    """Find objects on which several sets of features agree.

    Each set of features gives the second eigenvector of its graph of patches, whose entries
    k-means puts into 2 and into 3 clusters. The 4-connected parts of clusters that hold fewer than
    2 corners of the grid are the proposals. Proposals with an IoU above 0.6 with a pivot, that of
    the largest sum of IoUs among them, are votes for one object: the patches that more than the
    share `agreement` of them holds.

    Args:
        features: Features of the image, one entry for each backbone or block that votes.
        grid_sizes: Rows and columns of patches of each.
        tau: Threshold on the cosine of two features, inside (-1, 1).
        agreement: Share of the votes, in [0, 1).
        min_side: Proposals less than so many patches wide and high are left out.
        max_masks: Number of objects, at most; those with the most proposals near are found first.

    Returns:
        The objects and their votes. Features whose pairs are all alike have no vote.

    Raises:
        InputError: Features or tau as in `affinity`; not a grid for each of the features; no
            features at all; a number out of range.

    Reference:
        Arica et al., CuVLER (arXiv 2403.07700), section 3.1, where six backbones vote. Order of
        equals, which the paper leaves open, is that of the proposals.
    """
    if not features or len(features) != len(grid_sizes):
        raise InputError(
            "features: expected those of one voter or more, and a grid for each, "
            f"found {len(features)} and {len(grid_sizes)} grids"
        )
    if not 0 <= agreement < 1 or max_masks < 1:
        raise InputError(
            "expected an agreement in [0, 1) and at least 1 mask, "
            f"found {agreement} and {max_masks}"
        )
    grids = [checked_grid(*voter) for voter in zip(features, grid_sizes, strict=True)]
    largest = max(grids, key=lambda grid: grid[0] * grid[1])
    proposals = [
        _resized(part, largest)
        for of_voter, grid in zip(features, grids, strict=True)
        for part in _proposals(of_voter, grid, tau, min_side)
    ]
    if not proposals:
        return VoteCutResult(np.zeros((0, *largest), dtype=bool), np.zeros(0, dtype=np.int64))
    stacked = np.stack(proposals)
    groups = _groups(_ious(stacked.reshape(len(stacked), -1)), max_masks)
    masks = np.stack([stacked[group].mean(axis=0) > agreement for group in groups])
    votes = np.array([len(group) for group in groups])
    order = np.argsort(-votes, kind="stable")
    return VoteCutResult(masks[order], votes[order])


def _proposals(
    features: Float[Tensor, "D n"], grid_hw: tuple[int, int], tau: float, min_side: int
) -> Iterator[Bool[np.ndarray, "h w"]]:
    """Connected parts of the clusters of an eigenvector's entries."""
    connected = affinity(on_float64_device(features)[None], tau)
    if is_constant(connected)[0]:
        return
    entries = second_eigenpairs(connected, "lanczos")[0].eigenvector.numpy()
    for count in _CLUSTERS:
        labels = _clusters_on_a_line(entries, count)
        for number in range(labels.max() + 1):
            cluster = (labels == number).reshape(grid_hw)
            if cluster[[0, 0, -1, -1], [0, -1, 0, -1]].sum() >= _CORNERS:
                continue
            parts, size = scipy.ndimage.label(cluster)
            if size > _MAX_PARTS:
                continue
            for part, (rows, columns) in enumerate(scipy.ndimage.find_objects(parts), 1):
                sides = (rows.stop - rows.start, columns.stop - columns.start)
                if max(sides) >= min_side:
                    yield parts == part


def _clusters_on_a_line(numbers: Float[np.ndarray, " n"], count: int) -> Int[np.ndarray, " n"]:
    """Solve k-means of numbers exactly: clusters are runs of the sorted numbers.

    Returns:
        Number of the cluster of each, in ascending order; fewer clusters than `count` where there
        are fewer numbers.
    """
    rounded = np.round(numbers / (_TIE * np.abs(numbers).max()))
    values, places, counts = np.unique(rounded, return_inverse=True, return_counts=True)
    size, count = len(values), min(count, len(values))
    moments = [counts, counts * values, counts * values**2]
    weight, first, second = (np.concatenate([[0], np.cumsum(moment)]) for moment in moments)

    def spreads(starts: Int[np.ndarray, " s"], stop: int) -> Float[np.ndarray, " s"]:
        """Sum of squared distances to their mean of the values from each start to `stop`."""
        sums, weights = first[stop] - first[starts], weight[stop] - weight[starts]
        spread: Float[np.ndarray, " s"] = second[stop] - second[starts] - sums**2 / weights
        return spread

    # Least sum of squares of the first values in so many runs, and where the last run starts.
    best = np.array([0.0, *(spreads(np.zeros(1, int), stop)[0] for stop in range(1, size + 1))])
    starts = np.zeros((count, size + 1), dtype=np.int64)
    for runs in range(1, count):
        least = np.full(size + 1, np.inf)
        for stop in range(runs + 1, size + 1):
            sums = best[runs:stop] + spreads(np.arange(runs, stop), stop)
            starts[runs, stop] = runs + sums.argmin()
            least[stop] = sums.min()
        best = least
    stop, edges = size, []
    for runs in range(count - 1, 0, -1):
        stop = int(starts[runs, stop])
        edges.append(stop)
    labels: Int[np.ndarray, " n"] = np.searchsorted(sorted(edges), places, side="right")
    return labels


def _resized(mask: Bool[np.ndarray, "h w"], grid_hw: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    """Bring a mask to another grid, by the nearest patch."""
    sides = zip(mask.shape, grid_hw, strict=True)
    rows, columns = (np.arange(new) * old // new for old, new in sides)
    resized: Bool[np.ndarray, "H W"] = mask[np.ix_(rows, columns)]
    return resized


def _ious(masks: Bool[np.ndarray, "P n"]) -> Float[np.ndarray, "P P"]:
    counts = masks.astype(np.float64)
    common = counts @ counts.T
    areas = np.diag(common)
    ious: Float[np.ndarray, "P P"] = common / (areas[:, None] + areas - common)
    return ious


def _groups(ious: Float[np.ndarray, "P P"], count: int) -> list[list[int]]:
    """Find up to `count` groups of proposals, around that with the most others near it first."""
    near = ious > _SAME_IOU
    waiting = np.argsort(-near.sum(axis=1), kind="stable").tolist()
    groups: list[list[int]] = []
    used: set[int] = set()
    while waiting and len(groups) < count:
        pivot = waiting.pop(0)
        members = np.zeros(len(ious), dtype=bool)
        members[pivot] = True
        for _ in range(_PIVOT_STEPS):
            more = members | near[pivot]
            if (more == members).all():
                break
            members = more
            inside = np.flatnonzero(members)
            pivot = int(inside[ious[np.ix_(inside, inside)].sum(axis=1).argmax()])
        group = [int(one) for one in np.flatnonzero(members) if one not in used]
        if pivot not in used:
            groups.append(group)
        used.update(group)
        waiting = [one for one in waiting if one not in used]
    return groups
