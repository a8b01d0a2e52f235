"""What a recipe is refused for, beyond the types and ranges of its keys."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from crate_interp.errors import InputError, shorten
from crate_interp.options.ranges import check_ranges
from crate_interp.training.sources import check_sources

if TYPE_CHECKING:
    from crate_interp.training.recipe import Recipe

__all__ = ["check_recipe", "check_scenes"]

# What timm's augmentation is called; the numbers of its operations are bounded by their digits.
_SPREAD = r"mstd\d{1,3}(\.\d{1,4})?"
_AUGMENTATION = re.compile(
    rf"(original|originalr|v0|v0r|3a)(-{_SPREAD})*"
    rf"|rand(-(m\d\d?|n\d\d?|p(0(\.\d{{1,4}})?|1(\.0)?)|{_SPREAD}|mmax[1-9]\d?|inc[01]|t3a|tweights))*"
    rf"|augmix(-(m\d\d?|w[1-9]|d\d?|a[1-9]\d?|b[01]|{_SPREAD}))*"
)
# Arguments of a model that are keys of their own.
_OF_THE_RECIPE = {
    "num_classes": "num_classes",
    "drop_path_rate": "drop_path",
    "patch_drop_rate": "patch_drop",
    "img_size": "image_size",
}


def check_recipe(recipe: Recipe) -> None:
    """Refuse a recipe whose keys contradict one another, or that has a wrong stage.

    Raises:
        InputError: The key and what was expected of it.
    """
    check_ranges(recipe)
    if (recipe.epochs is None) == (recipe.steps is None):
        raise InputError("the length of a run: give either epochs or steps")
    if recipe.warmup_epochs is not None and recipe.warmup_steps is not None:
        raise InputError("the warm-up: give either warmup_epochs or warmup_steps")
    if recipe.data == "scenes" and (recipe.epochs is not None or recipe.warmup_epochs is not None):
        raise InputError("scenes are endless: give steps and warmup_steps, not epochs")
    if recipe.batch_size % recipe.accumulation:
        raise InputError(
            f"batch_size: expected a multiple of accumulation, {recipe.accumulation}, "
            f"found {recipe.batch_size}"
        )
    if recipe.auto_augment is not None and not _AUGMENTATION.fullmatch(recipe.auto_augment):
        raise InputError(
            "auto_augment: expected a text of timm's such as rand-m9-n2, augmix-m5-w3 or "
            f"original, found {shorten(recipe.auto_augment)}"
        )
    for name, key in _OF_THE_RECIPE.items():
        if name in recipe.model_args:
            raise InputError(f"model_args: expected sizes, found {name}: give the key {key}")
    ordered = ["scene_objects", "scene_object_size", "crop_area"]
    if not isinstance(recipe.probe_pictures, int):
        ordered.append("probe_pictures")
    for name in ordered:
        least, most = getattr(recipe, name) or (0, 0)
        if least > most:
            raise InputError(f"{name}: expected the smaller number first, found {least}, {most}")
    for name in ("probe_size", "probe_block"):
        several = getattr(recipe, name)
        if isinstance(several, tuple) and not 0 < len(several) == len(set(several)):
            raise InputError(f"{name}: expected one or more, each once, found {list(several)}")
    if recipe.keep_best is not None and not recipe.probe_every:
        raise InputError(
            f"keep_best: {shorten(recipe.keep_best)} is a number of the probes: give probe_every"
        )
    for option in dataclasses.fields(recipe):
        task, value = option.metadata.get("task", recipe.task), getattr(recipe, option.name)
        if recipe.task not in task.split(" or ") and value != option.default:
            raise InputError(
                f"{option.name}: is for the task {task}; expected it left out of one of "
                f"{recipe.task}, found {shorten(value)}"
            )
    check_sources(recipe)
    recipe.staged  # noqa: B018  (refuses a wrong stage)


def check_scenes(recipe: Recipe) -> None:
    """Refuse sizes of scenes that cannot be drawn, of the run and of each stage.

    Raises:
        InputError: The data are scenes, and an image or an object of them is too small.
    """
    for number, part in enumerate((recipe, *recipe.staged) if recipe.data == "scenes" else ()):
        where = f"stage {number}: " if number else ""
        if part.image_size < 16:
            raise InputError(
                f"{where}image_size: expected at least 16 of scenes, found {part.image_size}"
            )
        smallest, largest = part.scene_object_size
        if not 8 / part.image_size <= smallest <= largest <= 1:
            raise InputError(
                f"{where}scene_object_size: expected shares of image_size, at least 8 pixels "
                f"of its {part.image_size} and at most 1, found {smallest}, {largest}"
            )
