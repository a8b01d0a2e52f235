"""Reading images of any kind as RGB, and resizing them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps

from crate_interp.data.image_files import opened_image
from crate_interp.data.stored import StoredImage, is_url
from crate_interp.errors import InputError

__all__ = [
    "ResizedImage",
    "read_image",
    "resize_image",
    "shrunk",
    "to_rgb",
]

logger = logging.getLogger(__name__)

_STRIP_PIXELS = 2**20  # converted at once: an image of 2**26 is to fit several times
_ROTATED = range(2, 9)  # values of EXIF's orientation that move pixels


class ResizedImage(NamedTuple):
    """An image at the size of a model's input.

    Attributes:
        rgb: Pixels in [0, 255].
        original_hw: Height and width of the image as displayed, pixels.
        picture: The image at that size, where it was asked for.
    """

    rgb: UInt8[np.ndarray, "H W 3"]
    original_hw: tuple[int, int]
    picture: UInt8[np.ndarray, "H2 W2 3"] | None = None


def read_image(path: str | Path | StoredImage) -> UInt8[np.ndarray, "H W 3"]:
    """Read an image file as RGB, as `to_rgb` describes.

    Args:
        path: A file of a known format (see `image_files`), its URL, or its place behind a URL or in
            a tar file; of an animation, the first frame.

    Returns:
        RGB in [0, 255], the size that the image is displayed at.

    Raises:
        ImageReadError: The file is missing, is no image, is damaged, or has more pixels than
            `image_files.MAX_PIXELS`, 8192 x 8192.
    """
    if isinstance(path, str):
        path = StoredImage(path) if is_url(path) else Path(path)
    with opened_image(path) as image:
        return to_rgb(image)


def to_rgb(image: Image.Image | np.ndarray) -> UInt8[np.ndarray, "H W 3"]:
    """Turn an image of any mode into RGB in [0, 255].

    An EXIF rotation is applied. An alpha channel is dropped, not blended, as the field's data
    pipelines do. Of 16 bits a value the upper 8 are kept, as Pillow does for 16-bit colour, so
    that the full range is scaled and nothing is clipped.

    Args:
        image: A Pillow image of 1, 8 or 16 bits per value, or a uint8 array of shape (H, W),
            (H, W, 1), (H, W, 3) or (H, W, 4) in the order R, G, B, A.

    Returns:
        An array of its own memory.

    Raises:
        InputError: The array has another type or shape, or the image holds values that have no
            8-bit meaning (floating point, or integers outside 16 bits).
    """
    if isinstance(image, Image.Image):
        if 0 in image.size:
            raise InputError(f"image: expected pixels, found width x height of {image.size}")
        return _rgb_of(_upright(image))
    if not isinstance(image, np.ndarray):
        raise InputError(
            "image: expected a path, a Pillow image or a uint8 array of shape (H, W, 3), found "
            f"{type(image).__name__}"
        )
    if image.dtype != np.uint8:
        raise InputError(f"image array: expected uint8 in [0, 255], found {image.dtype}")
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in image.shape:
        raise InputError(
            "image array: expected shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), "
            f"found {image.shape}"
        )
    if channels == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return np.array(image[:, :, :3])


def resize_image(
    rgb: UInt8[np.ndarray, "H W 3"], input_hw: tuple[int, int]
) -> UInt8[np.ndarray, "H2 W2 3"]:
    """Resize a whole image with Lanczos, without a crop.

    Raises:
        InputError: The image is no (H, W, 3) uint8 array, or a size is not positive.
    """
    if not isinstance(rgb, np.ndarray):
        raise InputError(f"rgb: expected a uint8 array (H, W, 3), found {type(rgb).__name__}")
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
        raise InputError(f"rgb: expected uint8 (H, W, 3), found {rgb.dtype} of shape {rgb.shape}")
    if min(input_hw) < 1:
        raise InputError(f"input_hw: expected positive sizes, found {input_hw}")
    height, width = input_hw
    return np.array(Image.fromarray(rgb).resize((width, height), Image.Resampling.LANCZOS))


def shrunk(rgb: UInt8[np.ndarray, "H W 3"], side: int) -> UInt8[np.ndarray, "H2 W2 3"]:
    """Bring the longer side of an image to `side` pixels, if it is above; else return it as is."""
    height, width = rgb.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return rgb
    return resize_image(rgb, (max(1, round(scale * height)), max(1, round(scale * width))))


def _rgb_of(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """Convert strip by strip: a conversion has several copies of its image in memory."""
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // width)
    if height <= rows:
        return np.array(_eight_bit(image))
    rgb = np.empty((height, width, 3), dtype=np.uint8)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        rgb[top : top + rows] = np.asarray(_eight_bit(strip))
    return rgb


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # so that a damaged image is not taken for damaged EXIF
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) not in _ROTATED:
            return image
        return ImageOps.exif_transpose(image)
    except Exception as error:  # Pillow raises what it likes on damaged EXIF
        name = getattr(image, "filename", "") or "image"
        logger.warning("%s: its EXIF data is damaged (%s); read without rotation", name, error)
        return image


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # I;16, I;16B and so on, and I, which 16-bit files may become
        values = np.asarray(image.convert("I"))
        if values.min() < 0 or values.max() > 0xFFFF:
            raise InputError(
                "expected integers of 8 or 16 bits, found values from "
                f"{values.min()} to {values.max()}"
            )
        image = Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode in ("P", "PA", "RGBa", "La"):  # these lose colours or fail on the direct way
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.mode == "F":
        raise InputError("expected 1, 8 or 16 bits a value, found floating point numbers")
    return image.convert("RGB")
