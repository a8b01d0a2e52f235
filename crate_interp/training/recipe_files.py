"""Reads a recipe from its YAML file, and says what is wrong with it."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from crate_interp.errors import InputError, shorten
from crate_interp.files import checked_as, is_file, parse_yaml, read_yaml
from crate_interp.training.objectives import find_objective
from crate_interp.training.recipe import Recipe
from crate_interp.training.recipe_checks import check_scenes
from crate_interp.training.sources import Source
from crate_interp.training.stages import Stage

__all__ = ["read_recipe"]

# Keys of a recipe that are lists of parts with keys of their own: the word for a part, its type,
# and the keys that it must have, with what they say.
_PARTS: dict[str, tuple[str, type[Source] | type[Stage], dict[str, str]]] = {
    "stages": ("stage", Stage, {"share": "a stage has one of the run's updates"}),
    "data": (
        "data: source",
        Source,
        {"name": "a source has one of its own", "data": "a source says where its images are"},
    ),
}


def read_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe from a YAML file.

    Args:
        path: The file.
        changes: `key=value` texts that replace keys of the file; the value is YAML.

    Raises:
        InputError: There is no such file, it is no mapping, a key is unknown (the nearest is
            offered) or missing, a value is of the wrong type or out of range, or there is no list
            of pictures to exclude.
    """
    content = _mapping_of(read_yaml(path), str(path))
    changed: dict[str, Any] = {}
    for change in changes:
        key, separator, value = change.partition("=")
        if not separator:
            raise InputError(f"--set {shorten(change)}: expected key=value")
        changed[key.strip()] = parse_yaml(value, f"--set {shorten(change)}")
    values = _values_of(Recipe, changed, "--set ")
    unchanged = {key: value for key, value in content.items() if key not in changed}
    values |= _values_of(Recipe, unchanged, f"{path}: ")
    if "model" not in values:
        raise InputError(f"{path}: no key 'model': a recipe names its model")
    if values.get("exclude") is not None:
        values["exclude"] = _find_exclusions(values["exclude"], path)
    try:
        recipe = Recipe(**values)
        check_scenes(recipe)
        find_objective(recipe)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return recipe


def _values_of(
    settings: type[Recipe] | type[Source] | type[Stage], content: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """Give the values of a mapping the types of a recipe's keys, or of those of a part of it."""
    names = [option.name for option in dataclasses.fields(settings)]
    hints = get_type_hints(settings)
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in names:
            near = difflib.get_close_matches(key[:100], names, n=1, cutoff=0.5)
            offer = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"{source}unknown key {shorten(key)}{offer}")
        if settings is Recipe and key in _PARTS and isinstance(value, list):
            word, kind, required = _PARTS[key]
            values[key] = tuple(
                _part_of(kind, required, part, f"{source}{word} {number}")
                for number, part in enumerate(value, start=1)
            )
        else:
            values[key] = checked_as(value, hints[key], f"{source}{key}")
    return values


def _part_of(
    kind: type[Source] | type[Stage], required: Mapping[str, str], content: Any, source: str
) -> Source | Stage:
    values = _values_of(kind, _mapping_of(content, source), f"{source}: ")
    for key, meaning in required.items():
        if key not in values:
            raise InputError(f"{source}: no key {key!r}: {meaning}")
    return kind(**values)


def _find_exclusions(name: str, recipe: Path) -> str:
    """Find the list of a recipe's pictures to exclude: at its path, or beside the recipe."""
    places = (Path(name), recipe.parent / name)
    for place in places:
        if is_file(place):
            return str(place)
    raise InputError(f"{recipe}: exclude: expected a file {places[0]} or {places[1]}, found none")


def _mapping_of(content: Any, source: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise InputError(f"{source}: expected a mapping of keys, found {shorten(content)}")
    return content
