"""The command `curves`: metrics.csv and probes.csv of several runs in one figure."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from jaxtyping import Float

from crate_interp.config import CurvesConfig, Spent
from crate_interp.errors import InputError, shorten
from crate_interp.files import read_json_as, read_table
from crate_interp.runs.figure_files import save_figure
from crate_interp.visualization import Curve, CurvePanel, draw_curves

__all__ = ["run"]

Columns = dict[str, Float[np.ndarray, " P"]]
_LARGEST = 1e30  # beyond it, the arithmetic of an axis overflows
_TIMES = ((2 * 3600, 3600, "hours"), (120, 60, "minutes"), (0, 1, "seconds"))  # from, unit, name

_SHARES = {"accuracy", "attention", "sparsity", "ap", "ap50", "ap75"}
_SPELLING = {"miou": "mIoU", "ap": "AP", "ap50": "AP50", "ap75": "AP75"}


class _Settings(msgspec.Struct):
    """What is read of a run's recipe."""

    model: str
    batch_size: Annotated[int, msgspec.Meta(ge=1)]
    model_args: dict[str, Any] = {}
    image_size: int | None = None
    initial_weights: Annotated[str, msgspec.Meta(pattern="^[^\\0]*$")] | None = None


@dataclass(frozen=True, eq=False)
class _Run:
    """What a run folder holds.

    Attributes:
        folder: Without links and dots, to know it again.
        settings: The recipe, all but what does not change the result.
        metrics: Columns of metrics.csv by name.
        probes: Columns of probes.csv by name, none without the file.
    """

    folder: Path
    settings: _Settings
    metrics: Columns
    probes: Columns

    def spent(self, steps: Float[np.ndarray, " P"], unit: Spent) -> Float[np.ndarray, " P"]:
        """What the run had spent at a step."""
        if unit == "seconds":  # between two lines of metrics.csv, as much an update
            known = (np.r_[0, self.metrics["step"]], np.r_[0, self.metrics["seconds"]])
            return np.asarray(np.interp(steps, *known))
        return steps * (self.settings.batch_size if unit == "pictures" else 1)

    @property
    def initial_folder(self) -> Path | None:
        """The folder of the weights that the run began with."""
        weights = self.settings.initial_weights
        return None if weights in (None, "published") else Path(weights).resolve().parent


def run(config: CurvesConfig) -> int:
    """Draw the runs and write the figure as PNG and PDF.

    Returns:
        0.

    Raises:
        InputError: A folder is not that of a training run, or a file of it cannot be read.
    """
    runs = [_read_run(path) for path in config.runs]
    if len({run.folder for run in runs}) < len(runs):
        raise InputError(f"runs: expected each once, found {' '.join(map(str, config.runs))}")
    by_folder = {run.folder: run for run in runs}
    starts = [_start_of(run, by_folder, config.x, ()) for run in runs]
    ends = [
        start + run.spent(run.metrics["step"][-1:], config.x)[0]
        for run, start in zip(runs, starts, strict=True)
    ]
    divisor, x_label = _unit_of(config.x, max(ends))
    names = _names_of(runs, config.runs, by_folder)

    def curves_of(columns: Sequence[Columns], wanted: Sequence[str]) -> list[Curve]:
        found = []
        for run, name, start, own in zip(runs, names, starts, columns, strict=True):
            lines = [_shown_as(column, own[column]) for column in wanted if column in own]
            if lines and np.isfinite(lines).any():
                x = (start + run.spent(own["step"], config.x)) / divisor
                found.append(Curve(name, x, np.stack(lines, axis=1)))
        return found

    metrics, probes = [run.metrics for run in runs], [run.probes for run in runs]
    panels = [
        CurvePanel("training loss", curves_of(metrics, ["loss"]), smooth=True),
        CurvePanel("validation loss", curves_of(metrics, ["validation_loss"])),
        CurvePanel("validation accuracy (%)", curves_of(metrics, ["accuracy"])),
    ]
    for title, wanted in _probe_panels(probes).items():
        panels.append(CurvePanel(title, curves_of(probes, wanted)))
    drawn = [panel for panel in panels if panel.curves]
    figure = draw_curves(drawn, x_label, width=config.width_inches)
    print(*save_figure(figure, config.output, config), sep="\n")
    return 0


def _is_share(column: str) -> bool:
    """Whether a column has shares of 1, which are drawn in percent."""
    return not _SHARES.isdisjoint(column.split("_"))


def _shown_as(column: str, values: Float[np.ndarray, " P"]) -> Float[np.ndarray, " P"]:
    """Numbers of a column as the figure has them: shares in percent, non-zeros for zeros."""
    if column.startswith("sparsity"):
        return 100 * (1 - values)
    return 100 * values if _is_share(column) else values


def _read_run(path: Path) -> _Run:
    settings_file = path / "settings.json"
    if not (path / "metrics.csv").is_file():
        raise InputError(f"{path}: expected the folder of a training run, found no metrics.csv")
    try:
        settings = read_json_as(settings_file, _Settings)
    except InputError as error:
        raise InputError(f"{settings_file}: not the recipe of a training run: {error}") from None
    metrics = _read_columns(path / "metrics.csv", ("step", "loss", "seconds"))
    probes = path / "probes.csv"
    return _Run(
        path.resolve(),
        settings,
        metrics,
        _read_columns(probes, ("step",)) if probes.is_file() else {"step": np.empty(0)},
    )


def _read_columns(path: Path, everywhere: Sequence[str]) -> Columns:
    """The columns of a CSV file; an empty cell and `nan` say that nothing was measured.

    Args:
        path: The file.
        everywhere: Columns that must have a number in each row; the first one ascends.
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


def _start_of(
    run: _Run, by_folder: dict[Path, _Run], unit: Spent, after: tuple[Path, ...]
) -> float:
    """What was spent on the initial weights of a run, by the runs that are given."""
    before = run.initial_folder and by_folder.get(run.initial_folder)
    if not before:
        return 0.0
    if before.folder in (run.folder, *after):
        raise InputError(f"{run.folder}: its initial weights come from itself, {before.folder}")
    own = before.spent(before.metrics["step"][-1:], unit)[0]
    return float(own) + _start_of(before, by_folder, unit, (*after, run.folder))


def _unit_of(spent: Spent, largest: float) -> tuple[float, str]:
    """What to divide x by, and the label of its axis."""
    if spent != "seconds":
        return 1, {"steps": "updates", "pictures": "images seen"}[spent]
    unit, name = next((unit, name) for least, unit, name in _TIMES if largest >= least)
    return unit, f"training time ({name})"


def _names_of(
    runs: Sequence[_Run], paths: Sequence[Path], by_folder: dict[Path, _Run]
) -> list[str]:
    """Legend of each run: its folder, its model and sizes, and the run it goes on from."""
    folders = [run.folder.name for run in runs]
    if len(set(folders)) < len(folders):
        folders = [str(path) for path in paths]
    own = {run.folder: folder for run, folder in zip(runs, folders, strict=True)}
    names = []
    for run, folder in zip(runs, folders, strict=True):
        settings = run.settings
        sizes = [
            f"{shorten(key)} {shorten(value)}".replace("'", "")
            for key, value in settings.model_args.items()
        ]
        if settings.image_size is not None:
            sizes.append(f"{settings.image_size} px")
        name = f"{folder}: {', '.join([shorten(settings.model)[1:-1], *sizes])}"
        if run.initial_folder in by_folder:
            name += f", from {own[run.initial_folder]}"
        names.append(name)
    return names


def _probe_panels(probes: Sequence[Columns]) -> dict[str, list[str]]:
    """Columns of each panel by its title: numbered ones, of the blocks, are drawn together."""
    panels: dict[str, list[str]] = {}
    for column in dict.fromkeys(name for columns in probes for name in columns):
        if column == "step":
            continue
        numbered = re.fullmatch(r"(.+)_\d+", column)
        words = (numbered[1] if numbered else column).split("_")
        title = " ".join(_SPELLING.get(word, word) for word in words)
        if words == ["sparsity"]:
            title = "codes that are not zero"
        if _is_share(column):
            title += " (%)"
        elif words == ["coding", "rate"]:
            title += " (nats)"
        if numbered:
            title += ", by block (first: pale)"
        panels.setdefault(title, []).append(column)
    return panels
