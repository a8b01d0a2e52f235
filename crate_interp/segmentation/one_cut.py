"""One cut: several objects of an image, by a single normalized cut."""

from __future__ import annotations

from collections.abc import Sequence

import scipy.ndimage
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.segmentation.partition import foreground_of
from crate_interp.segmentation.segmenters.one_cut import OneCutSegmenter
from crate_interp.segmentation.tokencut import tokencut

__all__ = ["one_cut"]


def one_cut(
    features: Float[Tensor, "D n"],
    grid_size: Sequence[int],
    tau: float = OneCutSegmenter.tau,
    max_masks: int = OneCutSegmenter.max_masks,
    min_area: float = OneCutSegmenter.min_area,
    name: str = "image",
) -> Bool[Tensor, "M h w"]:
    """Find all connected parts of the foreground of one normalized cut.

    The foreground is MaskCut's: the side x > mean(x) of the second eigenvector, turned where it
    holds 3 or more corners of the grid.

    Args:
        features: One feature per patch, row-major on the grid.
        grid_size: Rows and columns of patches.
        tau: Threshold on the cosine of two features, inside (-1, 1).
        max_masks: Number of parts, at most.
        min_area: Share of the grid; parts that cover no more are left out.
        name: Name of the image, for the log.

    Returns:
        The 4-connected parts, disjoint, that of the largest entry of the eigenvector first; on the
        device of the features. None for a constant image; the log says so.

    Raises:
        InputError: As `tokencut`; a number out of range.

    Reference:
        The first step of CutOnce (COLER, arXiv 2508.02386): one cut, all of whose parts are
        objects. The paper's similarity of tuned density, its augmented boundaries and its filter of
        instances are not part of this function, which is no CutOnce.
    """
    if max_masks < 1 or not 0 <= min_area < 1:
        raise InputError(
            f"expected at least 1 mask and an area in [0, 1), found {max_masks} and {min_area}"
        )
    eigenvector = tokencut(features, grid_size, tau, name=name).eigenvector.cpu()
    foreground, _, turned = foreground_of(eigenvector, corner_rule=True)
    height = (-eigenvector if turned else eigenvector).numpy()
    labels, count = scipy.ndimage.label(foreground.numpy())
    areas = scipy.ndimage.sum_labels(labels > 0, labels, range(1, count + 1))
    peaks = scipy.ndimage.maximum(height, labels, range(1, count + 1)) if count else []
    by_peak = sorted(zip(peaks, areas, range(1, count + 1), strict=True), key=lambda one: -one[0])
    parts = [number for _, area, number in by_peak if area > min_area * labels.size][:max_masks]
    masks = torch.from_numpy(labels) == torch.tensor(parts, dtype=torch.int32)[:, None, None]
    return masks.to(features.device)
