"""Metrics of every update, and the files that keep them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crate_interp.errors import InputError
from crate_interp.files import read_table, write_whole

__all__ = ["Metrics", "MetricsFile", "is_due"]


@dataclass(frozen=True)
class Metrics:
    """One line of metrics.csv.

    Attributes:
        step: Number of finished updates.
        loss: Loss of the last update, over all processes.
        learning_rate: Learning rate of the last update, the highest of all groups.
        gradient_norm: Norm of the last update's gradient, before clipping.
        accuracy: Share of validation images labelled right; `None` where it was not measured.
        seconds: Time since the start, over all parts of the run.
        validation_loss: Loss of the validation images; `None` as above.
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    accuracy: float | None
    seconds: float
    validation_loss: float | None = None


class MetricsFile:
    """A CSV file with one line per measurement, the first column `step`.

    The columns are those of the first line; the file is there as soon as a line is.

    Args:
        path: The file.
        step: Number of finished updates of the checkpoint that a run goes on from; later lines
            are dropped.

    Raises:
        InputError: The file that is there is damaged; it can be moved away to go on.
    """

    def __init__(self, path: Path, step: int) -> None:
        self._path = path
        self._columns: list[str] = []
        if not path.exists():
            return
        names, rows = read_table(path)
        kept = [row.cells for row in rows if row.numbers[names.index("step")] <= step]
        if not kept:
            path.unlink()
            return
        self._columns = names
        with write_whole(path, "w") as file:
            csv.writer(file).writerows([names, *kept])

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a line.

        Raises:
            InputError: The file has other columns, as another version of the package writes them.
        """
        with self._path.open("a", newline="") as file:
            writer = csv.writer(file)
            if not self._columns:
                self._columns = list(row)
                writer.writerow(row)
            if self._columns != list(row):
                raise InputError(
                    f"{self._path}: expected the columns {list(row)}, found {self._columns}; "
                    "move the file away to go on"
                )
            writer.writerow(row.values())


def is_due(step: int, every: int, updates: int) -> bool:
    """Whether what is done every so many updates is due: always after the last, never for 0."""
    return step == updates or (every > 0 and step % every == 0)
