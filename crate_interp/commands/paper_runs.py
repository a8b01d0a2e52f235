"""Runs the commands of a ledger's item, and keeps what came of them."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec

from crate_interp.commands import find_commands
from crate_interp.commands.paper_items import PaperItem, Step, Version
from crate_interp.errors import InputError, shorten
from crate_interp.files import is_file, read_json_as
from crate_interp.options.arguments import parse_arguments
from crate_interp.runs.command import OF_SIGNALS

__all__ = ["Done", "ItemRun", "StoppedError", "number_rows", "run_item"]

STATE = "steps.json"


class StoppedError(Exception):
    """A signal stopped a command, which says so itself and goes on when it is given again.

    Attributes:
        code: Exit code of the command.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Done(msgspec.Struct):
    """A step that came to its end.

    Attributes:
        command: Its command line.
        seconds: Seconds that it took.
        row: Row of the item's table.
        values: Its numbers, as the source writes them; `None` where a number is not defined.
        versions: Versions of the packages.
    """

    command: str
    seconds: float
    row: str = ""
    values: list[float | None] = []
    versions: dict[str, str] = {}


@dataclass(frozen=True)
class ItemRun:
    """What there is of a version of an item.

    Attributes:
        name: Name of the item.
        item: The item.
        small: Whether it is the small version.
        folder: Folder of its files.
        done: Its steps that came to their end, by their command lines as the item has them.
    """

    name: str
    item: PaperItem
    small: bool
    folder: Path
    done: Mapping[str, Done]

    @classmethod
    def opened(cls, name: str, item: PaperItem, small: bool, output: Path) -> ItemRun:
        """Read what there is.

        Args:
            name: Name of the item.
            item: The item.
            small: Whether to read the small version.
            output: Folder of all items.

        Raises:
            InputError: Its state cannot be read.
        """
        folder = output / ("small" if small else "full") / name
        state = folder / STATE
        done = read_json_as(state, dict[str, Done]) if is_file(state) else {}
        version = item.version(small)
        steps = version.steps if version else []
        kept = {step.command: done[step.command] for step in steps if step.command in done}
        return cls(name, item, small, folder, kept)

    @property
    def version(self) -> Version:
        """Commands, and what they make; none of either if there is no such version."""
        return self.item.version(self.small) or Version([])

    @property
    def steps(self) -> list[Step]:
        """Its commands, in order."""
        return self.version.steps

    @property
    def is_done(self) -> bool:
        """Whether there is such a version, and all of its commands came to their end."""
        return bool(self.steps) and len(self.done) == len(self.steps)

    @property
    def state(self) -> str:
        """Where it stands, in a word or two."""
        if not self.steps:
            return "none"
        if self.is_done:
            return f"done, {sum(done.seconds for done in self.done.values()):.0f} s"
        return f"{len(self.done)} of {len(self.steps)} steps" if self.done else "-"


def run_item(run: ItemRun, data: Mapping[str, str]) -> ItemRun:
    """Run the commands of an item that were not run yet, and keep each as it ends.

    Args:
        run: What there is of it.
        data: Places of data by name.

    Returns:
        What there is then.

    Raises:
        InputError: A command was refused, or failed.
        StoppedError: A signal stopped a command.
    """
    from crate_interp.runs.number_files import write_json
    from crate_interp.runs.provenance import versions

    done = dict(run.done)
    for step in run.steps:
        if step.command in done:
            continue
        arguments = step.arguments(run.folder, data)
        command = shlex.join(["crate-interp", *arguments])
        print(f"$ {command}", flush=True)
        begun = time.perf_counter()
        configuration = _configured(arguments)
        code = configuration.run()
        if code > OF_SIGNALS:
            raise StoppedError(code)
        if code:
            raise InputError(f"{command}: expected exit code 0, found {code}; see above")
        values = _numbers_of(configuration, run.item) if step.row else []
        seconds = time.perf_counter() - begun
        done[step.command] = Done(command, round(seconds, 1), step.row, values, versions())
        write_json(run.folder / STATE, msgspec.to_builtins(done))
    return ItemRun(run.name, run.item, run.small, run.folder, done)


def number_rows(item: PaperItem, runs: Sequence[ItemRun]) -> list[list[str]]:
    """Write the published rows of an item, and below them those that were measured.

    Args:
        item: The item.
        runs: Its versions.
    """
    rows = [(row, "published", values) for row, values in item.published.items()]
    for run in runs:
        kind = "small" if run.small else "full"
        rows += [(done.row, kind, done.values) for done in run.done.values() if done.row]
    return [
        [f"{row}, {kind}", *(_cell(value, item.digits) for value in values)]
        for row, kind, values in rows
    ]


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _configured(arguments: list[str]) -> Any:
    """Make the options of a command, or say in one line why not."""
    said = StringIO()
    try:
        with redirect_stderr(said):
            _, configuration = parse_arguments(find_commands(), arguments)
    except SystemExit:
        reason = said.getvalue().strip().removeprefix("error: ")
        raise InputError(f"{shlex.join(arguments)}: {reason}") from None
    if configuration is None:
        raise InputError(f"expected a command, found {shorten(shlex.join(arguments))}")
    return configuration


def _numbers_of(configuration: Any, item: PaperItem) -> list[float | None]:
    """Numbers of a finished run in the order of the item's columns; shares become percent."""
    from crate_interp.runs.finished_run import is_defined, opened_run

    with opened_run(configuration.output) as finished:
        comparable = type(configuration).compared(finished)
    missing = [name for name in item.numbers if name not in comparable.metrics]
    if missing:
        raise InputError(
            f"{configuration.output}: expected the numbers {', '.join(missing)}, found "
            f"{', '.join(comparable.metrics)}"
        )
    scale = 100 if comparable.percent else 1
    values = (comparable.metrics[name] for name in item.numbers)
    return [scale * value if is_defined(value) else None for value in values]
