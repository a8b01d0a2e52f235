"""How well the heads of the class token's attention cover objects: attention segmentation mIoU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from crate_interp.config import KeepBy
from crate_interp.errors import InputError
from crate_interp.evaluation.masks import overlaps_of
from crate_interp.segmentation import attention_masks
from crate_interp.structures import ImageGeometry

__all__ = ["AttentionIoU", "AttentionScore"]


@dataclass(frozen=True)
class AttentionScore:
    """Mean IoU of attention masks, in [0, 1].

    Attributes:
        best_head: Every object has the head that covers it best, as the papers have it; mean over
            the objects of an image, then over images.
        single_head: All objects have the same head, the best one of the set.
        head: Number of that head, from 0.
        images: Images that count: those with ground truth.
    """

    best_head: float
    single_head: float
    head: int
    images: int


class AttentionIoU:
    """Mean IoU of the masks of attention heads with objects (or classes), over images.

    Masks are those of `attention_masks`, brought to the pixels of the original image by nearest
    neighbour. Background is no object.

    Args:
        by: `mass` (DINO) or `entries` (CRATE): the two give very different numbers.
        keep: Share, see `attention_masks`.

    Reference:
        Caron et al., arXiv 2104.14294, section 4.2.2; Yu et al., arXiv 2308.16271, section 3.
    """

    def __init__(self, by: KeepBy = "mass", keep: float = 0.6) -> None:
        self._by, self._keep = by, keep
        self._best: list[float] = []
        self._by_head: list[Float[np.ndarray, " K"]] = []

    def update(
        self,
        cls_attention: Float[Tensor, "K h w"],
        geometry: ImageGeometry,
        ground_truth: Bool[np.ndarray, "G H W"],
    ) -> None:
        """Add an image; without ground truth (G = 0) it does not count.

        Args:
            cls_attention: Attention of the class token to the patches.
            geometry: Of the image.
            ground_truth: Masks of the original image, one an object, or one a class.

        Raises:
            InputError: As `attention_masks`; the attention does not lie on the grid; a ground-truth
                mask is empty or of another size; a number of heads other than before.
        """
        grid_hw = tuple(cls_attention.shape[1:])
        if cls_attention.ndim != 3 or grid_hw != geometry.grid_hw:
            raise InputError(
                f"cls_attention: expected shape (K, {geometry.grid_hw[0]}, {geometry.grid_hw[1]}), "
                f"found {tuple(cls_attention.shape)}"
            )
        if self._by_head and len(self._by_head[0]) != len(cls_attention):
            raise InputError(
                f"cls_attention: expected {len(self._by_head[0])} heads as before, "
                f"found {len(cls_attention)}"
            )
        kept = attention_masks(cls_attention.flatten(1), self._by, self._keep)
        on_input = geometry.grid_to_input(kept.unflatten(1, grid_hw).cpu().numpy())
        overlaps = overlaps_of(geometry.input_to_original(on_input), ground_truth)
        if len(ground_truth):
            self._best.append(float(overlaps.max(axis=0).mean()))
            self._by_head.append(overlaps.mean(axis=1))

    def compute(self) -> AttentionScore:
        """Average over the images so far.

        Raises:
            InputError: There was no image with ground truth.
        """
        if not self._best:
            raise InputError("attention IoU: expected images with ground truth, found none")
        of_heads = np.mean(self._by_head, axis=0)
        head = int(of_heads.argmax())
        best = float(np.mean(self._best))
        return AttentionScore(best, float(of_heads[head]), head, len(self._best))
