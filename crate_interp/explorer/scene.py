"""What a view looks at: a picture, a model at a size, and the patch that was clicked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8
from torch import nn

from crate_interp.explorer.models import ShownModel
from crate_interp.explorer.passes import Passes
from crate_interp.explorer.pictures import Picture
from crate_interp.hooks import Observer, Site
from crate_interp.runs.atlas_files import StoredAtlas, read_atlas, read_thumbnail
from crate_interp.structures import Activations, ImageGeometry

__all__ = ["Scene", "ShownAtlas", "read_shown_atlas"]


@dataclass(frozen=True, eq=False)
class ShownAtlas:
    """An atlas, with its small pictures in memory.

    Attributes:
        name: Name of its folder.
        stored: Content of the folder.
        pictures: Small copies of its images, by number.
    """

    name: str
    stored: StoredAtlas
    pictures: dict[int, UInt8[np.ndarray, "H W 3"]]


def read_shown_atlas(folder: Path) -> ShownAtlas:
    """Read an atlas with its small pictures.

    Raises:
        InputError: It is none, or damaged.
    """
    stored = read_atlas(folder)
    pictures = {number: read_thumbnail(folder, stored, number) for number in stored.thumbnails}
    return ShownAtlas(folder.absolute().name, stored, pictures)


@dataclass(frozen=True, eq=False)
class Scene:
    """What a view looks at.

    Attributes:
        picture: The picture.
        model: The model.
        passes: Forward passes that are kept.
        size: Side of the input, pixels; `None` for the model's own.
        pixel_yx: Pixel of the picture that was clicked; `None` for none.
        atlas: An atlas of some model, if there is one.
        in_float32: Whether the model computes in float32, whatever it does otherwise.
    """

    picture: Picture
    model: ShownModel
    passes: Passes
    size: int | None = None
    pixel_yx: tuple[int, int] | None = None
    atlas: ShownAtlas | None = None
    in_float32: bool = False

    def __post_init__(self) -> None:
        self.geometry.refuse_less_than_a_patch(self.picture.name)
        if self.pixel_yx is not None:
            self.geometry.patch_at(*self.pixel_yx)  # refuses what lies outside

    @cached_property
    def observer(self) -> Observer:
        """The model at the size."""
        observer = self.model.at(self.size)
        return replace(observer, precision="float32") if self.in_float32 else observer

    @property
    def backbone(self) -> nn.Module:
        """The model itself."""
        return self.observer.model

    @property
    def geometry(self) -> ImageGeometry:
        """Frames of the picture."""
        return self.observer.geometry(self.picture.hw)

    @property
    def patch(self) -> tuple[int, int] | None:
        """Row and column of the patch that was clicked."""
        return None if self.pixel_yx is None else self.geometry.patch_at(*self.pixel_yx)

    @property
    def pixel(self) -> str | None:
        """The pixel that was clicked, as a command takes it; `None` for none."""
        return None if self.pixel_yx is None else "{},{}".format(*self.pixel_yx)

    @property
    def shown(self) -> UInt8[np.ndarray, "H W 3"]:
        """The picture at the size that the page shows."""
        return self.picture.shown

    @property
    def shown_geometry(self) -> ImageGeometry:
        """Frames of the picture as it is shown."""
        return self.observer.geometry((self.shown.shape[0], self.shown.shape[1]))

    def on_shown(self, maps: Shaped[np.ndarray, "M h w"]) -> Shaped[np.ndarray, "M H W"]:
        """Bring maps or masks from the patch grid to the picture as it is shown."""
        brought: Shaped[np.ndarray, "M H W"] = self.shown_geometry.grid_to_original(maps)
        return brought

    def precise(self) -> Scene:
        """The same in float32, as the commands have it that take differences of scores."""
        return replace(self, in_float32=True)

    def block(self, number: int) -> int:
        """Number of a block from 0; one that lies beyond the last stands for the last.

        So a slider for several models can be left where it is.
        """
        depth = self.model.depth
        return number % depth if number < 0 else min(number, depth - 1)

    def activations(self, sites: Sequence[Site | str], blocks: Sequence[int]) -> Activations:
        """Give activations of the picture, kept ones where there are any."""
        return self.passes.activations(self.picture, self.model.name, self.observer, sites, blocks)

    def all_blocks(self, *sites: Site | str) -> Activations:
        """Give activations of all blocks."""
        return self.activations(sites, range(self.model.depth))
