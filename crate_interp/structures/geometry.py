"""Frames of an image: its own pixels, the model's input, and the patch grid.

Shapes: h w patch grid, H W pixels, M masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Shaped

from crate_interp.errors import InputError, shorten

__all__ = ["ImageGeometry", "InputSize"]

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
