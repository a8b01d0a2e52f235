"""Figures of attention: what one is, and the table of all of them.

A figure is one file of `crate_interp/commands/attention_figures/`, or of an installed package: a
frozen dataclass whose fields are its options on the command line.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from crate_interp import analysis, hooks, visualization
from crate_interp.plugins import Table
from crate_interp.runs.command import Reading
from crate_interp.runs.outputs import Conclusion, Drawing

if TYPE_CHECKING:
    from jaxtyping import Float, Shaped
    from torch import Tensor

    from crate_interp.runs.journal import Entry
    from crate_interp.runs.run import Run, SeenImage
    from crate_interp.structures import Activations

__all__ = [
    "ALL",
    "COLOURS",
    "FIGURES",
    "FIRST",
    "AttendedImage",
    "AttentionFigure",
    "AttentionReading",
    "draw_across",
    "note_of",
    "on_picture",
]

ALL = sys.maxsize  # images
FIRST = 12  # images across a figure
COLOURS = "colours from 0 to the 99th percentile of each map"


class AttentionFigure(ABC):
    """A figure of attention: what it measures of an image, and what it draws of all.

    Attributes:
        summary: Description for `--help`.
        every_block: Whether it reads all blocks, and not only the one of `--block`.
        pictures: Number of images, from the first on, whose picture it shows.
        numbers: Names of arrays of `measure` that go into the file of numbers of an image.
        files: Names of its files that are of all images together.
    """

    summary: ClassVar[str]
    every_block: ClassVar[bool] = False
    pictures: ClassVar[int] = ALL
    numbers: ClassVar[Sequence[str]] = ()
    files: ClassVar[Sequence[str]] = ()

    def check(self, images: int, blocks: int, heads: int) -> None:
        """Refuse options that do not fit the images or the model.

        Args:
            images: Number of images.
            blocks: Number of blocks of the model.
            heads: Number of heads of a block.

        Raises:
            InputError: They do not fit.
        """
        del images, blocks, heads

    def measure(self, image: AttendedImage) -> Mapping[str, Any]:
        """Measure one image, beside the maps and masks that are kept for every figure.

        Returns:
            Arrays, which `conclude` finds in the entry of the image.
        """
        del image
        return {}

    @abstractmethod
    def conclude(self, run: Run) -> Conclusion:
        """Draw the figure, of `run.entries`.

        Arrays of an entry are `maps` (M, h, w) and `masks` (M, h, w) at the block of `--block`,
        for the heads of `--head`; what `measure` returned; and `picture` (480, W, 3) of the first
        images, which are `run.pictured`.
        """


FIGURES: Table[AttentionFigure] = Table(
    "crate_interp.commands.attention_figures", "attention_figures", AttentionFigure, "figure"
)


@dataclass
class AttentionReading(Reading):
    """Sites read of every image, and the names that figures give them.

    Attributes:
        figures: Figures to draw.
        block: Number of the block that maps are of, from 0.
        pixel_yx: Pixel of the patch whose attention is read; `None` for the class token.
        head: Head that maps are of, from 0; `mean` of the heads, or `all`.
        stems: Names of the files of each image, by its id.
    """

    figures: Sequence[AttentionFigure] = field(kw_only=True)
    block: int = field(kw_only=True)
    pixel_yx: tuple[int, int] | None = field(kw_only=True)
    head: str | int = field(kw_only=True)
    stems: Mapping[int, str] = field(kw_only=True)

    def head_names(self, count: int) -> list[str]:
        """Names of maps.

        Args:
            count: Number of maps.
        """
        if self.head == "all":
            return [f"head {number}" for number in range(count)]
        return ["mean of heads"] if self.head == "mean" else [f"head {self.head}"]


class AttendedImage:
    """The attention of one token of an image; each quantity is computed when it is asked for.

    Args:
        activations: Queries and keys, a batch of one.
        image: The image.
        reading: Token, block and heads that are read.

    Raises:
        InputError: The pixel lies outside the image.
    """

    def __init__(
        self, activations: Activations, image: SeenImage, reading: AttentionReading
    ) -> None:
        yx = reading.pixel_yx
        self.activations = activations
        self.block = reading.block
        self._geometry, self._head = image.geometry, reading.head
        self._patch = None if yx is None else image.geometry.patch_at(*yx)

    def maps(self, block: int) -> Float[Tensor, "K h w"]:
        """Attention to the patches by each head of a block."""
        maps: Tensor = hooks.attention_map(self.activations, block, self._patch)[0]
        return maps

    def maps_of_heads(self, block: int) -> Float[np.ndarray, "M h w"]:
        """The same, for the heads of `--head`."""
        maps: np.ndarray = self.maps(block).cpu().numpy()
        if self._head == "all":
            return maps
        if self._head == "mean":
            return np.asarray(maps.mean(axis=0, keepdims=True))
        return maps[[int(self._head)]]

    @cached_property
    def statistics(self) -> dict[str, Float[np.ndarray, ...]]:
        """Statistics of the attention of all blocks.

        `distance` (L, K) in input pixels and `entropy` (L, K) in nats, `rollout` (L, h, w) onto the
        patches through blocks 0 to each, and `rollout_entropy` (L,) of its shares, in nats.
        """
        import torch

        geometry = self._geometry
        spacing_hw = geometry.stride_hw or geometry.patch_hw
        measured = analysis.attention_statistics(self.activations, spacing_hw, self._patch)
        rows, columns = geometry.grid_hw
        on_patches = measured.rollout[0, :, -rows * columns :].cpu().double()
        shares = on_patches / on_patches.sum(dim=1, keepdim=True)
        return {
            "rollout": on_patches.unflatten(1, (rows, columns)).numpy(),
            "distance": measured.distance[0].cpu().numpy(),
            "entropy": measured.entropy[0].cpu().numpy(),
            "rollout_entropy": torch.special.entr(shares).sum(dim=1).numpy(),
        }


def on_picture(
    run: Run, entry: Entry, maps: Shaped[np.ndarray, "M h w"], height: int | None = None
) -> Shaped[np.ndarray, "M H W"]:
    """Bring maps from the patch grid to the pixels of an image's picture.

    Args:
        run: The run.
        entry: Entry of the image.
        maps: Maps on the patch grid.
        height: Height of the result, pixels, if it is not that of the picture.
    """
    rows, columns = entry["picture"].shape[:2]
    shown_hw = (rows, columns) if height is None else (height, max(1, height * columns // rows))
    brought: np.ndarray = run.observer.geometry(shown_hw).grid_to_original(maps)
    return brought


def note_of(run: Run, *parts: str) -> str:
    """Words below a figure: model and token, then the parts, then the size of the input."""
    settings = run.settings
    patch = settings["patch"]
    token = "the class token" if patch is None else f"the patch at {patch} (y,x)"
    size = f"{run.observer.size} px"
    stride = [] if settings["stride"] is None else [f"stride {settings['stride']}"]
    noise = [f"noise of deviation {settings['noise']:g}"] if settings["noise"] else []
    return " · ".join((settings["model"], f"attention of {token}", *parts, size, *stride, *noise))


def draw_across(
    run: Run,
    name: str,
    maps: Sequence[Float[np.ndarray, "M h w"]],
    names: Sequence[str],
    *notes: str,
) -> Drawing:
    """Draw the first images across, and their maps down.

    Args:
        run: The run.
        name: Name of the file.
        maps: Maps of each image.
        names: Name of each row.
        *notes: Parts of the words below.
    """
    entries = run.pictured[:FIRST]
    shown = [
        on_picture(run, entry, of_image) for entry, of_image in zip(entries, maps, strict=True)
    ]
    pictures = [entry["picture"] for entry in entries]
    titles = [run.reading.stems[entry["image_id"]] for entry in entries]
    all_images = len(run.images)
    count = f"the first {len(shown)} of {all_images} images"
    note = note_of(run, *notes, *([count] if len(shown) < all_images else []), COLOURS)
    width = run.command.width_inches
    return Drawing(name, visualization.maps_figure(pictures, shown, titles, names, note, width))
