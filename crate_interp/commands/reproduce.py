"""The papers' tables and figures, each by one command: published beside measured."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from crate_interp.commands.benchmark.tables import format_table
from crate_interp.commands.paper_choices import CHOICES, choices_of, effects_text, write_effects
from crate_interp.commands.paper_items import PaperItem, find_items
from crate_interp.commands.paper_page import item_page, ledger_page
from crate_interp.commands.paper_runs import ItemRun, StoppedError, number_rows, run_item
from crate_interp.errors import InputError, shorten
from crate_interp.options import option
from crate_interp.runs.command import Command
from crate_interp.runs.number_files import write_file

__all__ = ["Reproduce"]

ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Reproduce(Command):
    """Make tables and figures of the papers again; list them."""

    group: ClassVar[str] = "score"
    continues: ClassVar[bool] = True

    items: list[str] = option(
        "names of tables and figures, `choices` (what papers leave open, and what each choice "
        "changes), or `all` (default: list them)",
        [],
        positional=True,
        several=str,
    )
    small: bool = option(
        "run the small version: shipped models, built-in images, minutes on two cores", False
    )
    data: list[str] | None = option(
        "NAME=PLACE: data that a full version reads; the message that asks for it names it",
        None,
        several=str,
    )
    output: Path = option(
        "folder of index.html, the page of all, and of a folder for each",
        Path("runs/papers"),
        presentation=True,
    )

    def run(self) -> int:
        """List the items, or run some of them; what was run before is not run again.

        Returns:
            0, or 1 if one failed; the others are run all the same. If a signal stopped a command,
            its exit code: nothing more is run.

        Raises:
            InputError: There is no such item, or a place is not given as NAME=PLACE.
        """
        items = find_items()
        items |= choices_of(items)
        unknown = [name for name in self.items if name not in items and name != ALL]
        if unknown:
            raise InputError(
                f"items: expected {ALL} or some of {', '.join(items)}, found {shorten(unknown[0])}"
            )
        chosen = list(items) if ALL in self.items else list(dict.fromkeys(self.items))
        data = dict(_place(text) for text in self.data or [])
        try:
            failed = [
                name
                for number, name in enumerate(chosen, 1)
                if not self._make(name, items, data, f"{number} of {len(chosen)}")
            ]
        except StoppedError as stopped:
            return stopped.code
        runs = [
            (self._opened(name, item, True), self._opened(name, item, False))
            for name, item in items.items()
        ]
        if chosen:
            write_file(self.output / "index.html", ledger_page(runs))
            for pair in runs:
                if pair[0].name in chosen:
                    _print_numbers(pair)
            print(self.output / "index.html")
        else:
            _print_list(runs)
        if failed:
            print(f"failed: {', '.join(failed)}; see above", file=sys.stderr)
        return int(bool(failed))

    def _make(
        self, name: str, items: dict[str, PaperItem], data: dict[str, str], number: str
    ) -> bool:
        """Run an item and write its page; tell what fails."""
        item = items[name]
        run = self._opened(name, item, self.small)
        if not run.steps:
            print(f"{name}: {item.missing or 'there is a small version only'}", file=sys.stderr)
            return False
        print(f"== {name} ({number}): {item.title}", flush=True)
        try:
            run = run_item(run, data)
            if name == CHOICES:
                write_effects(run, items)
                print(effects_text(run))
            write_file(run.folder / "report.html", item_page(run))
        except (InputError, OSError) as error:
            print(f"error: {name}: {InputError(str(error))}", file=sys.stderr)
            return False
        return True

    def _opened(self, name: str, item: PaperItem, small: bool) -> ItemRun:
        return ItemRun.opened(name, item, small, self.output)


def _print_numbers(runs: tuple[ItemRun, ItemRun]) -> None:
    item = runs[0].item
    rows = number_rows(item, runs)
    if rows:
        print(f"\n{item.source}: {item.title}")
        print(format_table(["", *item.numbers], rows))


def _print_list(runs: Sequence[tuple[ItemRun, ItemRun]]) -> None:
    rows = [("ITEM", "SMALL", "FULL", "WHAT")]
    rows += [(small.name, small.state, full.state, small.item.title) for small, full in runs]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    print("-: not run yet; none: there is no such version")


def _place(text: str) -> tuple[str, str]:
    name, equals, place = text.partition("=")
    if not (name and equals and place):
        raise InputError(f"data: expected NAME=PLACE, found {shorten(text)}")
    return name, place
