"""MaskCut: several objects of an image, by repeated normalized cuts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.models.float64 import on_float64_device
from crate_interp.options.choices import Solver
from crate_interp.segmentation.affinity import affinity, paint
from crate_interp.segmentation.normalized_cut import check_solver, is_constant, second_eigenpairs
from crate_interp.segmentation.partition import checked_grid, component_of, foreground_of
from crate_interp.segmentation.segmenters.maskcut import MaskCutSegmenter

__all__ = ["MaskCutResult", "maskcut", "maskcut_batch"]

logger = logging.getLogger(__name__)

_MAX_OVERLAP = 0.5  # IoU with the mask of the round before
_MIN_AREA = 0.01  # share of the grid


class MaskCutResult(NamedTuple):
    """The objects of an image on the patch grid, one row per round.

    Attributes:
        masks: Disjoint; a round whose mask was dropped is a row of zeros. A constant image has no
            row.
        eigenvectors: Float64, positive at the seed, x^T D x = 1; a row of zeros where nothing was
            left to cut.
    """

    masks: Bool[Tensor, "M h w"]
    eigenvectors: Float[Tensor, "M h w"]

    @property
    def is_constant(self) -> bool:
        """Whether all pairs of patches of the image are alike, so that there is nothing to cut."""
        return len(self.masks) == 0


def maskcut(
    features: Float[Tensor, "D n"],
    grid_size: Sequence[int],
    tau: float = MaskCutSegmenter.tau,
    max_masks: int = MaskCutSegmenter.max_masks,
    solver: Solver = MaskCutSegmenter.solver,
) -> MaskCutResult:
    """Cut an image into up to `max_masks` objects, each by a normalized cut of what is left.

    A round finds the 4-connected part of the foreground that holds the seed, and paints it: the
    features of its patches become zero for the next rounds. From the second round on, a mask is
    dropped if its IoU with the mask of the round before (zero, if that was dropped) is above 0.5,
    or if it covers 1 % of the grid or less. What earlier masks hold is taken out of a mask.

    Args:
        features: One feature per patch, row-major on the grid.
        grid_size: Rows and columns of patches.
        tau: Threshold on the cosine of two features, inside (-1, 1).
        max_masks: Number of rounds, at least 1.
        solver: See `normalized_cut`.

    Returns:
        `max_masks` masks and eigenvectors, on the device of the features; on the CPU if that has
        no float64, as Apple's GPUs. None for a constant image, all of whose pairs of patches are
        above tau, or none: the log says so.

    Raises:
        InputError: Features or tau as in `affinity`; a grid that does not fit them; `max_masks`
            below 1; an unknown solver.

    Reference:
        Wang et al., Cut and Learn for Unsupervised Object Detection and Instance Segmentation
        (arXiv 2301.11320), section 3.2.
    """
    checked_grid(features, grid_size)
    (result,) = maskcut_batch(features[None], grid_size, tau, max_masks, solver)
    if result.is_constant:
        logger.warning("constant image: all pairs of patches are alike at tau %g, no mask", tau)
    return result


def maskcut_batch(
    features: Float[Tensor, "B D n"],
    grid_size: Sequence[int],
    tau: float = MaskCutSegmenter.tau,
    max_masks: int = MaskCutSegmenter.max_masks,
    solver: Solver = MaskCutSegmenter.solver,
) -> list[MaskCutResult]:
    """Do what `maskcut` does for images of one grid, with the eigenvectors of a round together.

    Worth it on a GPU; a CPU takes as long as for one image after the other, and more memory.

    Args:
        features: Features of each image, on the device to use; other arguments as for `maskcut`.
        grid_size: Rows and columns of patches.
        tau: Threshold on the cosine of two features.
        max_masks: Number of rounds.
        solver: See `normalized_cut`.

    Returns:
        The result of `maskcut` for each image; constant ones are not logged.

    Raises:
        InputError: As `maskcut`.
    """
    if features.ndim != 3:
        raise InputError(f"features: expected shape (B, D, n), found {tuple(features.shape)}")
    grid_hw = checked_grid(features.flatten(0, 1), grid_size)
    features = on_float64_device(features)
    check_solver(solver)
    if max_masks < 1:
        raise InputError(f"max_masks: expected at least 1, found {max_masks}")
    if not len(features):
        return []
    connected = affinity(features, tau)
    cuts = [_Cut(grid_hw, max_masks) for _ in features]
    for number in range(max_masks):
        changed = [at for at, cut in enumerate(cuts) if cut.is_changed]
        for at, eigenvector in zip(
            changed, _eigenvectors_of(_rows(connected, changed), solver), strict=True
        ):
            cuts[at].eigenvector = eigenvector
        objects = torch.stack([cut.take_object(number) for cut in cuts])
        if all(cut.is_settled for cut in cuts):
            break
        if number + 1 < max_masks:
            paint(connected, objects, alike=bool(tau < 0))
    return [cut.result(features.device) for cut in cuts]


class _Cut:
    """State of an image from one round to the next, on the CPU, where parts are found.

    Attributes:
        masks: Masks so far, disjoint.
        eigenvectors: Eigenvectors so far, turned as the corner rule wants them.
        rounds: Number of rounds that had something to cut.
        current: Mask of the last round, before earlier masks were taken out.
        eigenvector: Eigenvector of the graph as it is; `None` if nothing is left to cut.
        is_changed: Whether the graph is another than in the last round.
        is_settled: Whether no round to come finds anything.
    """

    def __init__(self, grid_hw: tuple[int, int], max_masks: int) -> None:
        self.masks = torch.zeros((max_masks, *grid_hw), dtype=torch.bool)
        self.eigenvectors = torch.zeros((max_masks, *grid_hw), dtype=torch.float64)
        self.rounds = 0
        self.current = torch.zeros(grid_hw, dtype=torch.bool)
        self.eigenvector: Float[Tensor, " n"] | None = None
        self.is_changed = True
        self.is_settled = False

    def take_object(self, number: int) -> Bool[Tensor, " n"]:
        """Make a round of the eigenvector; returns the patches that no round had taken before."""
        was_changed, self.is_changed = self.is_changed, False
        if self.eigenvector is None:
            self.is_settled = True
        if self.is_settled or self.eigenvector is None:
            return torch.zeros_like(self.current).flatten()
        eigenvector = self.eigenvector.view(self.current.shape)
        foreground, seed, turned = foreground_of(eigenvector, corner_rule=True)
        mask = component_of(seed, foreground)
        if number > 0 and _is_dropped(mask, self.current):
            mask = torch.zeros_like(mask)
        self.masks[number] = mask & ~self.masks.any(dim=0)
        self.eigenvectors[number] = -eigenvector if turned else eigenvector
        self.rounds, self.current = number + 1, mask
        # A dropped mask leaves the graph, and so the eigenvector, as it was.
        self.is_changed = bool(self.masks[number].any())
        # One graph gives one mask. The first round in vain may have dropped it for its overlap with
        # the round before; the second had nothing to overlap with, so all others will be in vain.
        self.is_settled = not (was_changed or self.is_changed)
        if self.is_settled:
            self.eigenvectors[number:], self.rounds = self.eigenvectors[number], len(self.masks)
        return self.masks[number].flatten()

    def result(self, device: torch.device) -> MaskCutResult:
        if 0 < self.rounds < len(self.masks):
            logger.info("nothing left to cut after %d of %d rounds", self.rounds, len(self.masks))
        rows = len(self.masks) if self.rounds else 0
        return MaskCutResult(self.masks[:rows].to(device), self.eigenvectors[:rows].to(device))


def _eigenvectors_of(
    connected: Bool[Tensor, "B n n"], solver: Solver
) -> list[Float[Tensor, " n"] | None]:
    """The vector that cuts each graph, or `None` where all pairs of patches are alike."""
    constant = is_constant(connected)
    varied = [at for at, is_one in enumerate(constant) if not is_one]
    pairs = iter(second_eigenpairs(_rows(connected, varied), solver))
    return [None if is_one else next(pairs).eigenvector for is_one in constant]


def _rows(connected: Bool[Tensor, "B n n"], numbers: list[int]) -> Bool[Tensor, "C n n"]:
    """Some graphs of a batch; no copy if that is all of them."""
    return connected if len(numbers) == len(connected) else connected[numbers]


def _is_dropped(mask: Bool[Tensor, "h w"], current: Bool[Tensor, "h w"]) -> bool:
    overlap, union = int((mask & current).sum()), int((mask | current).sum())
    return overlap > _MAX_OVERLAP * union or int(mask.sum()) <= _MIN_AREA * mask.numel()
