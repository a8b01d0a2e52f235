"""Masks and attention drawn on their image."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib import colormaps
from matplotlib.colors import to_rgba_array

from crate_interp.errors import InputError
from crate_interp.structures import Instances
from crate_interp.visualization.outline import outline_pixels

__all__ = [
    "PALETTE",
    "contrasting_colours",
    "draw_attention",
    "draw_heat",
    "draw_instances",
    "draw_kept",
    "draw_signed",
]

# Okabe and Ito's colours, told apart with any colour vision; black is left out.
_HEX = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#0072B2", "#D55E00")
PALETTE = (255 * to_rgba_array(_HEX)[:, :3]).round().astype(np.uint8)

_ENOUGH = 70.0  # CIELAB units from the image: a colour that is as far stands out
_MOST_PIXELS = 40_000
_STRIP_PIXELS = 2**20  # tinted at once: in float64, an image of 2**26 would take 5 GB
_AROUND = 15  # pixels of such an image that count as around a mask


def draw_instances(
    rgb: UInt8[np.ndarray, "H W 3"],
    instances: Instances,
    opacity: float = 0.5,
    outline: bool = True,
    colours: UInt8[np.ndarray, "M 3"] | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """Tint each mask in a colour of its own, and outline it; the background fades a little.

    Args:
        rgb: The image.
        instances: Masks in the frame of the image, the first drawn last.
        opacity: Share of the colour inside a mask, 0 to 1.
        outline: Draw outlines, in the colour of the mask.
        colours: Colour of each mask; `contrasting_colours` by default.

    Raises:
        InputError: The masks are not of the image's size, or there are not as many colours.
    """
    if instances.masks.shape[1:] != rgb.shape[:2]:
        raise InputError(f"masks of {instances.masks.shape[1:]} on an image of {rgb.shape[:2]}")
    if colours is None:
        colours = contrasting_colours(rgb, instances.masks)
    elif len(colours) != len(instances):
        raise InputError(f"expected {len(instances)} colours, found {len(colours)}")
    drawn = np.empty_like(rgb, order="C")
    rows = max(1, _STRIP_PIXELS // rgb.shape[1])
    for top in range(0, len(rgb), rows):
        strip = slice(top, top + rows)
        drawn[strip] = _tinted(rgb[strip], instances.masks[:, strip], colours, opacity)
    order = range(len(instances) - 1, -1, -1)
    for number in order if outline else ():
        outline_pixels(drawn, instances.masks[number], colours[number])
    return drawn


def _tinted(
    rgb: UInt8[np.ndarray, "H W 3"],
    masks: Bool[np.ndarray, "M H W"],
    colours: UInt8[np.ndarray, "M 3"],
    opacity: float,
) -> UInt8[np.ndarray, "H W 3"]:
    grey = rgb.mean(axis=2, keepdims=True)
    canvas = 0.75 * rgb + 0.25 * (0.5 * grey + 127.5)
    for mask, colour in zip(masks[::-1], colours[::-1], strict=True):
        canvas[mask] = (1 - opacity) * rgb[mask] + opacity * colour.astype(np.float64)
    return np.asarray(canvas.round().clip(0, 255).astype(np.uint8))


def contrasting_colours(
    rgb: UInt8[np.ndarray, "H W 3"], masks: Bool[np.ndarray, "M H W"]
) -> UInt8[np.ndarray, "M 3"]:
    """Choose the colour of each mask that is least like the image there, none twice in a row.

    Likeness is the distance in CIELAB to the pixels in and around the mask, on average. Of colours
    that are far enough the first of the palette is taken, so that most images have the same ones.
    The first mask chooses first; after seven masks all colours are free again.
    """
    # Averages need no more pixels than these, and large images have millions.
    step = max(1, round((rgb.shape[0] * rgb.shape[1] / _MOST_PIXELS) ** 0.5))
    image = _to_lab(rgb[::step, ::step])
    palette = _to_lab(PALETTE[None])[0]
    chosen: list[int] = []
    for mask in masks:
        around = cv2.dilate(mask[::step, ::step].astype(np.uint8), np.ones((_AROUND, _AROUND)))
        under = image[around > 0]
        distances = np.full(len(PALETTE), np.inf)
        if len(under):
            distances = np.linalg.norm(palette[:, None] - under[None], axis=2).mean(axis=1)
        free = [n for n in range(len(PALETTE)) if n not in chosen[len(chosen) // 7 * 7 :]]
        most = min(distances[free].max(), _ENOUGH)
        chosen.append(next(number for number in free if distances[number] >= most))
    return np.asarray(PALETTE[chosen])


def _to_lab(rgb: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W 3"]:
    floats = np.ascontiguousarray(rgb, dtype=np.float32) / 255
    return np.asarray(cv2.cvtColor(floats, cv2.COLOR_RGB2LAB))


def draw_heat(attention: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Colour a map: black is 0, over purple and orange to light yellow, its 99th percentile.

    Raises:
        InputError: A value is negative or not finite.
    """
    return _to_uint8(colormaps["inferno"](_to_unit(attention))[..., :3])


def draw_attention(
    rgb: UInt8[np.ndarray, "H W 3"], attention: Float[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "H W 3"]:
    """Lay the colours of `draw_heat` over a darkened grey image; where attention is 0 it shows.

    Raises:
        InputError: The map is not of the image's size, or has a value that is negative or not
            finite.
    """
    if attention.shape != rgb.shape[:2]:
        raise InputError(f"a map of {attention.shape} on an image of {rgb.shape[:2]}")
    unit = _to_unit(attention)[..., None]
    grey = _to_grey(rgb)
    heat = colormaps["inferno"](0.3 + 0.7 * unit[..., 0])[..., :3]
    opacity = 0.9 * unit**0.7
    return _to_uint8((1 - opacity) * 0.75 * grey + opacity * heat)


def draw_kept(
    rgb: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "H W 3"]:
    """Show an image inside a mask; outside it fades to a pale grey.

    Raises:
        InputError: The mask is not of the image's size.
    """
    if mask.shape != rgb.shape[:2]:
        raise InputError(f"a mask of {mask.shape} on an image of {rgb.shape[:2]}")
    pale = 0.15 * _to_grey(rgb) + 0.85
    return np.where(mask[..., None], rgb, _to_uint8(pale))


def draw_signed(values: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Colour a map: purple above 0, orange below, white at 0; deepest from its 99.5th percentile.

    The percentile is that of the magnitudes.
    """
    largest = float(np.percentile(np.abs(values), 99.5)) or 1.0
    return _to_uint8(colormaps["PuOr"](0.5 + 0.5 * (values / largest).clip(-1, 1))[..., :3])


def _to_unit(attention: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    if not (np.isfinite(attention) & (attention >= 0)).all():
        raise InputError("attention: expected finite numbers of at least 0")
    if not attention.any():
        return np.zeros_like(attention)
    # A few patches may hold most of the attention; beside them all others would be black.
    top = np.quantile(attention, 0.99) or attention.max()
    return np.asarray(np.minimum(attention / top, 1))


def _to_grey(rgb: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W 1"]:
    """Mean of the colours, in [0, 1]; `mean` takes far longer along so short an axis."""
    total = rgb[..., :1].astype(np.float64) + rgb[..., 1:2] + rgb[..., 2:]
    return np.asarray(total / (3 * 255))


def _to_uint8(rgb: Float[np.ndarray, "H W c"]) -> UInt8[np.ndarray, "H W c"]:
    scaled = 255 * rgb
    return np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled).astype(np.uint8)
