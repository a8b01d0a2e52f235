"""MaskCut as one object: an image in, instances out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from logging import getLogger
from pathlib import Path
from typing import TypeAlias, overload

import numpy as np
from jaxtyping import Float, UInt8
from PIL.Image import Image
from torch import Tensor, nn

from crate_interp.data import read_image, to_rgb
from crate_interp.hooks import Observer, default_feature, record
from crate_interp.hooks.argument_checks import check_arguments
from crate_interp.options.choices import Feature, Precision, Refine, Scores, Solver
from crate_interp.options.ranges import AtLeastOne, Cosine
from crate_interp.segmentation.mask_scores import mask_scores
from crate_interp.segmentation.maskcut import MaskCutResult, maskcut_batch
from crate_interp.segmentation.refinement import on_original
from crate_interp.segmentation.segmenters.maskcut import MaskCutSegmenter
from crate_interp.structures import Instances

__all__ = ["MaskCut"]

_logger = getLogger(__name__)

Picture: TypeAlias = str | Path | Image | UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class MaskCut:
    """Finds up to `max_masks` objects in an image by repeated normalized cuts, without labels.

        instances = MaskCut(load_backbone("dino_vits8"))("photo.jpg")

    Args:
        model: A CRATE family model or a timm vision transformer, on the device to use.
        tau: Patches are alike above this cosine similarity, in (-1, 1).
        max_masks: Number of rounds, and so of masks per image at most.
        size: As for `Observer`.
        feature: Feature that patches are compared by; `auto` is the shared subspace projection for
            CRATE families and the keys for any other model, as in the papers.
        block: Block to read, from 0; negative numbers count from the last.
        refine: `crf` runs a dense CRF on each mask at input resolution.
        solver: `lanczos`, or `dense` for the reference.
        stride: As for `Observer`.
        precision: Number type of the forward pass; the cuts are always exact to float64.
        keep_aspect: As for `Observer`.
        scores: What scores a mask, see `mask_scores`.

    Attributes:
        observer: Observer that puts images through the model.

    Raises:
        InputError: As `Observer`; a feature that the model lacks, a number out of its range, or an
            argument of another type.

    Reference:
        Wang et al. 2023, "Cut and Learn", arXiv 2301.11320, section 3.2.
    """

    model: nn.Module
    tau: Cosine = MaskCutSegmenter.tau
    max_masks: AtLeastOne = MaskCutSegmenter.max_masks
    size: int | tuple[int, int] | None = None
    feature: Feature = MaskCutSegmenter.feature
    block: int = MaskCutSegmenter.block
    refine: Refine = "none"
    solver: Solver = MaskCutSegmenter.solver
    stride: int | None = None
    precision: Precision = "float32"
    keep_aspect: bool = False
    scores: Scores = MaskCutSegmenter.scores
    observer: Observer = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_arguments(self, "tau", "max_masks", "block", "refine", "solver", "scores")
        observer = Observer(self.model, self.size, self.stride, self.precision, self.keep_aspect)
        for name in ("model", "size", "stride", "precision", "keep_aspect"):
            object.__setattr__(self, name, getattr(observer, name))
        object.__setattr__(self, "observer", observer)
        if self.feature == "auto":
            own = default_feature(self.model, self.block)
            object.__setattr__(self, "feature", own.value)
        record(self.model, self.feature, self.block)  # refuses a site the model lacks
        check_arguments(self, "feature")

    def __repr__(self) -> str:
        """One line: the model's class, and the settings."""
        own = ", ".join(
            f"{name}={getattr(self, name)!r}"
            for name in ("tau", "max_masks", "feature", "block", "refine", "solver", "scores")
            if name != "scores" or self.scores != MaskCutSegmenter.scores
        )
        return f"MaskCut({self.observer.described()}, {own})"

    @overload
    def __call__(self, image: Picture) -> Instances: ...
    @overload
    def __call__(self, image: list[Picture] | tuple[Picture, ...]) -> list[Instances]: ...
    def __call__(
        self, image: Picture | list[Picture] | tuple[Picture, ...]
    ) -> Instances | list[Instances]:
        """Instances of one image, in the pixels of the original (EXIF rotation applied).

        Args:
            image: Path, Pillow image, or RGB in [0, 255]; or a list of these, which are cut one
                after the other: on a GPU, `features` and `cut` do several at once.

        Returns:
            Instances, or a list of them for a list.

        Raises:
            InputError: Anything else, or a file that cannot be read.
        """
        if isinstance(image, (list, tuple)):
            return [self(one) for one in image]
        rgb = read_image(image) if isinstance(image, (str, Path)) else to_rgb(image)
        geometry = self.observer.geometry((rgb.shape[0], rgb.shape[1]))
        features = self.features([rgb])
        (cut,) = self.cut(features, geometry.grid_hw)
        name = str(image) if isinstance(image, (str, Path)) else "image"
        return self.instances(rgb, cut, name=name, features=features[0])

    def features(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> Float[Tensor, "B D n"]:
        """Patch features of a batch: one forward pass, ended as soon as they are recorded.

        Images of one aspect, where the observer keeps it.
        """
        activations = self.observer.activations(images, [self.feature], [self.block])
        return activations.patch_features(self.feature, self.block).float()

    def cut(
        self, features: Float[Tensor, "B D n"], grid_hw: tuple[int, int] | None = None
    ) -> list[MaskCutResult]:
        """Cut the images of a batch, as `features` returns them.

        Args:
            features: Patch features of the images.
            grid_hw: Patch grid of the images; `None`: that of the observer, which is that of square
                images with `keep_aspect`.
        """
        grid_hw = grid_hw or self.observer.grid_hw
        return maskcut_batch(features, grid_hw, self.tau, self.max_masks, self.solver)

    def instances(
        self,
        rgb: UInt8[np.ndarray, "H W 3"],
        cut: MaskCutResult,
        original_hw: tuple[int, int] | None = None,
        name: str = "image",
        features: Float[Tensor, "D n"] | None = None,
    ) -> Instances:
        """Refine what was cut out of an image, and bring it to the image's own pixels.

        Args:
            rgb: The image, or what `resize_image` makes of it.
            cut: Cut of this image, as `cut` returns it.
            original_hw: Height and width of the image itself, pixels, where `rgb` is resized.
            name: Name of the image, for the log, which says why there is no mask.
            features: Patch features of the image, of which the scores are made; without them, every
                mask scores 1.
        """
        geometry = self.observer.geometry(original_hw or (rgb.shape[0], rgb.shape[1]))
        if cut.is_constant:
            _logger.warning(
                "%s: constant image: all pairs of patches are alike at tau %g, no mask",
                *(name, self.tau),
            )
        masks = cut.masks.reshape(-1, *geometry.grid_hw)
        masks = masks[masks.flatten(1).any(dim=1)]
        scores = np.ones(len(masks))
        if features is not None:
            scores = mask_scores(features, masks, self.tau, self.scores)
        instances = Instances(masks.cpu().numpy(), scores, frame="grid")
        return on_original(instances, geometry, rgb, self.refine, cut.masks.device, name)
