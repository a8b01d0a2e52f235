"""Figures of attention: heads of an image, heads over images, blocks by heads, and curves.

Shapes: I images, L blocks, K heads, H W pixels of an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from crate_interp.errors import InputError
from crate_interp.visualization.overlay import draw_attention, draw_heat, draw_kept
from crate_interp.visualization.panels import Column, Panel, panel_figure
from crate_interp.visualization.style import Figure, wrapped, write_below

__all__ = ["attention_curves", "head_figure", "layer_figure", "maps_figure"]

HEADS, MEAN, UNIFORM = "#56B4E9", "#0072B2", "0.45"


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
        kept: What a mask is, at the side of its row.
        note: Below the figure.
        query_yx: Where the patch is whose attention this is; it is marked.
        width: Of the page, inches.

    Raises:
        InputError: Not one map and mask for each head, or one of another size; a value that is
            negative or not finite.
    """
    if not maps or len(maps) != len(masks):
        raise InputError(
            f"expected a map and a mask for each head, found {len(maps)} and {len(masks)}"
        )
    columns = [Column("image", [Panel(rgb, None, query_yx), None, None])]
    columns += [
        Column(
            name,
            [
                Panel(draw_heat(attention), point_yx=query_yx),
                Panel(draw_kept(rgb, mask)),
                Panel(rgb, mask, query_yx),
            ],
        )
        for (name, attention), mask in zip(maps.items(), masks, strict=True)
    ]
    return panel_figure(columns, ["attention", kept, "outline"], note, width=width)


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
        pictures: Of any sizes.
        maps: One array an image, in the pixels of its image.
        titles: Of the images.
        names: Of the maps.
        note: Below the figure.
        width: Of the page, inches.

    Raises:
        InputError: No image, not as many maps as names, or one of another size; a value that is
            negative or not finite.
    """
    if not len(pictures) == len(maps) == len(titles) or any(len(m) != len(names) for m in maps):
        raise InputError(
            f"expected {len(names)} maps and a title for each of {len(pictures)} images, found "
            f"{[len(of_image) for of_image in maps]} maps and {len(titles)} titles"
        )
    columns = [
        Column(title, [Panel(rgb), *(Panel(draw_attention(rgb, one)) for one in of_image)])
        for rgb, of_image, title in zip(pictures, maps, titles, strict=True)
    ]
    return panel_figure(columns, ["image", *names], note, width=width)


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
        maps: One array a block, of the shape of the image, at any size.
        names: Of the heads.
        note: Below the figure.
        width: Of the page, inches.

    Raises:
        InputError: No map, or not one of each head in each block; a value that is negative or not
            finite.
    """
    if not maps or any(len(of_block) != len(names) for of_block in maps):
        raise InputError(
            f"expected {len(names)} maps in each block, found {[len(block) for block in maps]}"
        )
    columns = [Column("image", [Panel(rgb), *[None] * (len(maps) - 1)])]
    for head, name in enumerate(names):
        columns.append(Column(name, [Panel(draw_heat(of_block[head])) for of_block in maps]))
    blocks = [f"block {number}" for number in range(len(maps))]
    return panel_figure(columns, blocks, note, row_height=0.5, widest=18, width=width)


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
        entropy: Of attention, nats.
        rollout_entropy: Of the rollout of one token over the patches, nats; the band is a standard
            deviation over images to either side.
        uniform: What the three would be if all patches were attended to alike.
        note: Below the figure.
        width: Of the page, inches; the panels of a narrow one stand below each other.

    Raises:
        InputError: No image, or shapes that do not agree.
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
    width = width or 9.0
    rows, across = (3, 1) if width < 5 else (1, 3)
    height = rows * max(1.9, 0.1 * width * across)
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(rows, across)
    blocks = np.arange(distance.shape[1])
    titles = (
        "mean attention distance (pixels)",
        "entropy of attention (nats)",
        "entropy of the rollout (nats)",
    )
    for axes, title, level in zip(panels, titles, uniform, strict=True):
        axes.set_title("\n".join(wrapped(title, width / across - 0.5, 9)), fontsize=9, loc="left")
        axes.axhline(level, color=UNIFORM, linewidth=1, linestyle=":")
        axes.annotate(
            "uniform", (1, level), (0, 2), xycoords=axes.get_yaxis_transform(),
            textcoords="offset points", fontsize=7, color=UNIFORM, ha="right",
        )  # fmt: skip
    for axes, values in zip(panels, (distance, entropy), strict=False):
        _draw_heads(axes, values.mean(axis=0))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, fontsize=7, frameon=False)
    mean, deviation = rollout_entropy.mean(axis=0), rollout_entropy.std(axis=0)
    panels[2].plot(blocks, mean, color=MEAN, linewidth=1.4, marker="o", markersize=2.5)
    panels[2].fill_between(
        blocks, mean - deviation, mean + deviation, color=HEADS, alpha=0.35, linewidth=0
    )
    for axes in panels:
        axes.set_xlabel("block", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.05 * (high - low))  # for the word above the line
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
    write_below(figure, note)
    return figure


def _draw_heads(axes: Axes, values: Float[np.ndarray, "L K"]) -> None:
    blocks = np.arange(len(values))
    axes.plot(blocks, values.mean(axis=1), color=MEAN, linewidth=1.4, label="mean of heads")
    axes.plot(
        np.repeat(blocks, values.shape[1]), values.ravel(), linestyle="none", marker="o",
        markersize=4, markerfacecolor=HEADS, markeredgecolor="white", markeredgewidth=0.5,
        label="a head",
    )  # fmt: skip
