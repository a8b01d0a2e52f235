"""TokenCut: the one salient object of an image, by a single normalized cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crate_interp import segmentation, structures
from crate_interp.options import option
from crate_interp.options.choices import Scores, Solver
from crate_interp.options.ranges import Cosine
from crate_interp.segmentation.segmenter import FeatureSegmenter, image_name

if TYPE_CHECKING:
    from crate_interp.structures import Activations, ImageGeometry, Instances

__all__ = ["TokenCutSegmenter"]


@dataclass(frozen=True, kw_only=True)
class TokenCutSegmenter(FeatureSegmenter):
    """Find the salient object by one normalized cut of alike patches.

    Reference:
        Wang et al. 2022, arXiv 2202.11539, section 3.
    """

    tau: Cosine = option("patches are alike above this cosine similarity", 0.2)
    solver: Solver = option("eigenvector solver", "lanczos")
    scores: Scores = option("what scores a mask, as for maskcut", "one")

    def __call__(self, activations: Activations, geometry: ImageGeometry) -> Instances:
        """Cut one image; a constant one has no mask."""
        features = activations.patch_features(self.feature, self.block)[0].float()
        cut = segmentation.tokencut(
            features, geometry.grid_hw, self.tau, self.solver, image_name.get()
        )
        masks = cut.mask[None][: bool(cut.mask.any())]
        scores = segmentation.mask_scores(features, masks, self.tau, self.scores)
        return structures.Instances(masks.cpu().numpy(), scores, frame="grid")
