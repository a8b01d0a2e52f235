"""The choices that the papers leave open: an item of the ledger that measures what each changes."""

from __future__ import annotations

import csv
import io
import re
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from crate_interp.commands.benchmark.tables import format_table
from crate_interp.commands.compare import paired_scores, read_run
from crate_interp.commands.paper_items import Other, PaperItem, Step, Version
from crate_interp.commands.paper_runs import ItemRun
from crate_interp.files import read_bytes

if TYPE_CHECKING:
    from crate_interp.runs.finished_run import Comparable

__all__ = ["CHOICES", "choices_of", "effects_text", "write_effects"]

CHOICES = "choices"
_TABLE = "effects.csv"
_HEADER = ("item", "open", "chosen", "instead", "number", "as chosen", "instead of it", "change")


def choices_of(items: Mapping[str, PaperItem]) -> dict[str, PaperItem]:
    """Make the item whose commands are those of others, as they are and with other choices.

    Args:
        items: Items of the ledger by name.

    Returns:
        The item by its name; nothing if no item says how to choose otherwise.
    """
    small, full = (_version(items, is_small) for is_small in (True, False))
    if small is None:
        return {}
    item = PaperItem(
        title="What the papers leave open, and what each choice changes",
        source="arXiv 2306.01129, 2308.16271, 2404.02446 and 2405.20299, where they are silent",
        about=(
            "A number of an item as it is made, with another choice, and the change, with its 95 % "
            "interval over resampled images where the command keeps numbers of images."
        ),
        small=small,
        full=full,
    )
    return {CHOICES: item}


def write_effects(run: ItemRun, items: Mapping[str, PaperItem]) -> None:
    """Write the table of what choices change.

    Args:
        run: A run of the item that `choices_of` makes, which came to its end.
        items: Items of the ledger by name.

    Raises:
        InputError: What a command left cannot be read.
    """
    from crate_interp.runs.number_files import write_file

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_HEADER, *_rows(run, items)])
    write_file(run.folder / _TABLE, text.getvalue())


def effects_text(run: ItemRun) -> str:
    """Lay out the table that `write_effects` wrote, without words that take too much room.

    Args:
        run: The run.

    Raises:
        InputError: There is no such table.
    """
    content = read_bytes(run.folder / _TABLE).decode()
    rows = [
        [f"{row['item']}: {row['open']}: {row['instead']}", *(row[name] for name in _HEADER[4:])]
        for row in csv.DictReader(io.StringIO(content))
        if row["instead"]
    ]
    return format_table(["", *_HEADER[4:]], rows)


def _version(items: Mapping[str, PaperItem], small: bool) -> Version | None:
    """Commands of all choices; those that several choices begin with are there once."""
    steps = [
        step
        for name, item in items.items()
        if (begun := _begun(name, item, small))
        for choice in item.open
        for other in choice.others.values()
        for step in (*begun, *([_with(begun[-1], name, other)] if other.arguments else []))
    ]
    return Version(list(dict.fromkeys(steps)), tables=[_TABLE]) if steps else None


def _begun(name: str, item: PaperItem, small: bool) -> list[Step]:
    """Commands of an item up to the first one that has a row, without the row; none if none has."""
    version = item.version(small)
    steps = version.steps if version else []
    rows = [number for number, step in enumerate(steps) if step.row]
    if not rows:
        return []
    return [
        Step(step.command.replace("{folder}", f"{{folder}}/{name}"))
        for step in steps[: rows[0] + 1]
    ]


def _with(step: Step, name: str, other: Other) -> Step:
    """Give a command with the arguments of another choice, and an output of its own."""
    own = re.sub(r"[^\w.]+", "-", other.arguments).strip("-") + _place(step).suffix
    return Step(f"{step.command} {other.arguments} --output {{folder}}/{name}/choice-{own}")


def _place(step: Step) -> PurePath:
    """Place of what a command writes: a folder or a file; the last `--output` counts."""
    words = shlex.split(step.command)
    at = len(words) - words[::-1].index("--output")
    return PurePath(words[at])


def _rows(run: ItemRun, items: Mapping[str, PaperItem]) -> Iterator[list[str]]:
    read = cache(read_run)  # what was chosen is compared several times
    for name, item in items.items():
        begun = _begun(name, item, run.small)
        for choice in item.open:
            if not (begun and choice.others):
                words = choice.effect or "not measured"
                yield [name, choice.question, choice.chosen, "", "", "", "", words]
                continue
            for words, other in choice.others.items():
                of_other = _with(begun[-1], name, other) if other.arguments else begun[-1]
                said = [name, choice.question, choice.chosen, words]
                first, second = (
                    read(Path(str(_place(step)).replace("{folder}", str(run.folder))))[1]
                    for step in (begun[-1], of_other)
                )
                yield [*said, *_effect(item, first, second, other.number)]


def _effect(item: PaperItem, first: Comparable, second: Comparable, other: str) -> list[str]:
    """Give a number as chosen and otherwise, and the change.

    Args:
        item: The item; its last number is the one that is given.
        first: Numbers of the command as chosen.
        second: Numbers of the other command.
        other: Number of the other command; empty if it is the same one.
    """
    names = item.numbers[-1], other or item.numbers[-1]
    scale = 100 if first.percent else 1
    values = [scale * of.metrics[name] for of, name in zip((first, second), names, strict=True)]
    change = f"{values[1] - values[0]:+.{item.digits}f}"
    paired = paired_scores(first, second)
    if paired is not None and all(name in of for of, name in zip(paired, names, strict=True)):
        ends = (paired[1][names[1]] - paired[0][names[0]]).interval()
        low, high = (f"{scale * end:+.{item.digits}f}" for end in ends)
        change += f" [{low}, {high}]"
    return [" / ".join(dict.fromkeys(names)), *(f"{v:.{item.digits}f}" for v in values), change]
