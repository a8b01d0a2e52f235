"""Pictures of a recipe's sources, by number: those to train on, and those to validate on."""

from __future__ import annotations

import bisect
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Int64
from PIL import Image

from crate_interp.data.image_files import opened_image
from crate_interp.errors import InputError
from crate_interp.training.readers import Reader
from crate_interp.training.recipe import Recipe
from crate_interp.training.selection import is_held_out, read_exclusions, report_missing
from crate_interp.training.source_parts import Numbering, Part, number_classes, open_parts
from crate_interp.training.sources import describe_data, describe_source

__all__ = ["DatasetPictures", "open_pictures", "read_from"]

Content = TypeVar("Content")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """Images of a part that are used.

    Attributes:
        part: The part.
        indices: Their numbers in it.
    """

    part: Part
    indices: range | Int64[np.ndarray, " n"]


class DatasetPictures:
    """Images of all sources; unreadable ones are named instead of skipped silently.

    Args:
        recipe: Recipe, which names the data.
        choices: Images of each part, in order.
        numbering: Classes and their labels.

    Attributes:
        classes: Names of the classes, by label.
    """

    endless = False

    def __init__(self, recipe: Recipe, choices: Sequence[Choice], numbering: Numbering) -> None:
        self._recipe, self._choices, self._numbers = recipe, choices, numbering.numbers
        self._ends = list(itertools.accumulate(len(choice.indices) for choice in choices))
        self.classes = numbering.classes

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        number, (image, label) = read_from(index, len(self), self._read, self._name, self._recipe)
        return image, self._label(self._place(number)[0], label)

    def counts(self) -> dict[str, int]:
        """Count the images of each source, by its name."""
        counts: dict[str, int] = {}
        for choice in self._choices:
            name = choice.part.source.name
            counts[name] = counts.get(name, 0) + len(choice.indices)
        return counts

    def names(self) -> Iterator[tuple[str, str | None]]:
        """Yield `SOURCE/PATH` of each image and its class, `None` if reading it must tell."""
        for choice in self._choices:
            part, labels = choice.part, choice.part.reader.labels
            for index in map(int, choice.indices):
                name = None if labels is None else part.class_name(int(labels[index]))
                yield f"{part.source.name}/{part.reader.path(index)}", name

    def _place(self, index: int) -> tuple[Part, int]:
        """Part of an image, and its number in it."""
        number = bisect.bisect_right(self._ends, index)
        choice = self._choices[number]
        return choice.part, int(choice.indices[index - self._ends[number]])

    def _label(self, part: Part, label: int) -> int:
        if self._numbers is None:
            return label
        name = part.class_name(label)
        if name is None:
            where = describe_source(part.source, self._recipe)
            raise InputError(f"{where}: expected the label of a class, found {label}")
        return self._numbers[name]

    def _read(self, index: int) -> tuple[Image.Image, int]:
        part, inside = self._place(index)
        return _read(part.reader, inside)

    def _name(self, index: int) -> str:
        part, inside = self._place(index)
        return part.reader.filename(inside, absolute=True)


def read_from(
    index: int,
    count: int,
    read: Callable[[int], Content],
    name_of: Callable[[int], str],
    recipe: Recipe,
) -> tuple[int, Content]:
    """Read the image of a number; if it cannot be read, name it, and stop or read the next one.

    Args:
        index: Its number.
        count: Number of images; the first one follows the last one.
        read: Reads the image of a number.
        name_of: Names the image of a number.
        recipe: Recipe, which says what an unreadable image does.

    Returns:
        Number of the image that was read, and the image.

    Raises:
        InputError: An image cannot be read and the recipe has `on_error: raise`, or none can.
    """
    for number in (at % count for at in range(index, index + count)):
        try:
            return number, read(number)
        except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises
            name = name_of(number)
            if recipe.on_error == "raise":
                raise InputError(
                    f"{name}: not a readable image ({error}); on_error: skip goes on"
                ) from error
            _logger.warning("%s: skipped, not a readable image (%s)", name, error)
    raise InputError(f"{describe_data(recipe)}: no image can be read")


def open_pictures(recipe: Recipe) -> tuple[DatasetPictures, DatasetPictures | None]:
    """Open the images of a recipe's sources.

    Returns:
        Those to train on, and those to validate on, if the recipe has any.

    Raises:
        InputError: A source, or the list of pictures to leave out, cannot be read or does not fit;
            or no picture is left to validate on, or none of a class to train on.
    """
    training, validation = open_parts(recipe)
    numbering = number_classes(recipe, training, validation)
    names = list(dict.fromkeys(part.source.name for part in training))
    exclusions: dict[str, set[str]] = {}
    if recipe.exclude is not None:
        exclusions = read_exclusions(Path(recipe.exclude), names)
    present: dict[str, set[str]] = {name: set() for name in names}
    split = [_choose(part, recipe, exclusions, present) for part in training]
    trained = [rest for rest, _ in split]
    measured = [held_out for rest, held_out in split if rest.part.source.held_out]
    measured += [_choose(part, recipe, exclusions, present)[0] for part in validation]
    if recipe.exclude is not None:
        report_missing(Path(recipe.exclude), exclusions, present)
    _refuse_lost_classes(recipe, trained)
    pictures = DatasetPictures(recipe, trained, numbering)
    if not measured:
        return pictures, None
    others = DatasetPictures(recipe, measured, numbering.extended(validation))
    if len(others) == 0:
        raise InputError(
            f"{describe_data(recipe)}: expected pictures for validation, found that held_out takes "
            f"none of {len(pictures)}; raise it"
        )
    return pictures, others


def _choose(
    part: Part, recipe: Recipe, exclusions: Mapping[str, set[str]], present: Mapping[str, set[str]]
) -> tuple[Choice, Choice]:
    """Choose what stays of a part, and what is held out; put what is excluded into `present`."""
    name, share = part.source.name, part.source.held_out or 0.0
    excluded = exclusions.get(name, ())
    left_out = [label for label, name in part.names.items() if name is None]
    kept = np.ones(len(part.reader), dtype=bool)
    if left_out:
        if part.reader.labels is None:
            raise InputError(
                f"{describe_source(part.source, recipe)}: classes: labels are known only when "
                "images are read; expected no class to leave out"
            )
        kept = ~np.isin(part.reader.labels, left_out)
    elif not share and not excluded:
        return Choice(part, range(len(kept))), Choice(part, range(0))
    held_out = np.zeros_like(kept)
    for index in range(len(kept) if share or excluded else 0):
        path = part.reader.path(index)
        if path in excluded:
            present[name].add(path)
            kept[index] = False
        elif share:
            held_out[index] = is_held_out(f"{name}/{path}", share)
    rest = np.flatnonzero(kept & ~held_out)
    return Choice(part, rest), Choice(part, np.flatnonzero(kept & held_out))


def _refuse_lost_classes(recipe: Recipe, choices: Sequence[Choice]) -> None:
    """Refuse a class that has pictures, but none left to train on."""
    if all(isinstance(choice.indices, range) for choice in choices):
        return
    there: set[str | None] = {None}
    left: set[str | None] = {None}
    for choice in choices:
        labels = choice.part.reader.labels
        if labels is None:
            return
        there.update(map(choice.part.class_name, np.unique(labels).tolist()))
        left.update(map(choice.part.class_name, np.unique(labels[choice.indices]).tolist()))
    lost = sorted(name for name in there - left if name is not None)
    if lost:
        raise InputError(
            f"{describe_data(recipe)}: expected pictures of every class to train on, found that "
            f"all of {', '.join(lost[:3])} are held out or excluded; leave the class out, or hold "
            "out less"
        )


def _read(reader: Reader, index: int) -> tuple[Image.Image, int]:
    image, label = reader[index]
    if isinstance(image, Image.Image):
        return image, label
    with image, opened_image(image, "") as opened:
        return opened.convert("RGB"), label
