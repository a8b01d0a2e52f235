"""Looking inside a model, and changing it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from crate_interp.config.options import (
    ObserveConfig,
)
from crate_interp.options import option
from crate_interp.options.ranges import (
    Index,
    Range,
)

__all__ = [
    "AtlasConfig",
]

Few = Annotated[int, Range(1, 1000)]  # atoms or patches that are drawn or kept


@dataclass(frozen=True, kw_only=True)
class AtlasConfig(ObserveConfig):
    """Catalogue the atoms of a block: how often each fires, where most, and for which classes.

    Of a folder of class folders, and of the built-in scenes, the classes are known.
    """

    one_grid: ClassVar[str] = "an atlas adds up where atoms fire on one grid"

    output: Path = option("folder of the atlas: index.html, atlas.npz, sheet.png, thumbnails/")
    block: Index = option("block to read, from 0; negative counts from the last", -1)
    strongest: Few = option("patches to keep of each atom, each of another image", 10)
    sheet: list[Index] | None = option(
        "atoms of the sheet (default: twelve, the most selective of each class; without classes, "
        "from rare to frequent)",
        None,
        several=int,
    )
