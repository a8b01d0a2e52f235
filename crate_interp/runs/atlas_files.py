"""The folder of an atlas: its index, and small copies of the images that it shows.

A new atlas is made beside the one that is there, and takes its place file by file, the index first.
Thumbnails have names by their content, so that those of both atlases are there until the last file
is changed: whenever the process is killed, the index and its thumbnails are one whole atlas.
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from crate_interp.analysis import Atlas
from crate_interp.data import ImageRecord, read_image
from crate_interp.errors import InputError, shorten
from crate_interp.files import checksum_of, parse_json_as, read_arrays
from crate_interp.runs.number_files import naming, text_in, write_arrays
from crate_interp.runs.run_folder import hold_folder
from crate_interp.structures import ImageGeometry
from crate_interp.visualization import Thumbnail

__all__ = [
    "INDEX",
    "AtlasSource",
    "StoredAtlas",
    "check_atlas_folder",
    "new_atlas",
    "read_atlas",
    "read_thumbnail",
    "write_atlas",
    "write_thumbnail",
]

INDEX, THUMBNAILS, FORMAT = "atlas.npz", "thumbnails", 1
THUMBNAIL_SIDE = 384  # pixels, the longer one
_THUMBNAIL = re.compile(r"\d{6,19}(-[0-9a-f]{16})?\.jpg")  # without the checksum: of old atlases
_NEW = ".new"
_MOST_BYTES = 1 << 31  # of an index; one of 4096 neurons on 200 x 200 patches has 0.7 GB


@dataclass(frozen=True)
class AtlasSource:
    """Model, block and images of an atlas: enough to put another image through the same model.

    Attributes:
        model: Name of the model, as `load_backbone` takes it.
        weights: The weight file given for it, or `random`; `None` for the published one.
        model_args: Sizes that differ from the named model's.
        weights_sha256: Checksum of the weight file; `None` for random weights.
        parameters_sha256: Checksum of the model's parameters, as `parameters_checksum` computes it.
        block: Number of the block, from 0.
        site: Site that the atoms were read at.
        geometry: Geometry of the patches of any image; its original size is the model's input.
        stride: Pixels between patches, if it was chosen.
        images: Name of the set of images.
        classes: Names of the classes; empty if they are not known.
        mean: Means of RGB in [0, 1], if they were chosen.
        std: Standard deviations of RGB in [0, 1], if they were chosen.
    """

    model: str
    weights: str | None
    model_args: Mapping[str, Any]
    weights_sha256: str | None
    parameters_sha256: str
    block: int
    site: str
    geometry: ImageGeometry
    stride: int | None
    images: str
    classes: tuple[str, ...]
    mean: list[float] | None = None
    std: list[float] | None = None


@dataclass(frozen=True)
class StoredAtlas:
    """An atlas as its folder holds it.

    Attributes:
        atlas: Numbers of the atlas.
        source: Model, block and images that they were made of.
        names: Names of the images that the atlas shows, by number.
        thumbnails: Names of the files of their small copies, by number.
    """

    atlas: Atlas
    source: AtlasSource
    names: Mapping[int, str]
    thumbnails: Mapping[int, str]


def check_atlas_folder(folder: Path) -> None:
    """Refuse a folder that an atlas cannot be written to.

    Raises:
        InputError: It is a file, or holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder, found a file")
    if folder.is_dir() and not (folder / INDEX).is_file() and not _was_begun(folder):
        raise InputError(f"{folder}: expected an empty folder or an atlas, found something else")


@contextmanager
def new_atlas(folder: Path) -> Iterator[Path]:
    """Make a place for an atlas; without an error, what is in it takes the place of the old one.

    Args:
        folder: Folder of the atlas; made if missing.

    Yields:
        An empty folder with one for thumbnails in it.

    Raises:
        InputError: `folder` is a file, or holds something else; another process is at it, or it
            cannot be written.
    """
    check_atlas_folder(folder)
    with hold_folder(folder):
        new = folder / _NEW
        shutil.rmtree(new, ignore_errors=True)  # of a process that was killed
        (new / THUMBNAILS).mkdir(parents=True)
        try:
            yield new
            _take_its_place(folder, new)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def _was_begun(folder: Path) -> bool:
    """Whether a folder is empty, or what a process left that was killed before the index."""
    if any(path.name != THUMBNAILS and path.name[0] != "." for path in folder.iterdir()):
        return False
    thumbnails = folder / THUMBNAILS
    copies = thumbnails.iterdir() if thumbnails.is_dir() else ()
    return all(_THUMBNAIL.fullmatch(path.name) for path in copies)


def _take_its_place(folder: Path, new: Path) -> None:
    thumbnails = [path.name for path in (new / THUMBNAILS).iterdir()]
    if thumbnails:  # the atlas of a text model has none
        (folder / THUMBNAILS).mkdir(exist_ok=True)
    for name in thumbnails:
        (new / THUMBNAILS / name).replace(folder / THUMBNAILS / name)
    files = [path.name for path in new.iterdir() if path.is_file()]
    for name in sorted(files, key=lambda name: name != INDEX):
        (new / name).replace(folder / name)
    for path in (folder / THUMBNAILS).glob("*.jpg"):
        if path.name not in thumbnails:
            path.unlink()


def write_atlas(folder: Path, stored: StoredAtlas, provenance: Mapping[str, Any]) -> None:
    """Write the index, the same bytes for the same atlas, as a whole or not at all.

    Args:
        folder: Folder of the atlas.
        stored: The atlas.
        provenance: Weights, settings and versions.

    Raises:
        InputError: It cannot be written.
    """
    atlas = stored.atlas
    arrays: dict[str, Any] = {field.name: getattr(atlas, field.name) for field in fields(Atlas)}
    about = {
        "format": FORMAT,
        "source": asdict(stored.source),
        "names": {str(number): name for number, name in stored.names.items()},
        "thumbnails": {str(number): name for number, name in stored.thumbnails.items()},
        **provenance,
    }
    write_arrays(folder / INDEX, arrays, about)


def read_atlas(folder: Path) -> StoredAtlas:
    """Read the index of an atlas.

    Raises:
        InputError: There is none, or it is damaged.
    """
    path = folder / INDEX
    if not path.is_file():
        raise InputError(f"{folder}: expected the folder of an atlas, found no {INDEX} in it")
    try:
        arrays = read_arrays(path, _MOST_BYTES, ["about", *_DIMENSIONS])
        about = _about_in(arrays.pop("about"), str(path))
        stored = _stored_of(_atlas_of(arrays), about, str(path))
    except InputError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise InputError(f"{path}: not an atlas, or damaged: {reason}") from error
    return stored


class _Format(msgspec.Struct):
    format: Any


class _About(msgspec.Struct):
    """Texts of the index, beside its numbers.

    Attributes:
        source: Model, block and images of the atlas.
        names: Names of images, by number.
        thumbnails: Names of files, by number; `None` in an atlas of an earlier version.
    """

    source: AtlasSource
    names: dict[int, str]
    thumbnails: dict[int, str] | None = None


# Type and number of dimensions of each array.
_DIMENSIONS = {
    "num_images": ("int64", 0),
    "fired_patches": ("int64", 1),
    "fired_images": ("int64", 1),
    "mean_map": ("float32", 3),
    "top_values": ("float32", 2),
    "top_images": ("int64", 2),
    "top_patches": ("int64", 2),
    "class_means": ("float32", 2),
}


def _about_in(array: Shaped[np.ndarray, ...], source: str) -> _About:
    text = text_in(array, f"{source}: about")
    version = parse_json_as(text, _Format, source).format
    if version != FORMAT:
        raise InputError(f"{source}: expected format {FORMAT}, found {shorten(version)}")
    return parse_json_as(text, _About, source)


def _atlas_of(arrays: Mapping[str, Shaped[np.ndarray, ...]]) -> Atlas:
    for name, (dtype, dimensions) in _DIMENSIONS.items():
        array = arrays[name]
        if array.dtype != dtype or array.ndim != dimensions:
            raise InputError(
                f"{name}: expected {dtype} of {dimensions} dimensions, found {array.dtype} of "
                f"shape {array.shape}"
            )
    atlas = Atlas(**{**arrays, "num_images": int(arrays["num_images"])})  # type: ignore[arg-type]
    images, (rows, columns) = atlas.num_images, atlas.grid_hw
    largest = {
        "fired_patches": images * rows * columns,
        "fired_images": images,
        "top_patches": rows * columns - 1,
    }
    for name, array in arrays.items():
        lowest = -1 if name in ("top_images", "top_patches") else int(name == "num_images")
        highest = largest.get(name, np.inf)
        # A class without a patch has a mean of NaN.
        known = array[~np.isnan(array)] if name == "class_means" else array
        inside = (known >= lowest) & (known <= highest) & np.isfinite(known)
        if not inside.all():
            raise InputError(
                f"{name}: expected numbers from {lowest} to {highest}, found {known[~inside][0]}"
            )
    if not atlas.mean_map.size or ((atlas.top_images < 0) != (atlas.top_patches < 0)).any():
        raise InputError("its parts do not belong together")
    return atlas


def _stored_of(atlas: Atlas, about: _About, path: str) -> StoredAtlas:
    source, names, thumbnails = about.source, about.names, about.thumbnails
    shown = np.unique(atlas.top_images[atlas.top_images >= 0]).tolist()
    if thumbnails is None:
        thumbnails = {number: f"{number:06d}.jpg" for number in shown}
    for name in thumbnails.values():
        if not _THUMBNAIL.fullmatch(name):
            raise InputError(f"{path}: thumbnails: expected names of files, found {shorten(name)}")
    if (
        not shown == sorted(names) == sorted(thumbnails)
        or atlas.grid_hw != source.geometry.grid_hw
        or len(atlas.class_means) != len(source.classes)
    ):
        raise InputError(f"{path}: its parts do not belong together")
    return StoredAtlas(atlas, source, names, thumbnails)


def write_thumbnail(folder: Path, record: ImageRecord) -> Thumbnail:
    """Write a copy of an image whose longer side is at most 384 pixels.

    Args:
        folder: Folder of the atlas.
        record: The image, which is read.

    Raises:
        InputError: The image cannot be read, or the copy not be written.
    """
    picture = Image.fromarray(record.read())
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=88)
    name = f"{record.image_id:06d}-{checksum_of(content.getvalue())[:16]}.jpg"
    path = folder / THUMBNAILS / name
    with naming(path):
        path.write_bytes(content.getvalue())
    hw = picture.height, picture.width
    return Thumbnail(record.image_id, record.file_name, f"{THUMBNAILS}/{name}", hw)


def read_thumbnail(folder: Path, stored: StoredAtlas, number: int) -> UInt8[np.ndarray, "H W 3"]:
    """Read what `write_thumbnail` wrote.

    Raises:
        InputError: It is missing or damaged.
    """
    return read_image(folder / THUMBNAILS / stored.thumbnails[number])
