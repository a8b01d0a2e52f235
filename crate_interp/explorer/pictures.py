"""Pictures of the explorer: those of sets that are fixed at the start, and uploaded ones."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from threading import Lock

import numpy as np
from jaxtyping import UInt8

from crate_interp.data import (
    ImageRecord,
    ImageSet,
    StoredImage,
    open_coco,
    open_images,
    shrunk,
    to_rgb,
)
from crate_interp.data.built_in import BUILT_IN_SETS
from crate_interp.data.image_files import MAX_PIXELS, opened_image
from crate_interp.errors import InputError, shorten
from crate_interp.files import checksum_of

__all__ = ["UPLOADS", "Picture", "Pictures"]

UPLOADS = "uploads"  # name of the set of uploaded pictures
_KEPT_BYTES = 1 << 29  # of pixels: two of the largest pictures, or hundreds of photographs
_LONGEST_NAME = 80
_SHOWN_SIDE = 448  # of a picture on the page, pixels, the longer one


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that is looked at.

    Attributes:
        key: Name in links: `SET/FILE`, or `uploads/CHECKSUM`.
        name: Name of its file, for the user.
        rgb: Pixels in [0, 255], the size that the picture is displayed at.
        checksum: Checksum of the pixels.
    """

    key: str
    name: str
    rgb: UInt8[np.ndarray, "H W 3"]
    checksum: str

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width, pixels."""
        return self.rgb.shape[0], self.rgb.shape[1]

    @cached_property
    def shown(self) -> UInt8[np.ndarray, "H2 W2 3"]:
        """The picture at the size that the page shows."""
        return shrunk(self.rgb, _SHOWN_SIDE)


@dataclass(eq=False)
class Pictures:
    """The pictures that a page can show; no other file can be named.

    Args:
        places: Files, folders and the like, as `open_images` takes them; none for the built-in sets
            alone.

    Raises:
        InputError: There is no image at the places.
    """

    places: Sequence[str] = ()
    _sets: dict[str, ImageSet] = field(init=False, repr=False, default_factory=dict)
    _kept: OrderedDict[str, Picture] = field(init=False, repr=False, default_factory=OrderedDict)
    _uploaded: OrderedDict[str, Picture] = field(
        init=False, repr=False, default_factory=OrderedDict
    )
    _lock: Lock = field(init=False, repr=False, default_factory=Lock)

    def __post_init__(self) -> None:
        if self.places:
            images = open_images(self.places)
            self._sets[_set_name(self.places)] = images

    def sets(self) -> list[str]:
        """Names of the sets, the user's own first."""
        return [*self._own(), *(name for name in sorted(BUILT_IN_SETS, reverse=True))]

    @property
    def first(self) -> str:
        """Key of the picture that a page shows at first."""
        return self.keys(self.sets()[0])[0]

    def keys(self, name: str) -> list[str]:
        """Keys of the pictures of a set, in their order.

        Raises:
            InputError: There is no such set.
        """
        return [f"{name}/{record.file_name}" for record in self._open(name).records]

    def get(self, key: str) -> Picture:
        """Read a picture, or take one that is kept.

        Args:
            key: Its name in links.

        Raises:
            InputError: There is no such picture, it is no longer kept, or cannot be read.
        """
        name, _, file_name = key.partition("/")
        with self._lock:
            kept = self._uploaded if name == UPLOADS else self._kept
            if key in kept:
                kept.move_to_end(key)
                return kept[key]
        if name == UPLOADS:
            raise InputError("this picture was uploaded and is no longer kept: upload it again")
        records = {record.file_name: record for record in self._open(name).records}
        if file_name not in records:
            raise InputError(f"picture: expected one of {name}, found {shorten(file_name)}")
        return self._keep(self._kept, key, file_name, _read(records[file_name]))

    def add(self, content: bytes, name: str) -> Picture:
        """Read an uploaded picture, and keep it as long as there is room.

        Args:
            content: The file.
            name: Its name, which messages have.

        Raises:
            InputError: It is no picture, too large, or damaged.
        """
        name = PurePosixPath(name.replace("\\", "/")).name[-_LONGEST_NAME:] or "picture"
        with opened_image(io.BytesIO(content), name, max_pixels=MAX_PIXELS) as image:
            rgb = to_rgb(image)
        return self._keep(self._uploaded, f"{UPLOADS}/{checksum_of(content)[:24]}", name, rgb)

    def _own(self) -> list[str]:
        return [_set_name(self.places)] if self.places else []

    def _open(self, name: str) -> ImageSet:
        if name not in self.sets():
            raise InputError(
                f"set: expected one of {', '.join(self.sets())}, found {shorten(name)}"
            )
        with self._lock:
            if name not in self._sets:
                self._sets[name] = open_coco(name)
            return self._sets[name]

    def _keep(
        self,
        kept: OrderedDict[str, Picture],
        key: str,
        name: str,
        rgb: UInt8[np.ndarray, "H W 3"],
    ) -> Picture:
        checksum = checksum_of(np.ascontiguousarray(rgb).tobytes() + str(rgb.shape).encode())
        picture = Picture(key, name, rgb, checksum)
        with self._lock:
            kept[key] = picture
            while len(kept) > 1 and _bytes_of(kept) > _KEPT_BYTES:
                kept.popitem(last=False)
        return picture


def _set_name(places: Sequence[str]) -> str:
    """Name of the user's own set: that of its folder, unless it is that of another set."""
    name = Path(places[0]).absolute().name if len(places) == 1 else "pictures"
    name = name.replace("/", "-") or "pictures"
    return f"{name} (folder)" if name in (*BUILT_IN_SETS, UPLOADS) else name


def _read(record: ImageRecord) -> UInt8[np.ndarray, "H W 3"]:
    """Read a picture; messages have its name, not its place."""
    if isinstance(record.path, StoredImage):
        return record.read()
    with opened_image(record.path, record.file_name) as image:
        return to_rgb(image)


def _bytes_of(kept: Mapping[str, Picture]) -> int:
    return sum(picture.rgb.nbytes for picture in kept.values())
