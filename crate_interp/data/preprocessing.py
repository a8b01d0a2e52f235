"""Turning RGB into a model's input; the rest of this room does without torch."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from crate_interp.data.images import resize_image
from crate_interp.errors import InputError

__all__ = ["preprocess"]


def preprocess(
    rgb: UInt8[np.ndarray, "H W 3"],
    input_hw: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    noise: float | None = None,
) -> Float[Tensor, "3 H2 W2"]:
    """Resize a whole image (Lanczos, no crop) and normalise it.

    Args:
        rgb: RGB in [0, 255].
        input_hw: Height and width of the result, pixels.
        mean: Means of R, G and B, for values in [0, 1].
        std: Standard deviations of R, G and B, for values in [0, 1].
        noise: Standard deviation of Gaussian noise that is added to the values in [0, 1]. It
            follows from the image, and is k times as strong for a k times larger number.

    Returns:
        `(rgb / 255 - mean) / std`, float32.

    Raises:
        InputError: The image is no (H, W, 3) uint8 array, or a number makes no sense.
    """
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise InputError(
            f"expected three means and three positive standard deviations, found {mean} and {std}"
        )
    resized = resize_image(rgb, input_hw)
    pixels = torch.from_numpy(resized).permute(2, 0, 1).float().div_(255)
    if noise:
        seed = zlib.crc32(np.ascontiguousarray(resized).data)
        drawn = np.random.default_rng(seed).standard_normal(pixels.shape, np.float32)
        pixels += noise * torch.from_numpy(drawn)
    shift, scale = (torch.tensor(list(values)).view(3, 1, 1) for values in (mean, std))
    return pixels.sub_(shift).div_(scale).contiguous()
