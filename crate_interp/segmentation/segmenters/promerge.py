"""ProMerge: masks of patches that are like a prompt, merged where they overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crate_interp import segmentation, structures
from crate_interp.options import option
from crate_interp.options.choices import Scores
from crate_interp.options.ranges import AtLeastOne, Cosine
from crate_interp.segmentation.segmenter import FeatureSegmenter

if TYPE_CHECKING:
    from crate_interp.structures import Activations, ImageGeometry, Instances

__all__ = ["ProMergeSegmenter"]


@dataclass(frozen=True, kw_only=True)
class ProMergeSegmenter(FeatureSegmenter):
    """Find objects by merging masks of patches that are like a grid of prompts.

    Reference:
        Li and Shin 2024, "ProMerge", arXiv 2409.18961, section 3.
    """

    tau: Cosine = option("patches are alike above this cosine similarity", 0.2)
    spacing: AtLeastOne = option("distance of prompts, patches", 4)
    scores: Scores = option(
        "what scores a mask, as for maskcut; the paper has 1, cut has the higher AP", "cut"
    )

    def __call__(self, activations: Activations, geometry: ImageGeometry) -> Instances:
        """Merge the masks of one image's prompts."""
        import torch

        features = activations.patch_features(self.feature, self.block)[0].float()
        masks = segmentation.promerge(features, geometry.grid_hw, self.tau, self.spacing)
        scores = segmentation.mask_scores(features, torch.from_numpy(masks), self.tau, self.scores)
        return structures.Instances(masks, scores, frame="grid")
