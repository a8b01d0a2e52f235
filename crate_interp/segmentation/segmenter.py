"""Segmenters: what one is, and the table of all of them.

A segmenter is one file of `crate_interp/segmentation/segmenters/`, or of an installed package: a
frozen dataclass whose fields are its options on the command line.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from crate_interp.options import option
from crate_interp.options.choices import Feature
from crate_interp.options.ranges import Index
from crate_interp.plugins import Table

if TYPE_CHECKING:
    from torch import nn
    from typing_extensions import Self

    from crate_interp.structures import Activations, ImageGeometry, Instances

__all__ = ["SEGMENTERS", "FeatureSegmenter", "Segmenter", "image_name"]

image_name: ContextVar[str] = ContextVar("image_name", default="image")  # for messages


class Segmenter(ABC):
    """Finds instances on the patch grid of an image, in what was recorded of it.

    Attributes:
        sites: Sites that it reads.
        blocks: Numbers of the blocks that it reads, from 0; negative ones count from the last.
    """

    sites: Sequence[str] = ()
    blocks: Sequence[int] = (-1,)

    def for_model(self, model: nn.Module) -> Self:
        """Give the segmenter with all choices made that depend on the model.

        Raises:
            InputError: The model lacks what the segmenter reads.
        """
        del model
        return self

    @abstractmethod
    def __call__(self, activations: Activations, geometry: ImageGeometry) -> Instances:
        """Segment one image.

        Args:
            activations: Activations of the image, a batch of one.
            geometry: Geometry of its patch grid, the model's input and its own pixels.

        Returns:
            Masks on the patch grid (`frame="grid"`), with their scores.

        Raises:
            InputError: The image cannot be segmented; others may be.
        """

    def together(
        self, activations: Sequence[Activations], geometry: ImageGeometry
    ) -> list[Instances]:
        """Segment images of one grid, which on a GPU may be faster together.

        Args:
            activations: Activations of each image, a batch of one.
            geometry: Geometry of the first image.
        """
        return [self(of_image, geometry) for of_image in activations]


@dataclass(frozen=True, kw_only=True)
class FeatureSegmenter(Segmenter):
    """A segmenter of the patch features of one block."""

    feature: Feature = option("what to compare (auto: subspace for CRATE, key for ViT)", "auto")
    block: Index = option("block to read, from 0; negative counts from the last", -1)

    @property
    def sites(self) -> Sequence[str]:  # type: ignore[override]
        """The feature."""
        return (self.feature,)

    @property
    def blocks(self) -> Sequence[int]:  # type: ignore[override]
        """The block."""
        return (self.block,)

    def for_model(self, model: nn.Module) -> Self:
        """Choose the feature that stands for `auto`.

        Raises:
            InputError: The model has no such block or feature.
        """
        from crate_interp import hooks

        if self.feature == "auto":
            own: Any = hooks.default_feature(model, self.block).value
            return replace(self, feature=own)
        hooks.record(model, [self.feature], [self.block])
        return self


SEGMENTERS: Table[Segmenter] = Table(
    "crate_interp.segmentation.segmenters", "segmenters", Segmenter, "method"
)
