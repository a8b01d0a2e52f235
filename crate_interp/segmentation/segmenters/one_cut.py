"""One cut: several objects of an image, by a single normalized cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from crate_interp import segmentation, structures
from crate_interp.options import Range, option
from crate_interp.options.choices import Scores
from crate_interp.options.ranges import BelowOne, Cosine
from crate_interp.segmentation.segmenter import FeatureSegmenter, image_name

if TYPE_CHECKING:
    from crate_interp.structures import Activations, ImageGeometry, Instances

__all__ = ["OneCutSegmenter"]


@dataclass(frozen=True, kw_only=True)
class OneCutSegmenter(FeatureSegmenter):
    """Find all parts of the foreground of one normalized cut.

    It is what CutOnce (COLER, arXiv 2508.02386) starts from, without what that paper adds.
    """

    tau: Cosine = option("patches are alike above this cosine similarity", 0.15)
    max_masks: Annotated[int, Range(1, 1000)] = option("masks an image, at most", 10)
    min_area: BelowOne = option("share of the grid that a mask covers more than", 0.01)
    scores: Scores = option("what scores a mask, as for maskcut; cut has the higher AP", "cut")

    def __call__(self, activations: Activations, geometry: ImageGeometry) -> Instances:
        """Cut one image; a constant one has no mask."""
        features = activations.patch_features(self.feature, self.block)[0].float()
        masks = segmentation.one_cut(
            *(features, geometry.grid_hw, self.tau, self.max_masks, self.min_area),
            name=image_name.get(),
        )
        scores = segmentation.mask_scores(features, masks, self.tau, self.scores)
        return structures.Instances(masks.cpu().numpy(), scores, frame="grid")
