"""Stages of a run: parts of a curriculum that differ in image size, scenes or dropped patches."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crate_interp.errors import InputError
from crate_interp.options.ranges import BelowOne, check_ranges
from crate_interp.training.recipe_ranges import Diameter, Norm, Objects, Pixels

if TYPE_CHECKING:
    from crate_interp.training.recipe import Recipe

__all__ = ["Stage", "recipes_of_stages", "stage_index"]


@dataclass(frozen=True)
class Stage:
    """A part of a curriculum; the keys but for `share` replace those of the recipe, if given.

    Attributes:
        share: Share of the run's updates, relative to the shares of the other stages.
        image_size: Side of the square input, pixels.
        scene_objects: Fewest and most objects in a scene.
        scene_object_size: Smallest and largest diameter of an object, shares of the image.
        patch_drop: Share of the patches that an update leaves out.
    """

    share: Norm
    image_size: Pixels | None = None
    scene_objects: tuple[Objects, Objects] | None = None
    scene_object_size: tuple[Diameter, Diameter] | None = None
    patch_drop: BelowOne | None = None


def recipes_of_stages(recipe: Recipe) -> tuple[Recipe, ...]:
    """Give the recipe of each stage: the whole one with the keys of the stage.

    Raises:
        InputError: A key of a stage is out of range, or does not go with the recipe.
    """
    recipes: list[Recipe] = []
    for number, stage in enumerate(recipe.stages, start=1):
        own = {name: value for name, value in vars(stage).items() if value is not None}
        del own["share"]
        try:
            check_ranges(stage)
            recipes.append(dataclasses.replace(recipe, stages=(), **own))
        except InputError as error:
            raise InputError(f"stage {number}: {error}") from error
    return tuple(recipes)


def stage_index(stages: Sequence[Stage], finished: float) -> int:
    """Give the index of the stage that an update is in.

    Args:
        stages: Stages of the run, one or more.
        finished: Share of the run's updates that come before it.
    """
    ends = list(itertools.accumulate(stage.share for stage in stages))
    return bisect.bisect_right(ends[:-1], finished * ends[-1])
