"""MaskCut: several objects of an image, by repeated normalized cuts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from crate_interp import segmentation, structures
from crate_interp.options import Range, option
from crate_interp.options.choices import Scores, Solver
from crate_interp.options.ranges import Cosine
from crate_interp.segmentation.segmenter import FeatureSegmenter, image_name

if TYPE_CHECKING:
    from torch import Tensor

    from crate_interp.structures import Activations, ImageGeometry, Instances

__all__ = ["MaskCutSegmenter"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MaskCutSegmenter(FeatureSegmenter):
    """Find objects by repeated normalized cuts of alike patches.

    Reference:
        Wang et al. 2023, "Cut and Learn", arXiv 2301.11320, section 3.2.
    """

    tau: Cosine = option("patches are alike above this cosine similarity", 0.15)
    max_masks: Annotated[int, Range(1, 1000)] = option("masks an image, at most", 3)
    solver: Solver = option("eigenvector solver", "lanczos")
    scores: Scores = option(
        "what scores a mask: 1, as in the papers; the value of its normalized cut; the contrast of "
        "weights within it and across its border; or the gap between the second and the third "
        "eigenvalue of the graph it is cut from",
        "one",
    )

    def __call__(self, activations: Activations, geometry: ImageGeometry) -> Instances:
        """Cut one image."""
        (instances,) = self.together([activations], geometry)
        return instances

    def together(
        self, activations: Sequence[Activations], geometry: ImageGeometry
    ) -> list[Instances]:
        """Cut images of one grid, with the eigenvectors of a round together."""
        import torch

        features = torch.cat(
            [of_image.patch_features(self.feature, self.block) for of_image in activations]
        )
        cuts = segmentation.maskcut_batch(
            features.float(), geometry.grid_hw, self.tau, self.max_masks, self.solver
        )
        return [
            self._instances_of(cut, of_image, geometry)
            for cut, of_image in zip(cuts, features, strict=True)
        ]

    def _instances_of(
        self, cut: segmentation.MaskCutResult, features: Tensor, geometry: ImageGeometry
    ) -> Instances:
        if cut.is_constant:
            _logger.warning(
                "%s: constant image: all pairs of patches are alike at tau %g, no mask",
                *(image_name.get(), self.tau),
            )
        masks = cut.masks.reshape(-1, *geometry.grid_hw)
        masks = masks[masks.flatten(1).any(dim=1)]
        scores = segmentation.mask_scores(features, masks, self.tau, self.scores)
        return structures.Instances(masks.cpu().numpy(), scores, frame="grid")
