"""A comparison of runs as a table: Markdown, CSV, LaTeX, or a page."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crate_interp import visualization

if TYPE_CHECKING:
    from crate_interp.evaluation import Interval

__all__ = ["FORMATS", "Comparison", "Difference", "Line", "plain_table"]


@dataclass(frozen=True)
class Difference:
    """Difference of a number to that of the first run, and its interval where it is known."""

    value: float
    interval: Interval | None = None


@dataclass(frozen=True)
class Line:
    """One run of a comparison.

    Attributes:
        name: Name of the run.
        values: Numbers by metric.
        published: Published numbers by metric.
        source: Where they were published.
        differences: Differences to the first run by metric; empty for the first.
    """

    name: str
    values: Mapping[str, float]
    published: Mapping[str, float]
    source: str
    differences: Mapping[str, Difference]


@dataclass(frozen=True)
class Comparison:
    """Numbers of several runs.

    Attributes:
        metrics: Names of the numbers.
        lines: The runs, the first of which the others are compared with.
        notes: What a reader has to know beside the numbers.
        percent: Whether the numbers are shares of 1, which are written in percent.
    """

    metrics: Sequence[str]
    lines: Sequence[Line]
    notes: Sequence[str]
    percent: bool

    def shown(self, value: float | None, sign: str = "") -> str:
        """Write a number; "-" for one that is not defined, nothing for none.

        Args:
            value: The number.
            sign: `+` for a difference.
        """
        if value is None:
            return ""
        if not math.isfinite(value) or (not sign and value == -1):
            return "-"
        return format(100 * value, f"{sign}.1f") if self.percent else format(value, f"{sign}.4g")

    def rows(self) -> tuple[list[list[str]], frozenset[int]]:
        """Cells of the table, and the numbers of the rows that stand back."""
        rows: list[list[str]] = []
        quiet = set()
        for line in self.lines:
            rows.append([line.name, *(self.shown(line.values[name]) for name in self.metrics)])
            if line.published:
                quiet.add(len(rows))
                cells = [self.shown(line.published.get(name)) for name in self.metrics]
                rows.append([f"published ({line.source})", *cells])
            if line.differences:
                quiet.add(len(rows))
                cells = [self._difference(line.differences.get(name)) for name in self.metrics]
                rows.append(["difference to the first", *cells])
        return rows, frozenset(quiet)

    @property
    def header(self) -> list[str]:
        """Names of the columns."""
        return ["%" if self.percent else "run", *self.metrics]

    def _difference(self, difference: Difference | None) -> str:
        if difference is None:
            return "-"
        value = self.shown(difference.value, "+")
        if difference.interval is None:
            return value
        low, high = (self.shown(end, "+") for end in difference.interval)
        return f"{value} [{low}, {high}]"


def plain_table(comparison: Comparison) -> str:
    """Write a table for a terminal: Markdown in which names are as they are."""
    return _aligned(comparison, _one_line)


def _markdown(comparison: Comparison) -> str:
    return _aligned(comparison, _escaped_markdown)


def _aligned(comparison: Comparison, escaped: Callable[[str], str]) -> str:
    rows, _ = comparison.rows()
    cells = [list(map(escaped, row)) for row in [comparison.header, *rows]]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        first, *others = zip(row, widths, strict=True)
        return f"| {' | '.join([first[0].ljust(first[1]), *(c.rjust(w) for c, w in others)])} |"

    rule = ["-" * widths[0], *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    notes = [f"- {escaped(note)}" for note in comparison.notes]
    text = [line(cells[0]), line(rule), *map(line, cells[1:])]
    return "\n".join([*text, *([""] if notes else []), *notes]) + "\n"


def _escaped_markdown(text: str) -> str:
    return re.sub(r"([\\|`*_<>#&])", r"\\\1", _one_line(text))


def _csv(comparison: Comparison) -> str:
    """One line per run, all numbers as they are, as shares of 1."""
    parts = ("", " published", " difference", " low", " high")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *(name + part for name in comparison.metrics for part in parts)])
    for line in comparison.lines:
        cells: list[object] = [line.name]
        for name in comparison.metrics:
            difference = line.differences.get(name)
            interval = difference.interval if difference and difference.interval else ("", "")
            cells += [line.values[name], line.published.get(name, "")]
            cells += [difference.value if difference else "", *interval]
        writer.writerow(cells)
    return text.getvalue()


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def _latex(comparison: Comparison) -> str:
    rows, _ = comparison.rows()
    lines = [" & ".join(map(_escaped_latex, row)) + r" \\" for row in [comparison.header, *rows]]
    lines[1:1] = [r"\hline"]
    notes = [f"% {_one_line(note)}" for note in comparison.notes]
    columns = f"l{'r' * len(comparison.metrics)}"
    return "\n".join([*notes, rf"\begin{{tabular}}{{{columns}}}", *lines, r"\end{tabular}"]) + "\n"


def _escaped_latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in _one_line(text))


def _one_line(text: str) -> str:
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def _page(comparison: Comparison) -> str:
    rows, quiet = comparison.rows()
    table = visualization.PageTable(comparison.header, rows, quiet)
    notes = [visualization.Words(note) for note in comparison.notes]
    names = ", ".join(line.name for line in comparison.lines)
    return visualization.write_page(
        "Comparison of runs",
        names,
        [
            visualization.Section("Numbers", [table], "numbers"),
            visualization.Section("Notes", notes, "notes"),
        ],
    )


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "md": _markdown,
    "csv": _csv,
    "tex": _latex,
    "html": _page,
}
