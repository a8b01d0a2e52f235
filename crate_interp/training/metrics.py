"""What is measured of every update, and the file that keeps it."""

from __future__ import annotations

import csv
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

__all__ = ["Metrics", "MetricsFile"]


@dataclass(frozen=True)
class Metrics:
    """One line of metrics.csv.

    Attributes:
        step: Finished updates.
        loss: Of the last update, over all processes.
        learning_rate: Of the last update, the highest of all groups.
        gradient_norm: Of the last update, before clipping.
        seconds: Since the start, over all parts of the run.
        accuracy: Share of validation pictures labelled right; `None` where it was not measured.
        validation_loss: Of the reconstruction of validation pictures; `None` as above.
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    seconds: float
    accuracy: float | None = None
    validation_loss: float | None = None


class MetricsFile:
    """metrics.csv, less the lines after the checkpoint that a run goes on from.

    Args:
        path: The file.
        step: Finished updates of the checkpoint; later lines are dropped.
        writes: Whether this process is the one that writes.
    """

    def __init__(self, path: Path, step: int, writes: bool) -> None:
        self._path, self._writes = path, writes
        if not writes:
            return
        names = [field.name for field in fields(Metrics)]
        kept: list[dict[str, str]] = []
        if path.exists():
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            kept = [
                row for row in rows if (row["step"] or "").isdigit() and int(row["step"]) <= step
            ]
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(kept)
        partial.replace(path)

    def append(self, metrics: Metrics) -> None:
        """Add a line."""
        if self._writes:
            with self._path.open("a", newline="") as file:
                csv.writer(file).writerow(asdict(metrics).values())
