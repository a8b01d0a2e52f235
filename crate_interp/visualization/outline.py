"""The outline of a mask, the same wherever one is drawn: a line in a border that sets it off."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

__all__ = ["BORDER", "OUTLINE", "draw_outline", "mask_outline", "outline_pixels"]

OUTLINE, BORDER = "#FFB000", "black"  # seen on dark and light, with any colour vision
_POINTS = {BORDER: 1.5, OUTLINE: 0.8}  # widths of the lines
_BRIGHT = 60.0  # CIELAB lightness from which on a colour has a black border


def mask_outline(mask: Bool[np.ndarray, "H W"]) -> Float[np.ndarray, "S 2 2"]:
    """Straight lines between the pixels of a mask and all others, the image's border too.

    Returns:
        From and to, each (x, y), in pixels; pixel (row, column) covers x from column to column + 1.
        A line is as long as it can be.
    """
    across = _runs(np.diff(np.pad(mask, ((1, 1), (0, 0))).astype(np.int8), axis=0))
    down = _runs(np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1).T)
    return np.concatenate([across[:, :, ::-1], down]).astype(float)


def draw_outline(axes: Axes, mask: Bool[np.ndarray, "H W"]) -> None:
    """Draw the outline of a mask on axes whose unit is its pixel, with (0, 0) at its corner."""
    lines = list(mask_outline(mask))
    for colour, points in _POINTS.items():
        axes.add_collection(
            LineCollection(lines, colors=colour, linewidths=points, capstyle="projecting")
        )


def outline_pixels(
    rgb: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"], colour: UInt8[np.ndarray, " 3"]
) -> None:
    """Draw the outline of a mask into an image, in a colour and bordered in black or white.

    Args:
        rgb: The image; it is changed.
        mask: Pixels to outline.
        colour: Red, green and blue; the border is whichever of black and white is less like it.
    """
    # Twice the distance to the middle of the first pixel: whole numbers, as `shift` needs.
    corners = (2 * mask_outline(mask) - 1).astype(np.int32)
    thickness = max(1, round(min(rgb.shape[:2]) / 200))
    lab = cv2.cvtColor(colour[None, None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    border = 0 if lab[0, 0, 0] > _BRIGHT else 255
    for each, width in (((border,) * 3, thickness + 2), (colour.tolist(), thickness)):
        cv2.polylines(rgb, list(corners), False, each, width, cv2.LINE_AA, shift=1)


def _runs(edges: Int[np.ndarray, "L n"]) -> Int[np.ndarray, "S 2 2"]:
    """First and one past the last of equal neighbours that are not zero, each (line, place)."""
    padded = np.pad(edges, ((0, 0), (1, 1)))
    changes = np.diff(padded, axis=1) != 0
    starts = np.argwhere(changes[:, :-1] & (edges != 0))
    last = np.argwhere(changes[:, 1:] & (edges != 0))
    return np.stack([starts, last + np.array([0, 1])], axis=1)
