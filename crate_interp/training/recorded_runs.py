"""Content of the folder of a training run: its recipe, its metrics and its probes.

Shapes: P lines of a file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from jaxtyping import Float

from crate_interp.errors import InputError, shorten
from crate_interp.files import read_json_as, read_table
from crate_interp.options.choices import Spent

__all__ = ["Columns", "RecordedRun", "read_run", "spent_before"]

Columns = dict[str, Float[np.ndarray, " P"]]
_LARGEST = 1e30  # beyond it, the arithmetic of an axis overflows


class _Settings(msgspec.Struct):
    """Part of a recipe that is read of a run."""

    model: str
    batch_size: Annotated[int, msgspec.Meta(ge=1)]
    task: str = "classification"
    model_args: dict[str, Any] = {}
    image_size: int | None = None
    initial_weights: Annotated[str, msgspec.Meta(pattern="^[^\\0]*$")] | None = None


@dataclass(frozen=True, eq=False)
class RecordedRun:
    """Content of a run folder.

    Attributes:
        folder: Path without links and dots, which tells runs apart.
        settings: Recipe, without keys that do not change the result.
        metrics: Columns of metrics.csv by name.
        probes: Columns of probes.csv by name; without the file, an empty `step` alone.
    """

    folder: Path
    settings: _Settings
    metrics: Columns
    probes: Columns

    def spent(self, steps: Float[np.ndarray, " P"], unit: Spent) -> Float[np.ndarray, " P"]:
        """Updates, images or seconds that the run had spent at each step."""
        if unit == "seconds":  # between two lines of metrics.csv, as much an update
            known = (np.r_[0, self.metrics["step"]], np.r_[0, self.metrics["seconds"]])
            return np.asarray(np.interp(steps, *known))
        return steps * (self.settings.batch_size if unit == "pictures" else 1)

    def total(self, unit: Spent) -> float:
        """Updates, images or seconds that the run had spent at its last line."""
        return float(self.spent(self.metrics["step"][-1:], unit)[0])

    @property
    def initial_folder(self) -> Path | None:
        """Folder of the weights that the run began with."""
        weights = self.settings.initial_weights
        return None if weights in (None, "published") else Path(weights).resolve().parent


def read_run(path: Path) -> RecordedRun:
    """Read the folder of a training run.

    Raises:
        InputError: There is none, or a file of it is damaged.
    """
    settings_file = path / "settings.json"
    if not (path / "metrics.csv").is_file():
        raise InputError(f"{path}: expected the folder of a training run, found no metrics.csv")
    try:
        settings = read_json_as(settings_file, _Settings)
    except InputError as error:
        raise InputError(f"{settings_file}: not the recipe of a training run: {error}") from None
    metrics = _read_columns(path / "metrics.csv", ("step", "loss", "seconds"))
    probes = path / "probes.csv"
    return RecordedRun(
        path.resolve(),
        settings,
        metrics,
        _read_columns(probes, ("step",)) if probes.is_file() else {"step": np.empty(0)},
    )


def _read_columns(path: Path, everywhere: Sequence[str]) -> Columns:
    """The columns of a CSV file; an empty cell and `nan` say that nothing was measured.

    Those that are named `everywhere` have a number in each row; the first of them ascends.
    """
    names, lines = read_table(path)
    missing = [name for name in everywhere if name not in names]
    if missing:
        raise InputError(
            f"{path}, line 1: expected columns {list(everywhere)}, found {shorten(names)}"
        )
    step = names.index(everywhere[0])
    rows: list[list[float]] = []
    for line, _, row in lines:
        where = f"{path}, line {line}"
        for name, number in zip(names, row, strict=True):
            if abs(number) > _LARGEST and name != "gradient_norm":  # which float16 may overflow
                raise InputError(
                    f"{where}: {name}: expected a finite number of at most {_LARGEST:g}, "
                    f"found {number}"
                )
            if math.isnan(number) and name in everywhere:
                raise InputError(f"{where}: {name}: expected a number, found none")
        if rows and row[step] <= rows[-1][step]:
            raise InputError(
                f"{where}: {everywhere[0]}: expected more than {rows[-1][step]:g}, found "
                f"{row[step]:g}"
            )
        rows.append(row)
    if not rows:
        raise InputError(f"{path}: expected a line of numbers or more, found none")
    return dict(zip(names, np.array(rows).T, strict=True))


def spent_before(
    run: RecordedRun, runs: Mapping[Path, RecordedRun], unit: Spent, after: tuple[Path, ...] = ()
) -> float:
    """Add up what other runs spent on the initial weights of a run.

    Args:
        run: The run.
        runs: All runs that count, by their folders.
        unit: Quantity to add up.
        after: Folders of the runs that began with this one's weights, one after the other.

    Raises:
        InputError: The initial weights of a run come from itself.
    """
    before = run.initial_folder and runs.get(run.initial_folder)
    if not before:
        return 0.0
    if before.folder in (run.folder, *after):
        raise InputError(f"{run.folder}: its initial weights come from itself, {before.folder}")
    return before.total(unit) + spent_before(before, runs, unit, (*after, run.folder))
