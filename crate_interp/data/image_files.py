"""Opening image files: which formats are read, how large an image may be, how failures are worded.

Pillow knows formats for which it starts other programs (EPS: Ghostscript), so it is always given a
list. Nothing else in the package opens an image with Pillow.
"""

from __future__ import annotations

import functools
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging import getLogger
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError, features

from crate_interp.data.stored import StoredImage
from crate_interp.errors import InputError

__all__ = [
    "HEIF_HINT",
    "HEIF_SUFFIXES",
    "MAX_PIXELS",
    "ImageReadError",
    "image_formats",
    "image_suffixes",
    "only_image_formats",
    "opened_image",
]

_logger = getLogger(__name__)

MAX_PIXELS = 2**26
"""Largest image, pixels: 8192 x 8192. A process that reads it needs 0.8 GB for it, at most."""

HEIF_SUFFIXES = (".heic", ".heif")
HEIF_HINT = "install pillow-heif"

_SUFFIXES = {
    "JPEG": (".jpeg", ".jpg"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".pbm", ".pgm", ".pnm", ".ppm"),
    "JPEG2000": (".jp2",),
    "AVIF": (".avif",),
    "HEIF": HEIF_SUFFIXES,
}
_LIBRARIES = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}  # which Pillow may lack


class ImageReadError(InputError):
    """An image that cannot be read; the message names it and the reason."""


@functools.cache
def image_formats() -> tuple[str, ...]:
    """Name the formats that are read here, as Pillow does: AVIF and HEIF where they can be."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        pass
    else:
        register_heif_opener()
    Image.init()
    return tuple(
        name
        for name in _SUFFIXES
        if name in Image.OPEN and (name not in _LIBRARIES or features.check(_LIBRARIES[name]))
    )


def image_suffixes() -> frozenset[str]:
    """Suffixes, in small letters, of the files that a folder of images is searched for."""
    return _suffixes_of(image_formats())


@functools.cache
def _suffixes_of(formats: tuple[str, ...]) -> frozenset[str]:
    return frozenset(suffix for name in formats for suffix in _SUFFIXES[name])


@contextmanager
def opened_image(
    source: Path | StoredImage | BinaryIO,
    name: str | None = None,
    formats: tuple[str, ...] = (),
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Image.Image]:
    """Open an image, not decoded yet; what its decoder raises in the `with` block is worded alike.

    Args:
        source: The file, its place behind a URL or in a tar file, or a stream of its content.
        name: Name of the image, for messages (default: the path).
        formats: Pillow's names of the formats to take (default: `image_formats`).
        max_pixels: Size of the largest image to take; Pillow's own limit holds where it is lower.

    Raises:
        ImageReadError: There is no such file, it is of no such format, too large, or damaged.
    """
    prefix = f"{source if name is None else name}: " if name != "" else ""
    try:
        if isinstance(source, Path):
            _check_file(source)
        content = source.read() if isinstance(source, StoredImage) else source
        with (
            _warnings_as_log(prefix),
            Image.open(content, formats=formats or image_formats()) as image,
        ):
            limit = min(max_pixels, Image.MAX_IMAGE_PIXELS or max_pixels)
            if image.width * image.height > limit:
                raise InputError(
                    f"cannot be read: {image.width} x {image.height} pixels are more than "
                    f"the limit of {limit}"
                )
            yield image
    except UnidentifiedImageError as error:
        is_heif = isinstance(source, Path) and source.suffix.lower() in HEIF_SUFFIXES
        hint = f" ({HEIF_HINT})" if is_heif and "HEIF" not in image_formats() else ""
        raise ImageReadError(
            f"{prefix}cannot be read: not an image, or of unknown kind; "
            f"known are {', '.join(formats or image_formats())}{hint}"
        ) from error
    except InputError as error:
        raise ImageReadError(f"{prefix}{error}") from error
    except Exception as error:  # decoders raise what they like on damaged files
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ImageReadError(
            f"{prefix}cannot be read: {str(reason) or type(error).__name__}"
        ) from error


@contextmanager
def only_image_formats() -> Iterator[None]:
    """Keep Pillow to `image_formats` while other libraries open images by it."""
    formats, before = image_formats(), list(Image.ID)
    Image.ID[:] = formats
    try:
        yield
    finally:
        Image.ID[:] = before


def _check_file(path: Path) -> None:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device or a pipe"
        raise InputError(f"cannot be read: expected an image file, found {kind}")
    if not status.st_size:
        raise InputError("cannot be read: the file is empty")


@contextmanager
def _warnings_as_log(prefix: str) -> Iterator[None]:
    """Log what Pillow warns of with the name of the image; of its size, an error tells."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        _logger.warning("%s%s", prefix, " ".join(message.split()))
