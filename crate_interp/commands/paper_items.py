"""Items of the ledger: a table or figure of a paper, and the commands that make it again.

Each is a file of `pipelines/papers/`, named as the item is.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from crate_interp.errors import InputError, shorten
from crate_interp.files import checked_as, read_yaml
from crate_interp.options.pipelines import pipeline_folder

__all__ = ["Choice", "Other", "PaperItem", "Step", "Version", "find_items", "read_item"]

_PLACE = re.compile(r"\{(\w*)\}")
FOLDER = "folder"  # place of the files of an item; other places are data that the user names


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A command of an item.

    Attributes:
        command: Arguments of crate-interp. `{folder}` stands for the folder of the item's files,
            any other name in braces for data that the user names.
        row: Row of the item's table that its numbers fill; none for a command without numbers.
    """

    command: str
    row: str = ""

    def arguments(self, folder: Path, data: Mapping[str, str]) -> list[str]:
        """Give the arguments with the places put in.

        Args:
            folder: Folder of the item's files.
            data: Places of data by name.

        Raises:
            InputError: Data is missing.
        """
        places = {**data, FOLDER: str(folder)}
        missing = [name for name in self.data_names() if name not in data]
        if missing:
            raise InputError(
                f"expected --data {' '.join(f'{name}=PLACE' for name in missing)}, which "
                f"'{self.command}' reads, found {shorten(' '.join(data)) if data else 'none'}; "
                "--small reads no data"
            )
        return [
            _PLACE.sub(lambda found: places.get(found[1], found[0]), part)
            for part in shlex.split(self.command)
        ]

    def data_names(self) -> list[str]:
        """Names of the data that the command reads."""
        return [name for name in _PLACE.findall(self.command) if name and name != FOLDER]


class Version(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The commands of an item, as the paper has it or in small.

    Attributes:
        steps: The commands, in order.
        pictures: Figures that they make, PNG or JPEG files in the item's folder.
        tables: CSV files that they make, in the item's folder.
        note: What a reader has to know of this version.
    """

    steps: list[Step]
    pictures: list[str] = []
    tables: list[str] = []
    note: str = ""


class Other(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another choice, of which `reproduce choices` measures what it changes.

    Attributes:
        arguments: Arguments that are added to the first command of the item that has a row.
        number: Its number, if it is another one of the same command.
    """

    arguments: str = ""
    number: str = ""


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that the sources leave open.

    Attributes:
        question: What is open.
        chosen: What was chosen.
        others: Other choices by a word or two.
        effect: What others change, or why that is not measured, where `others` does not say it.
    """

    question: str
    chosen: str
    others: dict[str, Other] = {}
    effect: str = ""


class PaperItem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table or figure of a paper.

    Attributes:
        title: What it shows.
        source: Paper, and its table or figure.
        about: What is compared, and how.
        numbers: Columns of the table, by the names that `crate-interp compare` gives the numbers.
        digits: Digits behind the point.
        published: Rows of the source, a value a column; `null` where it has none.
        small: Commands of the small version, for the shipped models and built-in images.
        full: Commands of the version of the paper, for released weights and the paper's data.
        open: What the sources leave open.
        missing: Why there is no small version, where there is none.
    """

    title: str
    source: str
    about: str
    numbers: list[str] = []
    digits: Annotated[int, msgspec.Meta(ge=0, le=9)] = 1
    published: dict[str, list[float | None]] = {}
    small: Version | None = None
    full: Version | None = None
    open: list[Choice] = []
    missing: str = ""

    def version(self, small: bool) -> Version | None:
        """Give one of the two versions."""
        return self.small if small else self.full


def find_items(folder: Path | None = None) -> dict[str, PaperItem]:
    """Read all items of the ledger, by name.

    Args:
        folder: Folder of their files (default: the one that comes with the package).

    Raises:
        InputError: A file is malformed.
    """
    folder = folder or pipeline_folder() / "papers"
    return {path.stem: read_item(path) for path in sorted(folder.glob("*.yaml"))}


def read_item(path: Path) -> PaperItem:
    """Read an item.

    Args:
        path: The YAML file.

    Raises:
        InputError: The file is malformed, or its parts do not fit.
    """
    item = checked_as(read_yaml(path), PaperItem, str(path))
    for row, values in item.published.items():
        if len(values) != len(item.numbers):
            raise InputError(
                f"{path}: published: {shorten(row)}: expected {len(item.numbers)} values, one of "
                f"each of numbers, found {len(values)}"
            )
    if (item.small is None) != bool(item.missing):
        raise InputError(f"{path}: expected either small or missing, found both or neither")
    for version in filter(None, (item.small, item.full)):
        _check_steps(path, version.steps, item)
    for choice in item.open:
        if choice.others and not item.numbers:
            raise InputError(
                f"{path}: others of {shorten(choice.question)}: expected numbers, found none"
            )
        for words, other in choice.others.items():
            if not (other.arguments or other.number):
                raise InputError(f"{path}: {shorten(words)}: expected arguments or a number")
            _check_words(path, other.arguments)
    return item


def _check_steps(path: Path, steps: Sequence[Step], item: PaperItem) -> None:
    if not steps:
        raise InputError(f"{path}: steps: expected a command, found none")
    for step in steps:
        if step.row and not item.numbers:
            raise InputError(f"{path}: row: expected numbers for {shorten(step.row)}, found none")
        _check_words(path, step.command)


def _check_words(path: Path, command: str) -> None:
    try:
        shlex.split(command)
    except ValueError as error:
        raise InputError(f"{path}: command: {error} in {shorten(command)}") from None
