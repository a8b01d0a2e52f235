"""CorLoc: how often the one box of an image hits an object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torchvision.ops import box_iou

from crate_interp.errors import InputError

__all__ = ["CorLocScore", "corloc_hit", "corloc_score"]


@dataclass(frozen=True)
class CorLocScore:
    """Share of images whose box is right.

    Attributes:
        corloc: The share, in [0, 1].
        images: Number of images that count: those with ground truth.
    """

    corloc: float
    images: int


def corloc_hit(
    box_xyxy: Float[np.ndarray, " 4"] | None, ground_truth_xyxy: Float[np.ndarray, "G 4"]
) -> bool | None:
    """Tell whether the box of an image has an IoU of 0.5 or more with some ground-truth box.

    Args:
        box_xyxy: The predicted box, x2 and y2 exclusive, in pixels of the same frame as the ground
            truth; `None` if there is none, which is a miss.
        ground_truth_xyxy: Boxes of the objects.

    Returns:
        `None` for an image without ground truth (G = 0), which does not count.

    Raises:
        InputError: Boxes are of another shape, not finite, or end before they begin.
    """
    truth = _checked("ground_truth_xyxy", ground_truth_xyxy)
    box = None if box_xyxy is None else _checked("box_xyxy", np.asarray(box_xyxy)[None])
    if not len(truth):
        return None
    if box is None:
        return False
    return bool((box_iou(torch.from_numpy(box), torch.from_numpy(truth)) >= 0.5).any())


def corloc_score(hits: Sequence[bool | None]) -> CorLocScore:
    """Average over images.

    Args:
        hits: `corloc_hit` of each image.

    Raises:
        InputError: No image has ground truth.

    Reference:
        Deselaers, Alexe, Ferrari, ECCV 2010; used by TokenCut, arXiv 2202.11539.
    """
    counted = [hit for hit in hits if hit is not None]
    if not counted:
        raise InputError("CorLoc: expected images with ground truth, found none")
    return CorLocScore(float(np.mean(counted)), len(counted))


def _checked(name: str, boxes: Float[np.ndarray, "G 4"]) -> Float[np.ndarray, "G 4"]:
    boxes = np.asarray(boxes, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"{name}: expected boxes (x1, y1, x2, y2), found shape {boxes.shape}")
    if not np.isfinite(boxes).all() or (boxes[:, 2:] < boxes[:, :2]).any():
        raise InputError(f"{name}: expected finite boxes with x1 <= x2 and y1 <= y2, found {boxes}")
    return boxes
