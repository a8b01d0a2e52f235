"""Figures of attention: heads of an image, heads over images, blocks by heads, and curves.

Shapes: I images, L blocks, K heads, H W pixels of an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

from crate_interp.errors import InputError
from crate_interp.visualization.curves import Curve, CurvePanel, draw_curves
from crate_interp.visualization.grid import Grid, Panel
from crate_interp.visualization.overlay import draw_attention, draw_heat, draw_kept
from crate_interp.visualization.style import Figure

__all__ = ["attention_curves", "head_figure", "layer_figure", "maps_figure"]


def head_figure(
    rgb: UInt8[np.ndarray, "H W 3"],
    maps: Mapping[str, Float[np.ndarray, "H W"]],
    masks: Bool[np.ndarray, "K H W"],
    kept: str,
    note: str = "",
    query_yx: tuple[float, float] | None = None,
    width: float | None = None,
) -> Figure:
    """Draw the image, then what each head attends to: map, image inside its mask, and outline.

    Args:
        rgb: The image.
        maps: Attention by the name of the head, in pixels of the image; coloured as by `draw_heat`.
        masks: Thresholded maps.
        kept: Words for what masks keep, at the side of their row.
        note: Words below the figure.
        query_yx: Place of the patch that attends, which is marked.
        width: Width of the page, inches.

    Raises:
        InputError: There is not one map and mask for each head, or one of another size; a value is
            negative or not finite.
    """
    if not maps or len(maps) != len(masks):
        raise InputError(
            f"expected a map and a mask for each head, found {len(maps)} and {len(masks)}"
        )
    rows: list[list[Panel | None]] = [[Panel(rgb, "image", point_yx=query_yx)], [None], [None]]
    for (name, attention), mask in zip(maps.items(), masks, strict=True):
        rows[0].append(Panel(draw_heat(attention), name, point_yx=query_yx))
        rows[1].append(Panel(draw_kept(rgb, mask)))
        rows[2].append(Panel(rgb, mask=mask, point_yx=query_yx))
    return Grid(rows, ["attention", kept, "outline"]).draw(note=note, width=width)


def maps_figure(
    pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    maps: Sequence[Float[np.ndarray, "K _ _"]],
    titles: Sequence[str],
    names: Sequence[str],
    note: str = "",
    width: float | None = None,
) -> Figure:
    """Draw maps over images: images across; the image first, then each map, down.

    Rows may be heads (the papers' figure of head semantics), or blocks (of attention rollout).

    Args:
        pictures: Images of any sizes.
        maps: One array per image, in the pixels of its image.
        titles: Names of the images.
        names: Names of the maps.
        note: Words below the figure.
        width: Width of the page, inches.

    Raises:
        InputError: There is no image, not as many maps as names, or one of another size; a value is
            negative or not finite.
    """
    if not len(pictures) == len(maps) == len(titles) or any(len(m) != len(names) for m in maps):
        raise InputError(
            f"expected {len(names)} maps and a title for each of {len(pictures)} images, found "
            f"{[len(of_image) for of_image in maps]} maps and {len(titles)} titles"
        )
    rows = [[Panel(rgb, title) for rgb, title in zip(pictures, titles, strict=True)]]
    for number in range(len(names)):
        overlays = map(draw_attention, pictures, (of_image[number] for of_image in maps))
        rows.append([Panel(overlay) for overlay in overlays])
    return Grid(rows, ["image", *names]).draw(note=note, width=width)


def layer_figure(
    rgb: UInt8[np.ndarray, "H W 3"],
    maps: Sequence[Float[np.ndarray, "K _ _"]],
    names: Sequence[str],
    note: str = "",
    width: float | None = None,
) -> Figure:
    """Draw all blocks by all heads of one image: blocks down from the first, heads across.

    Args:
        rgb: The image; it stands beside the first block.
        maps: One array per block, in the proportions of the image, at any size.
        names: Names of the heads.
        note: Words below the figure.
        width: Width of the page, inches.

    Raises:
        InputError: There is no map, or not one per head in each block; a value is negative or not
            finite.
    """
    if not maps or any(len(of_block) != len(names) for of_block in maps):
        raise InputError(
            f"expected {len(names)} maps in each block, found {[len(block) for block in maps]}"
        )
    rows: list[list[Panel | None]] = []
    for of_block in maps:
        titles = [""] * len(names) if rows else names
        heats = (Panel(draw_heat(one), title) for one, title in zip(of_block, titles, strict=True))
        rows.append([None if rows else Panel(rgb, "image"), *heats])
    blocks = [f"block {number}" for number in range(len(maps))]
    return Grid(rows, blocks, size=0.5, widest=18).draw(note=note, width=width)


def attention_curves(
    distance: Float[np.ndarray, "I L K"],
    entropy: Float[np.ndarray, "I L K"],
    rollout_entropy: Float[np.ndarray, "I L"],
    uniform: tuple[float, float, float],
    note: str = "",
    width: float | None = None,
) -> Figure:
    """Draw distance, entropy and rollout by block: a dot for each head, a line for their mean.

    Args:
        distance: Mean attention distance, pixels.
        entropy: Entropy of attention, nats.
        rollout_entropy: Entropy of the rollout of one token over the patches, nats; the band is a
            standard deviation over images to either side.
        uniform: Values of the three if all patches were attended to alike.
        note: Words below the figure.
        width: Width of the page, inches; the panels of a narrow one stand below each other.

    Raises:
        InputError: There is no image, or shapes do not agree.
    """
    if (
        distance.shape != entropy.shape
        or distance.shape[:2] != rollout_entropy.shape
        or (distance.ndim != 3 or 0 in distance.shape)
    ):
        raise InputError(
            "expected distance and entropy (I, L, K) and rollout (I, L), found "
            f"{distance.shape}, {entropy.shape} and {rollout_entropy.shape}"
        )
    blocks = np.arange(float(distance.shape[1]))
    values = {
        "mean attention distance (pixels)": distance.mean(axis=0),
        "entropy of attention (nats)": entropy.mean(axis=0),
    }
    curves = [
        [
            Curve("mean of heads", blocks, of_heads.mean(axis=1, keepdims=True)),
            Curve("one head", blocks, of_heads, dots=True),
        ]
        for of_heads in values.values()
    ]
    mean, deviation = rollout_entropy.mean(axis=0), rollout_entropy.std(axis=0)
    name = "mean of images, and their standard deviation"
    curves.append([Curve(name, blocks, mean[:, None], deviation[:, None])])
    titles = [*values, "entropy of the rollout (nats)"]
    panels = [
        CurvePanel(title, of_panel, level=("uniform", level))
        for title, of_panel, level in zip(titles, curves, uniform, strict=True)
    ]
    return draw_curves(panels, "block", note, width)
