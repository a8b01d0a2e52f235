"""Pages of the ledger: one of an item, and one of all."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from crate_interp import visualization
from crate_interp.commands.paper_items import PaperItem
from crate_interp.commands.paper_runs import ItemRun, number_rows
from crate_interp.errors import InputError
from crate_interp.files import is_file, read_bytes

__all__ = ["item_page", "ledger_page"]

_MOST_ROWS = 80  # of a CSV file that are shown
_MOST_BYTES = 1 << 20  # of a CSV file that is read


def item_page(run: ItemRun) -> str:
    """Write the page of an item in one of its versions."""
    item = run.item
    return visualization.write_page(
        f"{run.name}: {item.title}",
        f"{item.source}. {item.about}",
        [
            visualization.Section("Numbers", list(_numbers(item, [run])), "numbers"),
            visualization.Section("Figures", list(_pictures(run)), "figures"),
            visualization.Section("Tables", list(_tables(run)), "tables"),
            visualization.Section("What the sources leave open", list(_open(item)), "open"),
            visualization.Section("Commands", list(_commands(run)), "commands"),
        ],
    )


def ledger_page(runs: Sequence[tuple[ItemRun, ItemRun]]) -> str:
    """Write the page of all items.

    Args:
        runs: The small and the full version of each.
    """
    done = sum(small.is_done for small, _ in runs)
    full = sum(full.is_done for _, full in runs)
    rows = [[small.item.title, small.name, small.state, full.state] for small, full in runs]
    overview = visualization.PageTable(["what", "item", "small", "full"], rows)
    sections = [visualization.Section("Overview", [overview], "overview")]
    for small, of_paper in runs:
        item = small.item
        shown = of_paper if of_paper.is_done else small
        notes = [item.missing, shown.version.note]
        parts: list[visualization.Part] = [
            visualization.Words(f"{item.source}. {item.about}"),
            *_numbers(item, [small, of_paper]),
            *_pictures(shown),
            *_tables(shown),
            *(visualization.Words(note) for note in notes if note),
            *_open(item),
        ]
        sections.append(visualization.Section(f"{small.name}: {item.title}", parts, small.name))
    return visualization.write_page(
        "The papers, made again",
        f"{len(runs)} tables and figures of the CRATE papers, and of what these leave open. Made "
        f"in small, with the shipped models: {done}. Made in full, with released weights and the "
        f"papers' data: {full}.",
        sections,
    )


def _numbers(item: PaperItem, runs: Sequence[ItemRun]) -> Iterator[visualization.PageTable]:
    rows = number_rows(item, runs)
    if rows:
        quiet = frozenset(range(len(item.published)))
        yield visualization.PageTable(["", *item.numbers], rows, quiet)


def _pictures(run: ItemRun) -> Iterator[visualization.Picture]:
    for name in run.version.pictures:
        path = run.folder / name
        if is_file(path):
            yield visualization.Picture(f"{run.item.title}: {path.stem}", read_bytes(path))


def _tables(run: ItemRun) -> Iterator[visualization.PageTable | visualization.Words]:
    for name in run.version.tables:
        path = run.folder / name
        if is_file(path):
            yield visualization.Words(name)
            yield _table(path)


def _table(path: Path) -> visualization.PageTable:
    try:
        lines = read_bytes(path, _MOST_BYTES).decode().splitlines()
        header, *rows = islice(csv.reader(lines), _MOST_ROWS + 1)
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise InputError(f"{path}: expected a table as CSV, found another file: {error}") from None
    whole = [row for row in rows if len(row) == len(header)]
    return visualization.PageTable(header, [list(map(_shortened, row)) for row in whole])


def _shortened(cell: str) -> str:
    """A fraction with four digits; everything else as it is."""
    try:
        return f"{float(cell):.4g}" if "." in cell else cell
    except ValueError:
        return cell


def _open(item: PaperItem) -> Iterator[visualization.Facts]:
    if item.open:
        yield visualization.Facts(
            [
                (
                    choice.question,
                    choice.chosen + (f" Effect: {choice.effect}" if choice.effect else ""),
                )
                for choice in item.open
            ]
        )


def _commands(run: ItemRun) -> Iterator[visualization.Facts | visualization.Words]:
    if run.version.note:
        yield visualization.Words(run.version.note)
    facts = []
    for step in run.steps:
        done = run.done.get(step.command)
        if done is None:
            facts.append(("not run", f"crate-interp {step.command}"))
        else:
            facts.append((f"{done.seconds:.0f} s", done.command))
    yield visualization.Facts(facts)
