"""The built-in scenes: seeded, procedurally drawn images of textured objects with exact masks.

A category is a shape and a texture together; colour, angle, size and place are random. Everything
is computed in float64, where the last-digit differences between machines are some 1e-13 of a grey
level, so that the pixels are the same everywhere.

Shapes: H W pixels, M masks, B batch.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8
from numpy.random import Generator
from PIL import Image

from crate_interp.data.rle import encode_masks
from crate_interp.data.scene_categories import CATEGORIES
from crate_interp.errors import InputError
from crate_interp.structures import boxes_of_masks

__all__ = ["Scene", "draw_scene", "training_batch", "write_scenes"]

Field = Float[np.ndarray, "H W"]

MIN_VISIBLE_SHARE = 0.55  # of an object's area, after all occlusion
PICTURE_SIZES_HW = ((240, 320), (240, 320), (240, 320), (320, 240), (256, 256), (270, 360))


@dataclass(frozen=True, eq=False)
class Scene:
    """A drawn image and its objects.

    Attributes:
        image: The image, RGB in [0, 255].
        masks: The visible part of each object; no two overlap.
        labels: Index into `CATEGORIES` of each object.
    """

    image: UInt8[np.ndarray, "H W 3"]
    masks: Bool[np.ndarray, "M H W"]
    labels: Int64[np.ndarray, " M"]

    @property
    def labels_by_size(self) -> list[int]:
        """The label of each object, that of the largest visible part first."""
        order = np.argsort(-self.masks.sum(axis=(1, 2)), kind="stable")
        return [int(label) for label in self.labels[order]]


def draw_scene(
    rng: Generator,
    size_hw: tuple[int, int] = (240, 320),
    object_count: tuple[int, int] = (1, 4),
    object_size: tuple[float, float] = (0.28, 0.62),
) -> Scene:
    """Draw objects in soft light, some partly behind others, on a textured background.

    Args:
        rng: Source of every choice.
        size_hw: Height and width, pixels, at least 16.
        object_count: Fewest and most objects. An object that finds no place where it leaves the
            others visible is left out, but the first.
        object_size: Smallest and largest diameter, shares of the shorter side.

    Returns:
        The image, the masks of the visible parts, and the labels, in the order of drawing.

    Raises:
        InputError: A size or a range that no scene can have.
    """
    if min(size_hw) < 16:
        raise InputError(f"size_hw: expected at least 16 pixels a side, found {size_hw}")
    if not 1 <= object_count[0] <= object_count[1]:
        raise InputError(f"object_count: expected 1 <= fewest <= most, found {object_count}")
    if not 8 / min(size_hw) <= object_size[0] <= object_size[1] <= 1:
        raise InputError(
            f"object_size: expected shares of {min(size_hw)} pixels, ascending, at least 8 pixels "
            f"and at most 1, found {object_size}"
        )
    hue, light_angle = rng.random(), np.pi * (1.15 + 0.3 * rng.random())
    canvas = _background(rng, size_hw, hue)
    masks: list[np.ndarray] = []
    labels: list[int] = []
    areas: list[float] = []
    count = object_count[0] + int(rng.random() * (1 + object_count[1] - object_count[0]))
    for _ in range(6 * count):
        if len(masks) == count:
            break
        placed = _place(rng, size_hw, object_size)
        covered = np.zeros(size_hw, dtype=bool)
        covered[placed.window] = placed.distance > 0
        remaining = [mask & ~covered for mask in masks]
        shares = (mask.sum() / area for mask, area in zip(remaining, areas, strict=True))
        if min(shares, default=1) < MIN_VISIBLE_SHARE:
            continue
        _paint(rng, canvas, placed, hue, light_angle)
        masks = [*remaining, covered]
        labels.append(placed.label)
        areas.append(covered.sum())
    image = np.rint(255 * np.clip(canvas, 0, 1)).astype(np.uint8)
    return Scene(image, np.array(masks), np.array(labels, dtype=np.int64))


def training_batch(
    rng: Generator,
    batch_size: int,
    size: int,
    object_count: tuple[int, int] = (1, 4),
    object_size: tuple[float, float] = (0.35, 0.75),
) -> tuple[UInt8[np.ndarray, "B size size 3"], Int64[np.ndarray, " B"]]:
    """Draw square images for a classifier, each labelled by its largest visible object.

    Args:
        rng: Source of every choice.
        batch_size: Number of images, at least 1.
        size: Height and width, pixels.
        object_count: Fewest and most objects per image.
        object_size: Smallest and largest diameter, shares of `size`.

    Raises:
        InputError: `batch_size` is not positive, or as `draw_scene`.
    """
    if batch_size < 1:
        raise InputError(f"batch_size: expected at least 1, found {batch_size}")
    scenes = [draw_scene(rng, (size, size), object_count, object_size) for _ in range(batch_size)]
    labels = [scene.labels_by_size[0] for scene in scenes]
    return np.stack([scene.image for scene in scenes]), np.array(labels)


def write_scenes(folder: Path, count: int = 64, seed: int = 0) -> None:
    """Write the scenes as a COCO-format set: `demo/` and `annotations/instances_demo.json`.

    The folder appears at once when all of it is written. If it already holds the same set,
    nothing is done; another set of scenes is replaced.

    Args:
        folder: Folder of the set; its parent is made if missing.
        count: Number of images, at least 1.
        seed: The image of a given seed and number is always the same, whatever `count`.

    Raises:
        InputError: `count` is not positive, `seed` is negative, or `folder` holds something else.
    """
    if count < 1:
        raise InputError(f"count: expected at least 1 image, found {count}")
    if seed < 0:
        raise InputError(f"seed: expected a number of at least 0, found {seed}")
    folder = Path(folder)
    about = "Built-in scenes of crate_interp, procedurally drawn"
    description = {"description": about, "version": "3", "count": count, "seed": seed}
    if folder.exists():
        existing = _read_description(folder)
        if existing == description:
            return
        if existing is None:
            raise InputError(f"{folder}: exists, and is not a set of scenes; name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        fresh = Path(scratch) / "scenes"
        _write_set(fresh, description, count, seed)
        if folder.exists():
            folder.rename(Path(scratch) / "replaced")
        fresh.rename(folder)


def _read_description(folder: Path) -> dict[str, Any] | None:
    """The `info` entry of a set of scenes, or `None` if the folder is no such set."""
    annotation_file = folder / "annotations" / "instances_demo.json"
    if not annotation_file.is_file():
        return None
    try:
        info: dict[str, Any] = json.loads(annotation_file.read_text())["info"]
        return info if "scenes" in info["description"] else None
    except (KeyError, TypeError, ValueError):
        return None


def _write_set(folder: Path, description: dict[str, Any], count: int, seed: int) -> None:
    """Draw every image, and write it and the annotations into a folder that does not exist."""
    (folder / "demo").mkdir(parents=True)
    (folder / "annotations").mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id in range(1, count + 1):
        rng = np.random.default_rng([seed, image_id])
        size_hw = PICTURE_SIZES_HW[int(rng.random() * len(PICTURE_SIZES_HW))]
        scene, file_name = draw_scene(rng, size_hw), f"{image_id:06d}.png"
        Image.fromarray(scene.image).save(folder / "demo" / file_name, compress_level=2)
        height, width = size_hw
        images.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
        parts = scene.masks, scene.labels, boxes_of_masks(scene.masks), encode_masks(scene.masks)
        for mask, label, (x1, y1, x2, y2), rle in zip(*parts, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(label) + 1,
                    "segmentation": rle,
                    "area": int(mask.sum()),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "iscrowd": 0,
                }
            )
    categories = [
        {"id": number, "name": category.name, "supercategory": "object"}
        for number, category in enumerate(CATEGORIES, start=1)
    ]
    record = {"info": description, "images": images, "annotations": annotations}
    text = json.dumps({**record, "categories": categories})
    (folder / "annotations" / "instances_demo.json").write_text(text)


@dataclass(frozen=True, eq=False)
class _Placed:
    """An object's coordinates at every pixel of the window around it and its shadow."""

    label: int
    radius: float  # pixels
    window: tuple[slice, ...]
    offset_yx: tuple[Float[np.ndarray, "H 1"], Float[np.ndarray, "1 W"]]  # from the centre, pixels
    turn: float  # radians
    variation: float

    @cached_property
    def distance(self) -> Field:
        """Pixels to the edge, positive inside."""
        return self.radius * CATEGORIES[self.label].distance(*self.local(), self.variation)

    def local(self, shift_yx: tuple[float, float] = (0, 0)) -> tuple[Field, Field]:
        """Coordinates (u, v) of the object moved by `shift_yx` pixels."""
        y, x = (offset - shift for offset, shift in zip(self.offset_yx, shift_yx, strict=True))
        cos, sin = np.cos(self.turn) / self.radius, np.sin(self.turn) / self.radius
        return cos * x + sin * y, cos * y - sin * x


def _place(rng: Generator, size_hw: tuple[int, int], object_size: tuple[float, float]) -> _Placed:
    """Choose category, size, place and angle; at most 0.3 of the radius is off the image."""
    label = int(rng.random() * len(CATEGORIES))
    smallest, largest = (share * min(size_hw) / 2 for share in object_size)
    radius = smallest * (largest / smallest) ** rng.random()
    margin = 0.7 * radius
    y, x = (
        np.arange(size) + 0.5 - (margin + (size - 2 * margin) * rng.random()) for size in size_hw
    )
    spans = [np.flatnonzero(np.abs(offset) < 1.5 * radius) for offset in (y, x)]
    window = tuple(slice(span[0], span[-1] + 1) for span in spans)
    offset_yx = (y[window[0], None], x[None, window[1]])
    turn, variation = 2 * np.pi * rng.random(), rng.random()
    return _Placed(label, radius, window, offset_yx, turn, variation)


def _paint(
    rng: Generator, canvas: Float[np.ndarray, "H W 3"], placed: _Placed, hue: float, light: float
) -> None:
    """Draw an object and its shadow over the canvas, with antialiased edges."""
    category, radius, canvas = CATEGORIES[placed.label], placed.radius, canvas[placed.window]
    light_yx = np.sin(light), np.cos(light)

    u, v = placed.local((-0.1 * radius * light_yx[0], -0.1 * radius * light_yx[1]))
    shadow = np.clip(0.5 + category.distance(u, v, placed.variation) / 0.24, 0, 1)
    canvas *= 1 - 0.4 * (shadow * shadow * (3 - 2 * shadow))[..., None]

    u, v = placed.local()
    turn = 2 * np.pi * rng.random()
    across, along = np.cos(turn) * u + np.sin(turn) * v, np.cos(turn) * v - np.sin(turn) * u
    cycles = category.cycles * (0.85 + 0.3 * rng.random())
    texture = category.texture(across, along, np.pi * cycles)
    own_hue, chroma = _palette_hue(rng, hue), 0.07 + 0.09 * rng.random()
    dark = _colour(0.36 + 0.14 * rng.random(), chroma, own_hue)
    bright = _colour(0.78 + 0.14 * rng.random(), 0.7 * chroma, own_hue + 0.2 * (rng.random() - 0.5))
    if rng.random() < 0.5:
        dark, bright = bright, dark
    surface = dark + texture[..., None] * (bright - dark)

    y, x = (offset / radius for offset in placed.offset_yx)
    dome = 0.2 * (light_yx[0] * y + light_yx[1] * x)
    rim = 0.3 * np.exp(-np.maximum(placed.distance, 0) / (0.06 * radius))
    gloss = 0.22 * np.exp(-((y - 0.45 * light_yx[0]) ** 2 + (x - 0.45 * light_yx[1]) ** 2) / 0.1)
    surface = surface * (1 + dome - rim)[..., None] + gloss[..., None]
    opacity = np.clip(placed.distance + 0.5, 0, 1)[..., None]
    canvas += opacity * (surface - canvas)


def _background(rng: Generator, size_hw: tuple[int, int], hue: float) -> np.ndarray:
    """Washes of colours that run into one another, on a coarse paper.

    The washes are as large, light, dark and colourful as the objects, and of the same hues, so that
    colour alone tells no object from them.
    """
    canvas = np.full((*size_hw, 3), 0.5)
    for wash in range(5):
        lightness, chroma = 0.22 + 0.68 * rng.random(), 0.05 + 0.09 * rng.random()
        colour = _colour(lightness, chroma, _palette_hue(rng, hue))
        cover = np.clip(0.5 + 5 * _noise(rng, size_hw, cells=5), 0, 1) if wash else 1.0
        canvas += np.asarray(cover)[..., None] * (colour - canvas)
    paper = sum(
        weight * _noise(rng, size_hw, cells) for cells, weight in ((9, 0.4), (20, 0.35), (48, 0.4))
    )
    y, x = (np.linspace(-1, 1, size) for size in size_hw)
    vignette = 0.06 * ((y * y)[:, None] + x * x)
    canvas *= (1 + (0.2 + 0.4 * rng.random()) * paper - vignette)[..., None]
    return canvas


def _palette_hue(rng: Generator, hue: float) -> float:
    """One of a scene's three families of hues: two neighbours and the one across."""
    return hue + (0.0, 0.16, 0.5)[int(3 * rng.random())] + 0.08 * (rng.random() - 0.5)


def _noise(rng: Generator, size_hw: tuple[int, int], cells: int) -> Field:
    """Cubic B-spline through random numbers: smooth, of mean 0, within (-0.5, 0.5).

    `cells` is the number of knots along the shorter side.
    """
    rows, columns = (
        _spline_weights(size, max(1, round(cells * size / min(size_hw)))) for size in size_hw
    )
    knots = rng.random((rows.shape[1], columns.shape[1])) - 0.5
    return np.asarray(rows @ knots @ columns.T)


@lru_cache(maxsize=64)
def _spline_weights(size: int, cells: int) -> Float[np.ndarray, "size knots"]:
    """Shares that each of `cells + 3` knots adds to each of `size` pixels."""
    position = (np.arange(size) + 0.5) * cells / size
    reach = np.abs(position[:, None] - np.arange(-1, cells + 2))
    outer = np.maximum(2 - reach, 0) ** 3 / 6
    return np.asarray(np.where(reach < 1, 2 / 3 - reach**2 + reach**3 / 2, outer))


def _colour(lightness: float, chroma: float, hue: float) -> Float[np.ndarray, 3]:
    """Convert OKLCH, hue in turns, where equal lightness looks equally light, to sRGB in [0, 1]."""
    a, b = chroma * np.cos(2 * np.pi * hue), chroma * np.sin(2 * np.pi * hue)
    cone = lightness + np.array([0.3963, -0.1056, -0.0895]) * a
    cone = (cone + np.array([0.2158, -0.0639, -1.2915]) * b) ** 3
    to_linear = np.array(
        [[4.0767, -3.3077, 0.2310], [-1.2684, 2.6098, -0.3413], [-0.0042, -0.7034, 1.7076]]
    )
    return np.asarray(np.clip(to_linear @ cone, 0, 1) ** (1 / 2.2))
