"""Masks drawn on their picture."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

from crate_interp.errors import InputError
from crate_interp.structures import Instances

__all__ = ["PALETTE", "draw_instances"]

# Okabe and Ito's colours, told apart with any colour vision; black is left out.
PALETTE = np.array(
    [
        (230, 159, 0),
        (86, 180, 233),
        (0, 158, 115),
        (240, 228, 66),
        (204, 121, 167),
        (0, 114, 178),
        (213, 94, 0),
    ],
    dtype=np.uint8,
)


def draw_instances(
    rgb: UInt8[np.ndarray, "H W 3"],
    instances: Instances,
    opacity: float = 0.5,
    outline: bool = True,
) -> UInt8[np.ndarray, "H W 3"]:
    """Tint each mask in a colour of its own, and outline it; the background fades a little.

    Args:
        rgb: The picture.
        instances: Masks in the frame of the picture, the first drawn last.
        opacity: Share of the colour inside a mask, 0 to 1.
        outline: Draw outlines; a mask of scattered patches is nothing but outline.

    Raises:
        InputError: The masks are not of the picture's size.
    """
    if instances.masks.shape[1:] != rgb.shape[:2]:
        raise InputError(f"masks of {instances.masks.shape[1:]} on a picture of {rgb.shape[:2]}")
    grey = rgb.mean(axis=2, keepdims=True)
    canvas = 0.75 * rgb + 0.25 * (0.5 * grey + 127.5)
    thickness = max(1, round(min(rgb.shape[:2]) / 200))
    order = range(len(instances) - 1, -1, -1)
    for number in order:
        mask = instances.masks[number]
        colour = PALETTE[number % len(PALETTE)].astype(np.float64)
        canvas[mask] = (1 - opacity) * rgb[mask] + opacity * colour
    drawn = np.ascontiguousarray(canvas.round().clip(0, 255).astype(np.uint8))
    for number in order if outline else ():
        outlines, _ = cv2.findContours(
            instances.masks[number].astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
        )
        colour = tuple(int(value) for value in PALETTE[number % len(PALETTE)])
        cv2.drawContours(drawn, outlines, -1, (255, 255, 255), thickness + 2, cv2.LINE_AA)
        cv2.drawContours(drawn, outlines, -1, colour, thickness, cv2.LINE_AA)
    return drawn
