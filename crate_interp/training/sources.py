"""Sources of a recipe: places that its images come from, each with splits and names of classes."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crate_interp.errors import InputError, shorten
from crate_interp.options.ranges import BelowOne, check_ranges

if TYPE_CHECKING:
    from crate_interp.training.recipe import Recipe

__all__ = ["Source", "check_sources", "describe_data", "describe_source", "sources_of"]

_NAME = re.compile(r"\w[\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Source:
    """A place that images come from; the last four keys replace those of the recipe, if given.

    Attributes:
        name: Name of the source, without slashes. `NAME/PATH` is what `held_out` and `exclude` of
            the recipe call a picture, PATH being that below `data`. A tar file counts as the
            folder that was packed; a picture of shards is called `SHARD/OFFSET`, one of a named
            data set `SPLIT/NUMBER`.
        data: One of what `data` of a recipe can be, but for scenes.
        classes: Names that classes of the source (its folders) have in the recipe; `null` leaves
            a class out, and those that are not named here keep their names. Classes that have one
            name, in one source or in several, are one class.
        data_args: More arguments of what reads the data.
        train_split: Part to train on; `train+val` joins two.
        validation_split: Part to measure on.
        held_out: Share of the pictures to train on that are measured on instead; 0 for none.
    """

    name: str
    data: str
    classes: dict[str, str | None] = field(default_factory=dict)
    data_args: dict[str, Any] | None = None
    train_split: str | None = None
    validation_split: str | None = None
    held_out: BelowOne | None = None


def sources_of(recipe: Recipe) -> tuple[Source, ...]:
    """Give the sources of a recipe, with the keys of the recipe where they have none of their own.

    Each has `validation_split`, or `held_out`, or neither.
    """
    sources = recipe.data
    if isinstance(sources, str):
        sources = (Source(Path(sources).name.removesuffix(".tar") or "data", sources),)
    return tuple(_complete(source, recipe) for source in sources)


def _complete(source: Source, recipe: Recipe) -> Source:
    held_out, validation_split = source.held_out, source.validation_split
    if held_out is None and validation_split is None:
        held_out = recipe.held_out
        validation_split = recipe.validation_split if held_out is None else None
    return dataclasses.replace(
        source,
        data_args=recipe.data_args if source.data_args is None else source.data_args,
        train_split=source.train_split or recipe.train_split,
        validation_split=validation_split,
        held_out=held_out,
    )


def describe_data(recipe: Recipe) -> str:
    """Name the data of a recipe in a message."""
    if isinstance(recipe.data, str):
        return f"data {recipe.data}"
    return f"data {', '.join(source.name for source in recipe.data)}"


def describe_source(source: Source, recipe: Recipe) -> str:
    """Name a source of a recipe in a message."""
    if isinstance(recipe.data, str):
        return describe_data(recipe)
    return f"source {source.name}: data {source.data}"


def check_sources(recipe: Recipe) -> None:
    """Refuse sources that contradict one another, the recipe or themselves.

    Raises:
        InputError: The source, its key and what was expected.
    """
    if recipe.held_out is not None and recipe.validation_split != "validation":
        raise InputError(
            "held_out: holds out pictures to train on for validation; expected no "
            f"validation_split beside it, found {shorten(recipe.validation_split)}"
        )
    if isinstance(recipe.data, str):
        return
    if not recipe.data:
        raise InputError("data: expected one source or more, found an empty list")
    names = [source.name for source in recipe.data]
    for number, source in enumerate(recipe.data, start=1):
        where = f"data: source {number}: "
        if not _NAME.fullmatch(source.name):
            raise InputError(
                f"{where}name: expected letters, digits, '_', '.' and '-', found "
                f"{shorten(source.name)}"
            )
        if names.count(source.name) > 1:
            raise InputError(f"{where}name: expected one of its own, found {source.name} twice")
        try:
            check_ranges(source)
        except InputError as error:
            raise InputError(f"{where}{error}") from error
        if source.data == "scenes":
            raise InputError(f"{where}data: scenes have no pictures: expected other data")
        if source.held_out is not None and source.validation_split is not None:
            raise InputError(f"{where}give either held_out or validation_split")
        for name, meaning in source.classes.items():
            if meaning is not None and not meaning.strip():
                raise InputError(
                    f"{where}classes: {shorten(name)}: expected a name, or null to leave it out, "
                    f"found {shorten(meaning)}"
                )
