"""Looking inside a model, and changing it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from crate_interp.config.options import (
    ObserveConfig,
)
from crate_interp.errors import InputError
from crate_interp.options import option
from crate_interp.options.ranges import (
    Index,
    Natural,
    Range,
)

__all__ = [
    "AblateConfig",
    "AtlasConfig",
    "AttributeConfig",
]

Few = Annotated[int, Range(1, 1000)]  # atoms or patches that are drawn or kept
Points = Annotated[int, Range(1, 10_000)]


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


@dataclass(frozen=True, kw_only=True)
class AblateConfig(ObserveConfig):
    """Silence heads or atoms, one at a time, and rank them by what changes."""

    output: Path = option("folder: figure, ranking (CSV), numbers of each image (npz)")
    target: Literal["heads", "atoms"] = option(
        "what to silence; atoms are sparse codes, for ViTs the neurons of the MLP", "heads"
    )
    block: Index | Literal["all"] = option("from 0; negative counts from the last", "all")
    effect: Literal["logit", "mask"] = option(
        "what may change: the score of a class, or the mask of MaskCut's first object (1 - IoU)",
        "logit",
    )
    class_: Index | None = option("number of the class (default: the predicted one)", None)
    measured: Natural = option(
        "atoms to silence: so many of the largest first-order estimate (--effect logit) or of the "
        "largest written energy (--effect mask), mean over the images; 0: all",
        100,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.class_ is not None and self.effect == "mask":
            raise InputError("--class goes with --effect logit; a mask has no class")


@dataclass(frozen=True, kw_only=True)
class AttributeConfig(ObserveConfig):
    """Draw what speaks for a class: attention, relevance of attention, integrated gradients."""

    one_grid: ClassVar[str] = "the arrays of all images have one shape"

    output: Path = option("the figure, NAME.png; an npz goes with it")
    class_: Index | None = option("number of the class (default: the predicted one)", None)
    steps: Points = option("points on the path of integrated gradients", 50)
