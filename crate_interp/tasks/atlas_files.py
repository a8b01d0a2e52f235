"""The folder of an atlas: its index, and small copies of the pictures that it shows."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from crate_interp.data import read_image
from crate_interp.errors import InputError
from crate_interp.evaluation import Atlas
from crate_interp.structures import ImageGeometry

__all__ = [
    "AtlasSource",
    "StoredAtlas",
    "prepare_atlas_folder",
    "read_atlas",
    "read_thumbnail",
    "thumbnail_file",
    "write_atlas",
    "write_thumbnail",
]

INDEX, THUMBNAILS, FORMAT = "atlas.npz", "thumbnails", 1
THUMBNAIL_SIDE = 384  # pixels, the longer one
_DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class AtlasSource:
    """What an atlas was made of: enough to put another image through the same model.

    Attributes:
        model: As `load_backbone` takes it.
        weights: The weight file given for it, or `random`; `None` for the published one.
        model_args: Sizes that differ from the named model's.
        weights_sha256: Of the weight file; `None` for random weights.
        parameters_sha256: Of the parameters in the model, as `parameters_checksum` computes it.
        block: From 0.
        site: Where the atoms were read.
        geometry: Of any image; its original size is the model's input.
        stride: Pixels between patches, if it was chosen.
        images: Name of the set of images.
        classes: Names; empty if classes are not known.
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


@dataclass(frozen=True)
class StoredAtlas:
    """An atlas as its folder holds it.

    Attributes:
        atlas: The numbers.
        source: What they were made of.
        names: Of the images that the atlas shows, by number.
    """

    atlas: Atlas
    source: AtlasSource
    names: Mapping[int, str]


def prepare_atlas_folder(folder: Path) -> None:
    """Make a folder for an atlas; an atlas that is in it goes.

    Raises:
        InputError: It is a file, or holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder, found a file")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / INDEX).is_file():
        raise InputError(f"{folder}: expected an empty folder or an atlas, found something else")
    (folder / THUMBNAILS).mkdir(parents=True, exist_ok=True)
    for path in (folder / THUMBNAILS).glob("*.jpg"):
        path.unlink()


def write_atlas(folder: Path, stored: StoredAtlas) -> None:
    """Write the index, the same bytes for the same atlas, as a whole or not at all."""
    atlas = stored.atlas
    arrays: dict[str, Any] = {field.name: getattr(atlas, field.name) for field in fields(Atlas)}
    about = {
        "format": FORMAT,
        "source": asdict(stored.source),
        "names": {str(number): name for number, name in stored.names.items()},
    }
    part = folder / f".{INDEX}.part"
    with part.open("wb") as file:
        np.savez_compressed(file, about=np.array(json.dumps(about)), **arrays)
    part.replace(folder / INDEX)


def read_atlas(folder: Path) -> StoredAtlas:
    """Read the index of an atlas.

    Raises:
        InputError: There is none, or it is damaged.
    """
    path = folder / INDEX
    if not path.is_file():
        raise InputError(f"{folder}: expected the folder of an atlas, found no {INDEX} in it")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as index:
            about = json.loads(str(index["about"]))
            if about["format"] != FORMAT:
                raise InputError(f"{path}: expected format {FORMAT}, found {about['format']}")
            arrays = {field.name: index[field.name] for field in fields(Atlas)}
        arrays["num_images"] = int(arrays["num_images"])
        source = about["source"]
        sizes = {name: value and tuple(value) for name, value in source["geometry"].items()}
        source |= {"geometry": ImageGeometry(**sizes), "classes": tuple(source["classes"])}
        names = {int(number): name for number, name in about["names"].items()}
        stored = StoredAtlas(Atlas(**arrays), AtlasSource(**source), names)
        shown = np.unique(stored.atlas.top_images[stored.atlas.top_images >= 0]).tolist()
        if shown != sorted(names) or stored.atlas.grid_hw != stored.source.geometry.grid_hw:
            raise InputError(f"{path}: its parts do not belong together")
    except _DAMAGE as error:
        raise InputError(f"{path}: not an atlas, or damaged: {error}") from error
    return stored


def thumbnail_file(number: int) -> str:
    """Path of the small copy of an image, from the folder of the atlas."""
    return f"{THUMBNAILS}/{number:06d}.jpg"


def write_thumbnail(folder: Path, number: int, rgb: UInt8[np.ndarray, "H W 3"]) -> tuple[int, int]:
    """Write a copy of an image whose longer side is at most 384 pixels.

    Returns:
        Height and width of the copy.
    """
    picture = Image.fromarray(rgb)
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    picture.save(folder / thumbnail_file(number), quality=88)
    return picture.height, picture.width


def read_thumbnail(folder: Path, number: int) -> UInt8[np.ndarray, "H W 3"]:
    """Read what `write_thumbnail` wrote.

    Raises:
        InputError: It is missing or damaged.
    """
    return read_image(folder / thumbnail_file(number))
