"""Semantic segments of an image: k-means on the eigenvectors of a Laplacian of its patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from crate_interp import segmentation, structures
from crate_interp.errors import InputError
from crate_interp.options import Range, option
from crate_interp.segmentation.segmenter import FeatureSegmenter

if TYPE_CHECKING:
    from torch import nn
    from typing_extensions import Self

    from crate_interp.structures import Activations, ImageGeometry, Instances

__all__ = ["SpectralSegmenter"]


@dataclass(frozen=True, kw_only=True)
class SpectralSegmenter(FeatureSegmenter):
    """Find semantic segments by k-means on eigenvectors of the graph of patches.

    Reference:
        Melas-Kyriazi et al. 2022, "Deep Spectral Methods", arXiv 2205.07839.
    """

    clusters: Literal["auto"] | Annotated[int, Range(2, 100)] = option(
        "number of clusters, the background included; auto: by the largest gap of eigenvalues", 4
    )
    eigenvectors: Annotated[int, Range(1, 100)] = option("eigenvectors that k-means reads", 4)

    def for_model(self, model: nn.Module) -> Self:
        """Choose the feature that stands for `auto`.

        Raises:
            InputError: As `FeatureSegmenter`; there is no gap between eigenvalues to count by.
        """
        if self.clusters == "auto" and self.eigenvectors < 2:
            raise InputError("eigenvectors: expected 2 or more to count clusters by, found 1")
        return super().for_model(model)

    def __call__(self, activations: Activations, geometry: ImageGeometry) -> Instances:
        """Cluster the patches of one image; each cluster but the background is a mask of score 1.

        A cluster may have several parts.
        """
        features = activations.patch_features(self.feature, self.block)[0].float()
        labels = segmentation.spectral_clusters(
            features, geometry.grid_hw, self.clusters, self.eigenvectors
        )
        masks = labels == labels.unique()[1:, None, None]
        return structures.Instances(masks.numpy(), frame="grid")
