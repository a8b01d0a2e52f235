"""Reads a recipe from its YAML file, and says what is wrong with it."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

import jsonargparse
import yaml

from crate_interp.errors import InputError
from crate_interp.training.recipe import Recipe, Stage

__all__ = ["read_recipe"]


class _EachKeyOnce(yaml.SafeLoader):
    """YAML whose mappings may not name a key twice; yaml itself would take the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make a dictionary of a mapping.

        Raises:
            ConstructorError: A key occurs twice.
        """
        names = [key.value for key, _ in node.value]
        for number, (key, _) in enumerate(node.value):
            if key.value in names[:number]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} occurs twice", key.start_mark
                )
        return super().construct_mapping(node, deep)


def read_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe from a YAML file.

    Args:
        path: The file.
        changes: `key=value` texts that replace keys of the file; the value is YAML.

    Raises:
        InputError: There is no such file, it is no mapping, a key is unknown (the nearest is
            offered) or missing, or a value is of the wrong type or out of range.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_EachKeyOnce)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a mapping of keys, found {type(content).__name__}")
    for change in changes:
        key, separator, value = change.partition("=")
        if not separator:
            raise InputError(f"--set {change}: expected key=value")
        try:
            content[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set {change}: the value is not YAML: {error}") from error
    try:
        return _recipe_of(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _recipe_of(content: dict[Any, Any]) -> Recipe:
    _refuse_unknown(content, Recipe)
    if "model" not in content:
        raise InputError("no key 'model': a recipe names its model")
    stages = content.get("stages")
    for number, stage in enumerate(stages if isinstance(stages, list) else [], start=1):
        try:
            _refuse_unknown(stage, Stage)
        except InputError as error:
            raise InputError(f"stage {number}: {error}") from error
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    hints = get_type_hints(Recipe)
    for name in content:
        parser.add_argument(f"--{name}", type=hints[name])
    try:
        parsed = parser.parse_object({str(key): value for key, value in content.items()})
        values = parser.instantiate(parsed)
    except jsonargparse.ArgumentError as error:
        raise InputError(" ".join(str(error).split())) from error
    return Recipe(**{name: values[name] for name in content})


def _refuse_unknown(content: Any, settings: type[Recipe] | type[Stage]) -> None:
    if not isinstance(content, dict):
        raise InputError(f"expected a mapping of keys, found {content!r}")
    names = [option.name for option in dataclasses.fields(settings)]
    for key in content:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1, cutoff=0.5)
            offer = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"unknown key {key!r}{offer}")
