"""Divide and conquer: objects by MaskCut, and their parts by merging alike neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from crate_interp import segmentation, structures
from crate_interp.options import Range, option
from crate_interp.options.choices import Scores
from crate_interp.options.ranges import AtLeastOne, Cosine
from crate_interp.segmentation.segmenter import FeatureSegmenter, image_name

if TYPE_CHECKING:
    from crate_interp.structures import Activations, ImageGeometry, Instances

__all__ = ["DivideAndConquerSegmenter"]


@dataclass(frozen=True, kw_only=True)
class DivideAndConquerSegmenter(FeatureSegmenter):
    """Find objects by normalized cuts, and in each its parts by merging alike neighbours.

    Reference:
        Wang et al. 2024, "Segment Anything without Supervision", arXiv 2406.20081, section 3.
    """

    tau: Cosine = option("patches are alike above this cosine similarity", 0.15)
    max_masks: Annotated[int, Range(1, 1000)] = option("objects an image, at most", 3)
    min_patches: AtLeastOne = option("least size of a part, patches", 4)
    scores: Scores = option(
        "what scores a mask, as for maskcut; the paper has 1, cut has the higher AP", "cut"
    )

    def __call__(self, activations: Activations, geometry: ImageGeometry) -> Instances:
        """Divide one image into objects, and these into parts; masks overlap."""
        import torch

        features = activations.patch_features(self.feature, self.block)[0].float()
        masks, _ = segmentation.divide_and_conquer(
            *(features, geometry.grid_hw, self.tau, self.max_masks, self.min_patches),
            name=image_name.get(),
        )
        scores = segmentation.mask_scores(features, torch.from_numpy(masks), self.tau, self.scores)
        return structures.Instances(masks, scores, frame="grid")
