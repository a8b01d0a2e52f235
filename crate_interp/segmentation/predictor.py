"""MaskCut as one object: an image in, instances out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL.Image import Image
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from crate_interp.config import Feature, Precision, Refine, Solver
from crate_interp.data import preprocess, read_image, resize_image, to_rgb
from crate_interp.errors import InputError
from crate_interp.hooks import Site, any_resolution, available_sites, check_stride, record
from crate_interp.models import inference_precision
from crate_interp.segmentation.maskcut import maskcut
from crate_interp.segmentation.refinement import refine_masks
from crate_interp.structures import Activations, ImageGeometry, Instances

__all__ = ["MaskCut"]

PAPER_SIZE = 480


@dataclass(frozen=True)
class MaskCut:
    """Finds up to `max_masks` objects in an image by repeated normalized cuts, without labels.

        instances = MaskCut(load_backbone("dino_vits8"))("photo.jpg")

    Args:
        model: A CRATE family model or a timm vision transformer, on the device to use.
        tau: Patches are alike above this cosine similarity, in (-1, 1).
        max_masks: Rounds, and so masks an image at most.
        size: Side of the square that images are resized to, pixels. By default the test size of the
            model's own configuration, or 480 rounded down to whole patches.
        feature: What is compared; `auto` is the shared subspace projection for CRATE families and
            the keys for any other model, as in the papers.
        block: Block to read, from 0; negative numbers count from the last.
        refine: `crf` runs a dense CRF on each mask at input resolution.
        solver: `lanczos`, or `dense` for the reference.
        stride: Pixels between patches, if denser than the patch size.
        precision: Number type of the forward pass; the cuts are always exact to float64.

    Attributes:
        input_hw: Height and width of the model's input, pixels; derived from `size`.

    Raises:
        InputError: A size that is no multiple of the patch size, a feature that the model lacks.

    Reference:
        Wang et al. 2023, "Cut and Learn", arXiv 2301.11320, section 3.2.
    """

    model: nn.Module
    tau: float = 0.15
    max_masks: int = 3
    size: int | None = None
    feature: Feature = "auto"
    block: int = -1
    refine: Refine = "none"
    solver: Solver = "lanczos"
    stride: int | None = None
    precision: Precision = "float32"
    input_hw: tuple[int, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        patch_hw = self._patch_hw
        sites = available_sites(self.model, self.block)
        if self.feature == "auto":
            own = Site.SUBSPACE if Site.SUBSPACE in sites else Site.KEY
            object.__setattr__(self, "feature", own.value)
        record(self.model, [self.feature], [self.block])  # refuses a site the model lacks
        if self.stride is not None:
            check_stride(self.model, self.stride)
        size = self.size
        if size is None:
            own_size = getattr(self.model, "pretrained_cfg", {}).get("test_input_size")
            size = int(own_size[-1]) if own_size else PAPER_SIZE
            size -= size % patch_hw[0]
        if size < 1 or any(size % patch for patch in patch_hw):
            raise InputError(
                f"size {size}: expected a multiple of the patch size {patch_hw[0]}, "
                f"for instance {max(1, round(size / patch_hw[0])) * patch_hw[0]}"
            )
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "input_hw", (size, size))

    def __call__(self, image: str | Path | Image | UInt8[np.ndarray, "H W 3"]) -> Instances:
        """Instances of one image, in the pixels of the original (EXIF rotation applied)."""
        rgb = read_image(image) if isinstance(image, (str, Path)) else to_rgb(image)
        return self.instances(rgb, self.features([rgb])[0])

    def geometry(self, rgb: UInt8[np.ndarray, "H W 3"]) -> ImageGeometry:
        """Where the pixels of `rgb` lie in the model's input and its patch grid."""
        stride_hw = None if self.stride is None else (self.stride, self.stride)
        original_hw = (rgb.shape[0], rgb.shape[1])
        return ImageGeometry(original_hw, self.input_hw, self._patch_hw, stride_hw)

    def features(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> Float[Tensor, "B D n"]:
        """Patch features of a batch: one forward pass, ended as soon as they are recorded."""
        activations = self.activations(images, [self.feature], [self.block])
        return activations.patch_features(self.feature, self.block).float()

    def activations(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        sites: Sequence[Site | str],
        blocks: Sequence[int],
    ) -> Activations:
        """Record more than the features of a batch, in the forward pass that `features` makes.

        Raises:
            InputError: As `record`.
        """
        device = next(self.model.parameters()).device
        data_config = resolve_model_data_config(self.model)
        statistics = data_config["mean"], data_config["std"]
        pixels = torch.stack([preprocess(rgb, self.input_hw, *statistics) for rgb in images])
        recorder = record(self.model, sites, blocks, stop_early=True)
        with (
            torch.inference_mode(),
            any_resolution(self.model, self.stride),
            inference_precision(self.precision, device),
            recorder,
        ):
            self.model(pixels.to(device))
        recorded = recorder.activations
        if device.type == "mps":  # it has no float64 for what follows
            return replace(recorded, tensors={key: value.cpu() for key, value in recorded.items()})
        return recorded

    def instances(
        self, rgb: UInt8[np.ndarray, "H W 3"], features: Float[Tensor, "D n"]
    ) -> Instances:
        """Cut the patch features of one image, refine, and bring the masks to its own pixels."""
        geometry = self.geometry(rgb)
        cut = maskcut(features, geometry.grid_hw, self.tau, self.max_masks, solver=self.solver)
        found = cut.masks.cpu().numpy()
        masks = geometry.grid_to_input(found[found.any(axis=(1, 2))])
        if self.refine != "none":
            resized = resize_image(rgb, self.input_hw)
            masks = refine_masks(resized, masks, method=self.refine, device=features.device)
        masks = geometry.input_to_original(masks)
        return Instances(masks[masks.any(axis=(1, 2))])

    @property
    def _patch_hw(self) -> tuple[int, int]:
        rows, columns = self.model.get_submodule("patch_embed").patch_size  # type: ignore[misc]
        return int(rows), int(columns)
