"""Masks of what the class token attends to, one per head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from crate_interp import hooks, segmentation, structures
from crate_interp.errors import InputError
from crate_interp.options import option
from crate_interp.options.choices import KeepBy
from crate_interp.options.ranges import Index, Share
from crate_interp.segmentation.segmenter import Segmenter

if TYPE_CHECKING:
    from torch import nn
    from typing_extensions import Self

    from crate_interp.structures import Activations, ImageGeometry, Instances

__all__ = ["AttentionSegmenter"]


@dataclass(frozen=True, kw_only=True)
class AttentionSegmenter(Segmenter):
    """Keep the patches that the class token attends to most.

    Reference:
        Caron et al. 2021, arXiv 2104.14294, figure 4; Yu et al. 2023, arXiv 2308.16271, section 3.
    """

    block: Index = option("block to read, from 0; negative counts from the last", -1)
    head: Literal["all", "mean"] | Index = option(
        "mask of each head, of the mean of the heads, or of one head, from 0", "mean"
    )
    keep: Share = option("share that a mask keeps", 0.6)
    keep_by: KeepBy = option(
        "what is shared out: the mass of attention (DINO) or the patches (CRATE)", "mass"
    )

    sites = ("cls_attention",)

    @property
    def blocks(self) -> Sequence[int]:  # type: ignore[override]
        """The block."""
        return (self.block,)

    def for_model(self, model: nn.Module) -> Self:
        """Refuse a model without a class token."""
        hooks.record(model, self.sites, self.blocks)
        return self

    def __call__(self, activations: Activations, geometry: ImageGeometry) -> Instances:
        """Threshold the attention of one image; a mask scores the mass of attention in it."""
        rows = activations["cls_attention", self.block][0].float()
        maps = rows[:, activations.num_prefix_tokens :]
        if self.head == "mean":
            maps = maps.mean(dim=0, keepdim=True)
        elif self.head != "all":
            if not 0 <= self.head < len(maps):
                raise InputError(
                    f"head {self.head} is out of range: the model has heads 0 to {len(maps) - 1}"
                )
            maps = maps[[self.head]]
        kept = segmentation.attention_masks(maps, self.keep_by, self.keep)
        scores = (maps * kept).sum(dim=1) / maps.sum(dim=1).clamp_min(1e-12)
        masks = kept.cpu().numpy().reshape(-1, *geometry.grid_hw)
        return structures.Instances(masks, scores.double().cpu().numpy(), frame="grid")
