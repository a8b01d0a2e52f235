"""CSV files of numbers, one line per step of a training run."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import NamedTuple

from crate_interp.errors import InputError, shorten
from crate_interp.files.typed_json import read_bytes

__all__ = ["Row", "read_table"]


class Row(NamedTuple):
    """A line of a table.

    Attributes:
        line: Number of the line in the file, from 1.
        cells: The cells as they are written.
        numbers: The same as numbers, NaN for an empty cell.
    """

    line: int
    cells: list[str]
    numbers: list[float]


def read_table(path: Path) -> tuple[list[str], list[Row]]:
    """Read a CSV file of numbers, one line per step: the columns' names, and the lines.

    A last line without its end is left out: it is half a line, where the process was killed or the
    disk was full.

    Raises:
        InputError: The file cannot be read, is no CSV of numbers, has a column twice or none of
            the name `step`.
    """
    content = read_bytes(path)
    try:
        text = content[: content.rfind(b"\n") + 1].decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: expected UTF-8, found other bytes") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    try:
        names = next(reader, [])
        if text and ("step" not in names or len(set(names)) < len(names)):
            raise InputError(
                f"{path}, line 1: expected columns, each once and one of them step, found "
                f"{shorten(names)}"
            )
        for cells in reader:
            where = f"{path}, line {reader.line_num}"
            if len(cells) != len(names):
                raise InputError(f"{where}: expected {len(names)} cells, found {len(cells)}")
            numbers = [_number(cell, name, where) for cell, name in zip(cells, names, strict=True)]
            rows.append(Row(reader.line_num, cells, numbers))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: no CSV: {error}") from None
    return names, rows


def _number(cell: str, name: str, where: str) -> float:
    try:
        return float(cell or "nan")
    except ValueError:
        raise InputError(
            f"{where}: {shorten(name)[1:-1]}: expected a finite number, found {shorten(cell)}"
        ) from None
