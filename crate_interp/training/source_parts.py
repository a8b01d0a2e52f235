"""Parts of sources, opened: readers with the class names that their labels have in the recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from crate_interp.errors import InputError, shorten
from crate_interp.training.readers import Reader, open_reader, parts_of
from crate_interp.training.recipe import Recipe
from crate_interp.training.sources import Source, describe_source, sources_of

__all__ = ["Numbering", "Part", "number_classes", "open_parts"]


@dataclass(frozen=True)
class Part:
    """An opened part of a source.

    Attributes:
        source: The source.
        reader: Reader of its images.
        names: Class names in the recipe by the reader's labels, `None` for a class that is left
            out; empty if the source does not name its classes.
    """

    source: Source
    reader: Reader
    names: Mapping[int, str | None]

    def class_name(self, label: int) -> str | None:
        """Give the class name of a reader's label: the number itself where there are no names."""
        return self.names.get(label) if self.names else str(label)


@dataclass(frozen=True)
class Numbering:
    """Classes of the recipe.

    Attributes:
        classes: Names of the classes.
        numbers: Label of each class by name; `None`: the labels of the only source are used.
    """

    classes: tuple[str, ...]
    numbers: Mapping[str, int] | None

    def extended(self, parts: Sequence[Part]) -> Numbering:
        """Give the same classes, and those that other parts have besides, behind them."""
        others = sorted(_class_names(parts).difference(self.classes))
        if self.numbers is None or not others:
            return self
        classes = (*self.classes, *others)
        first = 1 + max(self.numbers.values(), default=-1)
        more = {name: number for number, name in enumerate(others, start=first)}
        return Numbering(classes, {**self.numbers, **more})


def open_parts(recipe: Recipe) -> tuple[list[Part], list[Part]]:
    """Open all sources of a recipe.

    Returns:
        Parts that are trained on, and those that are for validation alone.

    Raises:
        InputError: A source cannot be opened, is empty, or has no class of a name in `classes`.
    """
    training: list[Part] = []
    validation: list[Part] = []
    for source in sources_of(recipe):
        readers = _open_split(source, recipe, source.train_split or "")
        others = []
        if source.validation_split is not None:
            others = _open_split(source, recipe, source.validation_split)
        _check_mapping(source, recipe, [*readers, *others])
        training += [Part(source, reader, _names_of(source, recipe, reader)) for reader in readers]
        validation += [Part(source, reader, _names_of(source, recipe, reader)) for reader in others]
    return training, validation


def number_classes(
    recipe: Recipe, training: Sequence[Part], validation: Sequence[Part]
) -> Numbering:
    """Number the classes of a recipe, by what is trained on.

    The only source, if it renames no class, keeps its own labels; classes of several are sorted by
    name.

    Args:
        recipe: Recipe, which may give the number of classes where they have no names.
        training: Parts that are trained on.
        validation: Parts for validation.
    """
    first, *others = training
    if len(sources_of(recipe)) == 1 and not first.source.classes:
        names = {label: str(name) for label, name in first.names.items()}
        if all(part.names == first.names for part in (*others, *validation)):
            digits = map(str, range(recipe.num_classes or 0))
            return Numbering(tuple(names.values()) or tuple(digits), None)
        if all(part.names == first.names for part in others):
            return Numbering(tuple(names.values()), {name: n for n, name in names.items()})
    classes = sorted(_class_names(training))
    return Numbering(tuple(classes), {name: number for number, name in enumerate(classes)})


def _open_split(source: Source, recipe: Recipe, split: str) -> list[Reader]:
    parts = parts_of(source, split)
    return [_open_part(source, recipe, part, len(parts) == 1) for part in parts]


def _open_part(source: Source, recipe: Recipe, part: str, only: bool) -> Reader:
    where = f"{describe_source(source, recipe)}, {part}"
    try:
        reader = open_reader(source, recipe.data_root, part, only)
        count = len(reader)
    except Exception as error:  # readers raise what they like
        reason = str(error) or f"cannot be opened ({type(error).__name__})"
        raise InputError(f"{where}: {reason}") from error
    if count == 0:
        raise InputError(f"{where}: no images")
    return reader


def _names_of(source: Source, recipe: Recipe, reader: Reader) -> dict[int, str | None]:
    """Names in the recipe of the reader's labels."""
    names = dict(reader.classes)
    if not names and not isinstance(recipe.data, str):
        if reader.labels is None:
            raise InputError(
                f"{describe_source(source, recipe)}: expected class names, which sources of a list "
                "need, found none"
            )
        names = {int(label): str(label) for label in np.unique(reader.labels)}
    return {label: source.classes.get(name, name) for label, name in names.items()}


def _check_mapping(source: Source, recipe: Recipe, readers: Sequence[Reader]) -> None:
    """Refuse names of classes that a source does not have."""
    if not source.classes:
        return
    names: set[str] = set()
    for reader in readers:
        known = reader.classes.values()
        names.update(known or map(str, [] if reader.labels is None else np.unique(reader.labels)))
    missing = [name for name in source.classes if name not in names]
    if missing:
        some = ", ".join(shorten(name) for name in sorted(names)[:6])
        raise InputError(
            f"{describe_source(source, recipe)}: classes: expected a class "
            f"{' and '.join(shorten(name) for name in missing[:3])}"
            f"{' and others' if len(missing) > 3 else ''}, found {len(names)}: {some}"
            f"{', ...' if len(names) > 6 else ''}"
        )


def _class_names(parts: Sequence[Part]) -> set[str]:
    return {name for part in parts for name in part.names.values() if name is not None}
