"""The atlas as one HTML page, which needs nothing but its thumbnails beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import matplotlib as mpl
import numpy as np
from jaxtyping import Float

from crate_interp.errors import InputError
from crate_interp.structures import ImageGeometry
from crate_interp.visualization.atlas import CONTEXT_PATCHES, CONTEXT_SHARE
from crate_interp.visualization.markup import fill_template

__all__ = ["AtomCard", "Thumbnail", "atlas_page", "fill_page", "short_number"]

_MAP_SIDE = 16  # at most, of a mean map on the page


@dataclass(frozen=True)
class Thumbnail:
    """A small copy of an image.

    Attributes:
        number: Number that patches name it by.
        name: Name for the reader.
        file: Path from the page's folder, with forward slashes.
        hw: Height and width of the copy, pixels.
    """

    number: int
    name: str
    file: str
    hw: tuple[int, int]


@dataclass(frozen=True, eq=False)
class AtomCard:
    """Entry of the page for one atom.

    Attributes:
        atom: Number of the atom.
        frequency: Share of all patches that it fires on.
        images: Number of images that it fires in.
        mean: Mean value where it fires.
        selectivity: Selectivity index, in [0, 1].
        best_class: Index of the class it goes with; -1 for none.
        mean_map: Mean value over the patch grid.
        patches: Number of the image, of the patch (row by row), and value, strongest first.
    """

    atom: int
    frequency: float
    images: int
    mean: float
    selectivity: float
    best_class: int
    mean_map: Float[np.ndarray, "h w"]
    patches: Sequence[tuple[int, int, float]]


def atlas_page(
    title: str,
    about: str,
    cards: Sequence[AtomCard],
    thumbnails: Sequence[Thumbnail],
    classes: Sequence[str],
    geometry: ImageGeometry,
    num_images: int,
) -> str:
    """Write the page: atoms to sort and search, each with its strongest patches in context.

    A thumbnail is one file, loaded when an atom that shows it comes into view.

    Args:
        title: Heading of the page.
        about: Paragraph below the heading.
        cards: The atoms.
        thumbnails: Thumbnail of every image that a card names.
        classes: Names of the classes, empty if classes are not known.
        geometry: Geometry of any image, which says where patches lie.
        num_images: Number of images of the atlas.

    Returns:
        HTML that asks for nothing outside its folder.

    Raises:
        InputError: No atom.
    """
    if not cards:
        raise InputError("expected one atom or more on the page, found none")
    strides = geometry.stride_hw or geometry.patch_hw
    rows, columns = geometry.grid_hw
    map_hw = (min(rows, _MAP_SIDE), min(columns, _MAP_SIDE))
    palette = mpl.colormaps["cividis"](np.linspace(0, 1, 256), bytes=True)[:, :3]
    data = {
        "about": about,
        "seen": num_images,
        "words": {
            "parts": "patches",
            "wholes": "images",
            "selectivity": "class selectivity",
            "search": "number, class or image",
        },
        "grid": (rows, columns),
        "patch": {
            name: [length / side for length, side in zip(hw, geometry.input_hw, strict=True)]
            for name, hw in (("step", strides), ("size", geometry.patch_hw))
        },
        "context": {"patches": CONTEXT_PATCHES, "share": CONTEXT_SHARE},
        "least": min(5, num_images),  # images from which on an atom's statistics mean anything
        "classes": list(classes),
        "pictures": [(item.number, item.name, item.file, *item.hw[::-1]) for item in thumbnails],
        "map": map_hw,
        "colours": palette.tolist(),
        "atoms": [_entry(card, map_hw) for card in cards],
    }
    return fill_page(title, data)


def fill_page(title: str, data: Mapping[str, object]) -> str:
    """Put the data of an atlas into the page that draws it.

    Args:
        title: Heading of the page.
        data: What the script of the page reads, as JSON has it.
    """
    # A class named "</script>" must not end the script.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return fill_template("atlas_page.html", title, DATA=text)


def _entry(card: AtomCard, map_hw: tuple[int, int]) -> dict[str, object]:
    small = cv2.resize(
        np.asarray(card.mean_map, np.float32), map_hw[::-1], interpolation=cv2.INTER_AREA
    )
    levels = np.rint(255 * small / max(float(small.max()), 1e-30)).astype(np.uint8)
    return {
        "atom": card.atom,
        "frequency": short_number(card.frequency),
        "images": card.images,
        "mean": short_number(card.mean),
        "selectivity": short_number(card.selectivity),
        "class": card.best_class,
        "map": levels.tobytes().hex(),
        "patches": [(image, patch, short_number(value)) for image, patch, value in card.patches],
    }


def short_number(value: float) -> float:
    """Round a number to three digits, which a page needs no more of."""
    return float(f"{value:.3g}")
