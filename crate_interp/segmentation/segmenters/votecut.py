"""VoteCut: masks on which the cuts of several blocks agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from crate_interp import hooks, segmentation, structures
from crate_interp.errors import InputError
from crate_interp.options import Range, option
from crate_interp.options.ranges import AtLeastOne, BelowOne, Cosine, Natural
from crate_interp.segmentation.segmenter import FeatureSegmenter

if TYPE_CHECKING:
    from torch import nn
    from typing_extensions import Self

    from crate_interp.structures import Activations, ImageGeometry, Instances

__all__ = ["VoteCutSegmenter"]


@dataclass(frozen=True, kw_only=True)
class VoteCutSegmenter(FeatureSegmenter):
    """Find objects on which the normalized cuts of several blocks agree.

    In the paper six backbones vote, of which `segmentation.votecut` takes the features; here it is
    the blocks of one.

    Reference:
        Arica et al. 2024, "CuVLER", arXiv 2403.07700, section 3.1.
    """

    voters: AtLeastOne = option(
        "number of blocks that vote: that of --block and those before it", 3
    )
    tau: Cosine = option("patches are alike above this cosine similarity", 0.15)
    agreement: BelowOne = option("share of the votes that a patch of an object has", 0.2)
    min_side: Natural = option("least width or height of a proposal, patches", 5)
    max_masks: Annotated[int, Range(1, 100)] = option("masks an image, at most", 10)

    @property
    def blocks(self) -> Sequence[int]:  # type: ignore[override]
        """The blocks that vote, the last one first."""
        return [self.block - number for number in range(self.voters)]

    def for_model(self, model: nn.Module) -> Self:
        """Choose the feature that stands for `auto`, which all voters share.

        Raises:
            InputError: The model has no such feature, or not as many blocks.
        """
        depth = len(hooks.blocks_of(model))
        last = self.block if self.block >= 0 else self.block + depth
        if 0 <= last < self.voters - 1:
            raise InputError(
                f"voters: {self.voters} blocks up to block {self.block} begin before block 0"
            )
        chosen = super().for_model(model)
        hooks.record(model, [chosen.feature], chosen.blocks)
        return chosen

    def __call__(self, activations: Activations, geometry: ImageGeometry) -> Instances:
        """Cut one image; a mask scores its votes, as a share of those of the first mask."""
        features = [
            activations.patch_features(self.feature, block)[0].float() for block in self.blocks
        ]
        masks, votes = segmentation.votecut(
            features,
            [geometry.grid_hw] * len(features),
            *(self.tau, self.agreement, self.min_side, self.max_masks),
        )
        return structures.Instances(masks, votes / max(votes, default=1), frame="grid")
