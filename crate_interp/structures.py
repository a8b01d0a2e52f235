"""The types that travel between the rooms of the package.

Shapes: B batch, N tokens, K heads, D embed dim, h w patch grid, H W pixels, M masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from crate_interp.errors import InputError, shorten

if TYPE_CHECKING:  # torch takes seconds, and --help needs none of it
    from torch import Tensor

__all__ = ["Activations", "Frame", "ImageGeometry", "InputSize", "Instances", "boxes_of_masks"]

Frame = Literal["grid", "input", "original"]
_SHAPES_SHOWN = 4
_MOST_ELONGATED = 4  # longer side, in shorter ones: tokens are so many times those of a square


@dataclass(frozen=True)
class InputSize:
    """Height and width that images are resized to.

    Attributes:
        hw: Height and width of every input, pixels; with `keep_aspect`, both are its shorter side.
        patch_hw: Height and width of a patch, pixels; the sides are multiples of them.
        keep_aspect: Whether the longer side is longer, up to four times, as in the image.
    """

    hw: tuple[int, int]
    patch_hw: tuple[int, int]
    keep_aspect: bool = False

    def of(self, original_hw: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the input for an image of this height and width, pixels."""
        if not self.keep_aspect:
            return self.hw
        shorter = min(original_hw)
        height, width = (
            patch
            * min(
                _MOST_ELONGATED * side // patch,
                (2 * side * length + shorter * patch) // (2 * shorter * patch),
            )
            for side, length, patch in zip(self.hw, original_hw, self.patch_hw, strict=True)
        )
        return height, width


@dataclass(frozen=True)
class ImageGeometry:
    """Places of an image's pixels in the model's input and in its patch grid.

    The only owner of coordinate changes. The image is resized to `input_hw` as a whole, without a
    crop, so that the three frames differ by a scaling along each axis.

    Attributes:
        original_hw: Height and width of the image as displayed (EXIF rotation applied), pixels.
        input_hw: Height and width of the model's input, pixels.
        patch_hw: Height and width of a patch, input pixels.
        stride_hw: Distance between neighbouring patches, input pixels; `None` means `patch_hw`.
    """

    original_hw: tuple[int, int]
    input_hw: tuple[int, int]
    patch_hw: tuple[int, int]
    stride_hw: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        sides = (*self.original_hw, *self.input_hw, *self.patch_hw, *(self.stride_hw or ()))
        if min(sides) < 1:
            raise InputError(f"sizes: expected 1 pixel or more, found {shorten(sides)}")
        for size, patch in zip(self.input_hw, self.patch_hw, strict=True):
            if size < patch:
                raise InputError(
                    f"input of {self.input_hw} pixels is smaller than a patch of {self.patch_hw}"
                )

    def refuse_less_than_a_patch(self, name: str = "image") -> None:
        """Refuse an image that has fewer pixels of its own, down or across, than a patch.

        Every command that looks at images does: what a model sees in such an image is made up by
        resizing. Predictors and observers take images of any size.

        Args:
            name: Name of the image, for the message.

        Raises:
            InputError: The image is smaller than a patch.
        """
        height, width = self.original_hw
        if height < self.patch_hw[0] or width < self.patch_hw[1]:
            raise InputError(
                f"{name}: {height} x {width} pixels (height, width) are smaller than a patch of "
                f"{self.patch_hw[0]} x {self.patch_hw[1]}"
            )

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Number of patches down and across."""
        strides = self.stride_hw or self.patch_hw
        rows, columns = (
            (size - patch) // stride + 1
            for size, patch, stride in zip(self.input_hw, self.patch_hw, strides, strict=True)
        )
        return rows, columns

    def grid_to_input(self, maps: Shaped[np.ndarray, "M h w"]) -> Shaped[np.ndarray, "M H W"]:
        """Give every input pixel the value of the patch whose centre is nearest."""
        if maps.shape[1:] != self.grid_hw:
            raise InputError(f"masks of {maps.shape[1:]} do not lie on the grid {self.grid_hw}")
        rows, columns = self._patches_of_input()
        return maps[:, rows][:, :, columns]

    def input_to_original(self, maps: Shaped[np.ndarray, "M H W"]) -> Shaped[np.ndarray, "M H2 W2"]:
        """Resample masks or maps of the model's input to the original image, nearest neighbour."""
        if maps.shape[1:] != self.input_hw:
            raise InputError(f"masks of {maps.shape[1:]} do not lie on the input {self.input_hw}")
        rows, columns = self._input_of_original()
        return maps[:, rows][:, :, columns]

    def grid_to_original(self, maps: Shaped[np.ndarray, "M h w"]) -> Shaped[np.ndarray, "M H2 W2"]:
        """Bring masks or maps of the patch grid to the original image, by way of the input."""
        return self.input_to_original(self.grid_to_input(maps))

    def original_to_grid(
        self, labels: Shaped[np.ndarray, "*M H2 W2"]
    ) -> Shaped[np.ndarray, "*M h w"]:
        """Give every patch the value of the original pixel that its centre lies in."""
        if labels.shape[-2:] != self.original_hw:
            raise InputError(
                f"labels of {labels.shape[-2:]} do not lie on the original image {self.original_hw}"
            )
        strides = self.stride_hw or self.patch_hw
        rows, columns = (
            (2 * stride * np.arange(cells) + patch) * original // (2 * size)
            for original, size, patch, stride, cells in zip(
                self.original_hw, self.input_hw, self.patch_hw, strides, self.grid_hw, strict=True
            )
        )
        values: Shaped[np.ndarray, "*M h w"] = labels[..., rows[:, None], columns]
        return values

    def patch_box(self, row: int, column: int) -> tuple[float, float, float, float]:
        """Box (x1, y1, x2, y2) of a patch in the original image, pixels."""
        strides = self.stride_hw or self.patch_hw
        (y1, y2), (x1, x2) = (
            (at * stride * original / size, (at * stride + patch) * original / size)
            for at, original, size, patch, stride in zip(
                (row, column),
                self.original_hw,
                self.input_hw,
                self.patch_hw,
                strides,
                strict=True,
            )
        )
        return x1, y1, x2, y2

    def patch_at(self, y: int, x: int) -> tuple[int, int]:
        """Row and column, in the patch grid, of the patch that a pixel of the original image shows.

        Raises:
            InputError: The pixel lies outside the image.
        """
        height, width = self.original_hw
        if not (0 <= y < height and 0 <= x < width):
            raise InputError(
                f"pixel {y},{x} lies outside the image: expected y from 0 to {height - 1} and x "
                f"from 0 to {width - 1}"
            )
        rows, columns = self._patches_of_input()
        input_rows, input_columns = self._input_of_original()
        return int(rows[input_rows[y]]), int(columns[input_columns[x]])

    def _patches_of_input(self) -> list[Int[np.ndarray, " n"]]:
        """Number of the nearest patch, for every row and for every column of the input."""
        strides = self.stride_hw or self.patch_hw
        return [
            np.clip(
                (np.arange(size) + 0.5 - patch / 2 + stride / 2) // stride, 0, cells - 1
            ).astype(int)
            for size, patch, stride, cells in zip(
                self.input_hw, self.patch_hw, strides, self.grid_hw, strict=True
            )
        ]

    def _input_of_original(self) -> list[Int[np.ndarray, " n"]]:
        """Number of the input pixel, for every row and for every column of the original image."""
        return [
            (2 * np.arange(original) + 1) * size // (2 * original)  # in integers: exact everywhere
            for original, size in zip(self.original_hw, self.input_hw, strict=True)
        ]


def boxes_of_masks(masks: Bool[np.ndarray, "M H W"]) -> Float[np.ndarray, "M 4"]:
    """Tight boxes (x1, y1, x2, y2), x2 and y2 exclusive; zeros for an empty mask."""
    boxes = np.zeros((len(masks), 4), dtype=np.float64)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
        if rows.size:
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


@dataclass(frozen=True, eq=False)
class Instances:
    """The masks found in one image, with boxes and scores, all in one frame.

    Attributes:
        masks: (M, H, W) bool.
        scores: (M,) float64; ones if not given, as MaskCut scores its masks.
        boxes_xyxy: (M, 4) float64, tight around the masks if not given; x2, y2 exclusive.
        frame: The pixels that the masks lie on: the patch grid, the model's input, or the
            original image.

    Raises:
        InputError: Shapes or types do not agree, or a value is not finite.
    """

    masks: Bool[np.ndarray, "M H W"]
    scores: Float[np.ndarray, " M"] = None  # type: ignore[assignment]  # filled when made
    boxes_xyxy: Float[np.ndarray, "M 4"] = None  # type: ignore[assignment]  # filled when made
    frame: Frame = "original"

    def __post_init__(self) -> None:
        if not isinstance(self.masks, np.ndarray):
            raise InputError(
                "masks: expected a bool array of shape (M, H, W), "
                f"found {type(self.masks).__name__}"
            )
        if self.masks.ndim != 3 or self.masks.dtype != np.bool_:
            raise InputError(
                "masks: expected a bool array of shape (M, H, W), "
                f"found {self.masks.dtype} of shape {self.masks.shape}"
            )
        if self.frame not in get_args(Frame):
            raise InputError(
                f"frame: expected {', '.join(get_args(Frame))}, found {shorten(self.frame)}"
            )
        count = len(self.masks)
        scores = np.ones(count) if self.scores is None else _numbers("scores", self.scores)
        if self.boxes_xyxy is None:
            boxes = boxes_of_masks(self.masks)
        else:
            boxes = _numbers("boxes_xyxy", self.boxes_xyxy)
        for name, value, shape in (("scores", scores, (count,)), ("boxes_xyxy", boxes, (count, 4))):
            if value.shape != shape:
                raise InputError(f"{name}: expected shape {shape}, found {value.shape}")
            if not np.isfinite(value).all():
                raise InputError(f"{name}: expected finite numbers, found {shorten(value)}")
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "boxes_xyxy", boxes)

    def __len__(self) -> int:
        return len(self.masks)

    def __repr__(self) -> str:
        """One line of sizes."""
        count, height, width = self.masks.shape
        return f"Instances({count} masks of {height} x {width} pixels, frame={self.frame!r})"


def _numbers(name: str, values: object) -> Float[np.ndarray, "*shape"]:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name}: expected numbers, found {shorten(values)}") from None


@dataclass(frozen=True, eq=False)
class Activations(Mapping[tuple[str, int], "Tensor"]):
    """Detached tensors of one forward pass by (site, block); holds no model.

    A negative block counts from the last one, so `activations["key", -1]` and
    `activations["key", 11]` are the same tensor of a model of 12 blocks.

    Attributes:
        tensors: Recorded tensors, by site name and non-negative block number.
        num_blocks: Number of blocks of the model.
        num_prefix_tokens: Number of class and register tokens before the patch tokens.
        grid_hw: Patch grid of the recorded forward pass, rows and columns.
        num_heads: Number of attention heads per block; `None` for blocks that do not attend.
        arguments: Per block, the keyword arguments that it was run with beside the tokens, where
            it needs any: rotary position for instance. Recorded with `tokens` or `tokens_in`.
    """

    tensors: Mapping[tuple[str, int], Tensor] = field(repr=False)
    num_blocks: int
    num_prefix_tokens: int
    grid_hw: tuple[int, int]
    num_heads: int | None = None
    arguments: Mapping[int, Mapping[str, Any]] = field(default_factory=dict, repr=False)

    def __getitem__(self, key: tuple[str, int]) -> Tensor:
        if not (isinstance(key, tuple) and len(key) == 2 and isinstance(key[1], int)):
            raise KeyError(f"expected a site and the number of a block, found {shorten(key)}")
        site, block = key
        place = (str(getattr(site, "value", site)).lower(), block % self.num_blocks)
        if place not in self.tensors or not -self.num_blocks <= block < self.num_blocks:
            recorded = ", ".join(f"({name!r}, {number})" for name, number in self.tensors)
            raise KeyError(f"({place[0]!r}, {block}) was not recorded; recorded: {recorded}")
        return self.tensors[place]

    def __repr__(self) -> str:
        """One line of sizes."""
        shapes = [f"{key}: {tuple(tensor.shape)}" for key, tensor in self.tensors.items()]
        shown = ", ".join(shapes[:_SHAPES_SHOWN])
        more = len(shapes) - _SHAPES_SHOWN
        return (
            f"Activations({{{shown}{f', and {more} more' if more > 0 else ''}}}, "
            f"num_blocks={self.num_blocks}, num_prefix_tokens={self.num_prefix_tokens}, "
            f"grid_hw={self.grid_hw})"
        )

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def of_image(self, number: int) -> Activations:
        """The activations of one image of the batch, as a batch of one."""
        one = {key: tensor[number : number + 1] for key, tensor in self.tensors.items()}
        return replace(self, tensors=one)

    def patch_features(self, site: str, block: int = -1) -> Float[Tensor, "B D n"]:
        """Features of the patch tokens of a token-shaped site: prefix tokens dropped, (B, D, h*w).

        Raises:
            InputError: The site's tensor is not of shape (B, N, D).
        """
        tokens = self[site, block]
        expected = self.grid_hw[0] * self.grid_hw[1] + self.num_prefix_tokens
        if tokens.ndim != 3 or tokens.shape[1] != expected:
            raise InputError(
                f"site {site!r} has shape {tuple(tokens.shape)}, expected (B, {expected}, D): "
                "it holds no feature a token"
            )
        features: Tensor = tokens[:, self.num_prefix_tokens :].transpose(1, 2)
        return features
