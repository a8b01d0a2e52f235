"""The part of an image on one side of the mean of its first principal component."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crate_interp import segmentation, structures
from crate_interp.segmentation.segmenter import FeatureSegmenter

if TYPE_CHECKING:
    from crate_interp.structures import Activations, ImageGeometry, Instances

__all__ = ["PrincipalSegmenter"]


@dataclass(frozen=True, kw_only=True)
class PrincipalSegmenter(FeatureSegmenter):
    """Find the object by the sign of the first principal component of the patch features.

    Reference:
        Yu et al. 2023, arXiv 2308.16271, section 3.
    """

    def __call__(self, activations: Activations, geometry: ImageGeometry) -> Instances:
        """Split one image; its mask, if there is one, has the score 1."""
        features = activations.patch_features(self.feature, self.block)[0].float()
        split = segmentation.principal_component(features, geometry.grid_hw)
        masks = split.mask[None].cpu().numpy()
        return structures.Instances(masks[masks.any(axis=(1, 2))], frame="grid")
