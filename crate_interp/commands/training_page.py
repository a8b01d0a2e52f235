"""The page of a training run, `report.html`: made of the files in its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from crate_interp import training, visualization
from crate_interp.commands.training_numbers import ShownNumber, choose_numbers, shown_values
from crate_interp.files import read_json_as

if TYPE_CHECKING:
    from pathlib import Path

    from jaxtyping import Float

    from crate_interp.training import RecordedRun
    from crate_interp.visualization import LineChart

__all__ = ["training_page"]

_MOST_POINTS = 400  # of a line
_MOST_LINES = 4  # blocks of a chart, from the first to the last


def training_page(folder: Path, finished: bool) -> str:
    """Write the page of a training run.

    Args:
        folder: The run folder.
        finished: Whether the run made all its updates.

    Raises:
        InputError: A file of the run is damaged.
    """
    run = training.read_run(folder)
    shown = [
        (number, *_values_of(run, number))
        for number in choose_numbers([run.probes], None)
        if set(number.columns) <= (run.probes if number.is_probe else run.metrics).keys()
    ]
    measured = [(number, steps, values) for number, steps, values in shown if len(steps)]
    last, seconds = run.metrics["step"][-1], run.total("seconds")
    examples = "texts" if run.settings.task == "language" else "images"
    about = f"{last:.0f} updates of {run.settings.batch_size} {examples} by crate-interp train"
    return visualization.write_page(
        f"{run.settings.model}: training",
        about if finished else f"{about}; stopped, the same command goes on",
        [
            visualization.Section("Results", [_table(measured)], "results"),
            visualization.Section("Curves", [_chart(last, *one) for one in measured], "curves"),
            visualization.Section(
                "Seconds",
                [
                    visualization.Words(
                        f"{seconds:.0f} s, {run.total('pictures') / max(seconds, 1e-9):.1f} "
                        f"{examples} a second, validation and probes included."
                    )
                ],
                "seconds",
            ),
            visualization.Section(
                "What was run", [visualization.Facts(list(_facts(folder)))], "run"
            ),
        ],
    )


def _values_of(
    run: RecordedRun, number: ShownNumber
) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, "P C"]]:
    """Updates at which a number was measured, and its values as they are shown, by column."""
    table = run.probes if number.is_probe else run.metrics
    values = np.stack([shown_values(name, table[name]) for name in number.columns], axis=1)
    known = np.isfinite(values).any(axis=1)
    return table["step"][known], values[known]


def _table(measured: list[tuple[ShownNumber, Any, Any]]) -> visualization.PageTable:
    """Last values, and of what has no blocks the range over the run."""
    rows = []
    for number, steps, values in measured:
        last = f"{values[-1, -1]:.3g}"
        ends = f"{np.nanmin(values[:, -1]):.3g} to {np.nanmax(values[:, -1]):.3g}"
        title = f"{number.title}, last block" if number.by_block else number.title
        rows.append([title, last, f"{steps[-1]:.0f}", ends])
    return visualization.PageTable(["", "last", "at update", "range"], rows)


def _chart(
    last: float,
    number: ShownNumber,
    steps: Float[np.ndarray, " P"],
    values: Float[np.ndarray, "P C"],
) -> LineChart:
    columns = np.unique(np.linspace(0, values.shape[1] - 1, _MOST_LINES).round().astype(int))
    points = np.unique(np.linspace(0, len(steps) - 1, _MOST_POINTS).round().astype(int))
    values = values[points]
    lines = [(_name_of(number, column), values[:, column]) for column in columns]
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return visualization.LineChart(
        number.title,
        *(steps[points], lines, "updates", ""),
        x_limits=(0, max(1, last)),
        y_limits=(low - margin if "loss" in number.title else min(0, low), high + margin),
    )


def _name_of(number: ShownNumber, column: int) -> str:
    layer = training.column_of(number.columns[column]).layer
    return number.columns[column] if layer is None else f"block {layer}"


def _facts(folder: Path) -> Iterator[tuple[str, str]]:
    """Recipe and versions, by name; what is not set is left out."""
    from crate_interp.runs.provenance import versions  # not for --help

    yield "command", "crate-interp train"
    for name, value in read_json_as(folder / "settings.json", dict[str, Any]).items():
        if value is None or value in ({}, [], ()):
            continue
        yield name.replace("_", " "), value if isinstance(value, str) else json.dumps(value)
    yield "versions", ", ".join(f"{name} {version}" for name, version in versions().items())
