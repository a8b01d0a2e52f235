"""The table of objectives: each file of this folder is one, under the name of the file.

A recipe names its objective with the key `task`. Such a file defines `OBJECTIVE`, a subclass of
`crate_interp.training.objective.Objective`.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from crate_interp.errors import InputError, shorten
from crate_interp.training.objective import Objective
from crate_interp.training.recipe import Recipe

__all__ = ["OBJECTIVES", "find_objective"]

OBJECTIVES: dict[str, type[Objective]] = {
    name: import_module(f"{__name__}.{name}").OBJECTIVE
    for _, name, _ in pkgutil.iter_modules(__path__)
}


def find_objective(recipe: Recipe) -> type[Objective]:
    """Find the objective of a recipe.

    Raises:
        InputError: There is none of this name.
    """
    if recipe.task not in OBJECTIVES:
        raise InputError(f"task: expected {', '.join(OBJECTIVES)}, found {shorten(recipe.task)}")
    return OBJECTIVES[recipe.task]
