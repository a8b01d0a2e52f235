"""A model with an input size: images in, activations out."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from crate_interp.data import preprocess
from crate_interp.errors import InputError
from crate_interp.hooks.argument_checks import check_arguments
from crate_interp.hooks.feature_cleaning import (
    fill_in,
    have_high_norm,
    positional_directions,
    without_directions,
)
from crate_interp.hooks.own_passes import original_of
from crate_interp.hooks.recorder import record
from crate_interp.hooks.resolution import any_resolution, check_resolution, check_stride
from crate_interp.hooks.sites import Site
from crate_interp.models import inference_precision
from crate_interp.models.backbones import embedding_of, patch_hw_of
from crate_interp.models.float64 import on_float64_device
from crate_interp.options.choices import Precision
from crate_interp.options.ranges import Noise, NormFactor
from crate_interp.structures import Activations, ImageGeometry, InputSize

__all__ = ["Observer"]

PAPER_SIZE = 480
_BLANK = (0.0, 0.25, 0.5, 0.75, 1.0)  # levels of grey of images without content


@dataclass(frozen=True)
class Observer:
    """Puts images through a model at a size of your choice, and records what it computes.

        observer = Observer(load_backbone("dino_vits8"), size=480)
        observer.activations([rgb], ["cls_attention"], [-1])["cls_attention", -1]

    Args:
        model: A CRATE family model or a timm vision transformer, on the device to use; a compiled
            one runs as it was written, because compiled code cannot be looked into.
        size: Side of the square that images are resized to, or height and width, pixels. By default
            the test size of the model's own configuration, or 480 rounded down to whole patches.
        stride: Pixels between patches, if denser than the patch size.
        precision: Number type of the forward pass.
        keep_aspect: Resize images without squashing them: the shorter side to `size`, the longer
            one to the nearest multiple of the patch size, up to four times `size`. So do the
            programs of DINO and TokenCut; the papers of CRATE and CutLER squash, as is the default.
        noise: Standard deviation of Gaussian noise that the input gets, as for `preprocess`.
        debias: Take out of the patches' features what depends on their position alone, as that of
            blank images does in the model without interventions: see `positional_directions`. Class
            and register tokens stay, and so do `attention` and `cls_attention`, but attention that
            is computed from queries and keys recorded so is not the model's.
        norm_filter: Give patches whose token, leaving the block, is longer than so many times the
            median of the image the mean of their neighbours: see `fill_in`; `None`: none.

    Attributes:
        input_hw: Height and width of the model's input, pixels; derived from `size`. With
            `keep_aspect`, of a square image: `geometry` has an image's own.

    Raises:
        InputError: No vision transformer, or one that cannot change its resolution; a size that is
            no multiple of the patch size; a stride that the model cannot have; an argument of
            another type.
    """

    model: nn.Module
    size: int | tuple[int, int] | None = None
    stride: int | None = None
    precision: Precision = "float32"
    keep_aspect: bool = False
    noise: Noise | None = None
    debias: bool = False
    norm_filter: NormFactor | None = None
    input_hw: tuple[int, int] = field(init=False, repr=False)
    _directions: dict[tuple[str, int, int, int], Tensor] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        check_arguments(self, "size", "stride", "precision", "keep_aspect", "noise")
        check_arguments(self, "debias", "norm_filter")
        object.__setattr__(self, "model", original_of(self.model))
        check_resolution(self.model)
        patch_hw = self._patch_hw
        if self.stride is not None:
            check_stride(self.model, self.stride)
        size = self.size
        if size is None:
            own_size = getattr(self.model, "pretrained_cfg", {}).get("test_input_size")
            size = int(own_size[-1]) if own_size else PAPER_SIZE
            size -= size % patch_hw[0]
        if self.keep_aspect and not isinstance(size, int):
            raise InputError(
                f"size: expected the shorter side alone with keep_aspect, found {size}"
            )
        input_hw = (size, size) if isinstance(size, int) else size
        if any(side < 1 or side % patch for side, patch in zip(input_hw, patch_hw, strict=True)):
            near = tuple(
                max(1, round(side / patch)) * patch
                for side, patch in zip(input_hw, patch_hw, strict=True)
            )
            raise InputError(
                f"size {size}: expected a multiple of the patch size {patch_hw[0]}, "
                f"for instance {near[0] if isinstance(size, int) else near}"
            )
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "input_hw", input_hw)

    def __repr__(self) -> str:
        """One line: the model's class, and what is done with images."""
        return f"Observer({self.described()})"

    def described(self) -> str:
        """The model by its class, and the settings, in one line."""
        stride = "" if self.stride is None else f", stride={self.stride}"
        stride += ", keep_aspect=True" if self.keep_aspect else ""
        stride += f", noise={self.noise}" if self.noise else ""
        stride += ", debias=True" if self.debias else ""
        stride += f", norm_filter={self.norm_filter}" if self.norm_filter else ""
        return (
            f"{type(self.model).__name__}, size={self.size}{stride}, "
            f"precision={self.precision!r}, device={str(self.device)!r}"
        )

    def geometry(self, original_hw: tuple[int, int]) -> ImageGeometry:
        """Geometry of an image: its pixels in the model's input and its patch grid."""
        stride_hw = None if self.stride is None else (self.stride, self.stride)
        input_hw = self.input_size.of(original_hw)
        return ImageGeometry(original_hw, input_hw, self._patch_hw, stride_hw)

    def pixels(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> Float[Tensor, "B 3 H W"]:
        """Resize images and normalise them as the model wants, on its device.

        Args:
            images: RGB in [0, 255], of any sizes; with `keep_aspect`, of one aspect.

        Returns:
            Pixels in the number type of the model's own weights.

        Raises:
            InputError: No image, one that is no uint8 array of shape (H, W, 3), or images whose
                inputs differ in size.
        """
        if not len(images):
            raise InputError("images: expected an image or more, found none")
        data_config = resolve_model_data_config(self.model)
        statistics = data_config["mean"], data_config["std"]
        sizes = list(dict.fromkeys(map(self._input_hw_of, images)))
        if len(sizes) > 1:
            raise InputError(
                f"images: expected one size of input in a batch, found {sizes[0]} and {sizes[1]} "
                "(height, width); `each` takes images of different aspects"
            )
        pixels = torch.stack([preprocess(rgb, sizes[0], *statistics, self.noise) for rgb in images])
        return pixels.to(self.device, next(self.model.parameters()).dtype)

    def activations(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        sites: Sequence[Site | str],
        blocks: Sequence[int],
    ) -> Activations:
        """Record a batch: one forward pass, ended as soon as everything is recorded.

        Args:
            images: RGB in [0, 255], of any sizes; resized and normalised as the model wants.
            sites: As for `record`.
            blocks: As for `record`.

        Raises:
            InputError: As `record`.
        """
        pixels = self.pixels(images)
        if not self.debias and self.norm_filter is None:
            return self._seen(pixels, sites, blocks)
        needs_tokens = self.norm_filter is not None and Site.TOKENS not in sites
        seen = self._seen(pixels, [*sites, Site.TOKENS] if needs_tokens else sites, blocks)
        first, (rows, columns) = seen.num_prefix_tokens, seen.grid_hw
        tensors: dict[tuple[str, int], Tensor] = {}
        asked = {key: seen[key] for key in seen if not needs_tokens or key[0] != Site.TOKENS.value}
        for (site, block), values in asked.items():
            is_attention = site in (Site.CLS_ATTENTION, Site.ATTENTION)
            if values.shape[1] == first + rows * columns and not is_attention:
                features = values[:, first:]
                if self.debias:
                    directions = self._positional(site, block, pixels)
                    features = without_directions(features, directions.to(features))
                if self.norm_filter is not None:
                    lengths = seen[Site.TOKENS, block][:, first:]
                    holes = have_high_norm(lengths, self.norm_filter)
                    features = fill_in(features, holes, seen.grid_hw)
                values = torch.cat([values[:, :first], features], dim=1)
            tensors[site, block] = values
        return replace(seen, tensors=tensors)

    def _seen(
        self, pixels: Float[Tensor, "B 3 H W"], sites: Sequence[Site | str], blocks: Sequence[int]
    ) -> Activations:
        recorder = record(self.model, sites, blocks, stop_early=True)
        with (
            torch.inference_mode(),
            recorder,
            any_resolution(self.model, self.stride),
            inference_precision(self.precision, self.model),
        ):
            self.model(pixels)
        recorded = recorder.activations
        # Cuts and rates are computed in float64.
        tensors = {key: on_float64_device(value) for key, value in recorded.items()}
        return replace(recorded, tensors=tensors)

    def _positional(
        self, site: str, block: int, pixels: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "C D"]:
        """Directions of the position, for a size of input; computed once."""
        height, width = pixels.shape[-2:]
        key = (site, block, height, width)
        if key not in self._directions:
            levels = torch.tensor(_BLANK, dtype=pixels.dtype, device=pixels.device)
            config = resolve_model_data_config(self.model)
            mean, std = (levels.new_tensor(config[name]) for name in ("mean", "std"))
            blank = ((levels[:, None] - mean) / std)[..., None, None].expand(-1, -1, height, width)
            # In a thread of its own, so that no `intervene` around this call changes them.
            with ThreadPoolExecutor(1) as alone:
                seen = alone.submit(self._seen, blank, [site], [block]).result()
            features = seen.patch_features(site, block)
            self._directions[key] = positional_directions(features.transpose(1, 2))
        return self._directions[key]

    def each(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        sites: Sequence[Site | str],
        blocks: Sequence[int],
    ) -> list[Activations]:
        """Record images as `activations` does, which may have inputs of different sizes.

        Returns:
            A batch of one for each image; images of one size go through the model together.
        """
        together: dict[tuple[int, int], list[int]] = {}
        for number, rgb in enumerate(images):
            together.setdefault(self._input_hw_of(rgb), []).append(number)
        recorded: dict[int, Activations] = {}
        for numbers in together.values():
            batch = self.activations([images[number] for number in numbers], sites, blocks)
            recorded |= {number: batch.of_image(at) for at, number in enumerate(numbers)}
        return [recorded[number] for number in range(len(images))]

    def _input_hw_of(self, rgb: UInt8[np.ndarray, "_ _ 3"]) -> tuple[int, int]:
        if not isinstance(rgb, np.ndarray) or rgb.ndim != 3:
            return self.input_hw  # `preprocess` says what is wrong
        return self.input_size.of((rgb.shape[0], rgb.shape[1]))

    @property
    def input_size(self) -> InputSize:
        """Height and width of the model's input, which may depend on the image."""
        return InputSize(self.input_hw, self._patch_hw, self.keep_aspect)

    @property
    def device(self) -> torch.device:
        """Device that the model is on."""
        return next(self.model.parameters()).device

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Rows and columns of the patch grid; with `keep_aspect`, of a square image."""
        return self.geometry(self.input_hw).grid_hw

    @property
    def _patch_hw(self) -> tuple[int, int]:
        return patch_hw_of(embedding_of(self.model))
