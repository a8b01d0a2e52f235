"""Loss, accuracy and probes of several training runs in one figure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from crate_interp import training, visualization
from crate_interp.errors import InputError, shorten
from crate_interp.options import option
from crate_interp.options.choices import Spent
from crate_interp.runs.command import Command
from crate_interp.runs.options import FigureOptions

if TYPE_CHECKING:
    from jaxtyping import Float

    from crate_interp.training import Columns, RecordedRun
    from crate_interp.visualization import Curve

__all__ = ["Curves"]

_TIMES = ((2 * 3600, 3600, "hours"), (120, 60, "minutes"), (0, 1, "seconds"))  # from, unit, name

_SHARES = {"accuracy", "attention", "sparsity", "ap", "ap50", "ap75"}
_SPELLING = {"miou": "mIoU", "ap": "AP", "ap50": "AP50", "ap75": "AP75"}


@dataclass(frozen=True, kw_only=True)
class Curves(Command, FigureOptions):
    """Draw loss, accuracy and probes of training runs."""

    group: ClassVar[str] = "train"

    runs: list[Path] = option("run folders of `train`", positional=True, several=Path)
    output: Path = option("the figure, NAME.png", Path("curves.png"), presentation=True)
    x: Spent = option(
        "what a run has spent; a run whose initial weights come from another run of the figure "
        "starts where that one ends",
        "steps",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output.suffix.lower() != ".png":
            raise InputError(f"output: expected a file name ending in .png, found {self.output}")

    def run(self) -> int:
        """Draw the runs and write the figure.

        Raises:
            InputError: A folder is not that of a training run, or a file of it cannot be read.
        """
        from crate_interp.runs.figure_files import save_figure

        runs = [training.read_run(path) for path in self.runs]
        if len({run.folder for run in runs}) < len(runs):
            raise InputError(f"runs: expected each once, found {' '.join(map(str, self.runs))}")
        by_folder = {run.folder: run for run in runs}
        starts = [training.spent_before(run, by_folder, self.x) for run in runs]
        ends = [start + run.total(self.x) for run, start in zip(runs, starts, strict=True)]
        divisor, x_label = _unit_of(self.x, max(ends))
        names = _names_of(runs, self.runs, by_folder)

        def curves_of(tables: Sequence[Columns], columns: Sequence[str]) -> list[Curve]:
            curves = []
            for run, name, start, table in zip(runs, names, starts, tables, strict=True):
                lines = [_shown_as(column, table[column]) for column in columns if column in table]
                if lines and np.isfinite(lines).any():
                    x = (start + run.spent(table["step"], self.x)) / divisor
                    curves.append(visualization.Curve(name, x, np.stack(lines, axis=1)))
            return curves

        panel = visualization.CurvePanel
        metrics, probes = [run.metrics for run in runs], [run.probes for run in runs]
        panels = [
            panel("training loss", curves_of(metrics, ["loss"]), smooth=True),
            panel("validation loss", curves_of(metrics, ["validation_loss"])),
            panel("validation accuracy (%)", curves_of(metrics, ["accuracy"])),
        ]
        for title, columns in _probe_panels(probes).items():
            panels.append(panel(title, curves_of(probes, columns)))
        drawn = [panel for panel in panels if panel.curves]
        figure = visualization.draw_curves(drawn, x_label, width=self.width_inches)
        print(*save_figure(figure, self.output, self), sep="\n")
        return 0


def _is_share(column: str) -> bool:
    """Whether a column has shares of 1, which are drawn in percent."""
    return not _SHARES.isdisjoint(column.split("_"))


def _shown_as(column: str, values: Float[np.ndarray, " P"]) -> Float[np.ndarray, " P"]:
    """Numbers of a column as the figure has them: shares in percent, non-zeros for zeros."""
    if column.startswith("sparsity"):
        return 100 * (1 - values)
    return 100 * values if _is_share(column) else values


def _unit_of(spent: Spent, largest: float) -> tuple[float, str]:
    """Number to divide x by, and the label of its axis."""
    if spent != "seconds":
        return 1, {"steps": "updates", "pictures": "images seen"}[spent]
    unit, name = next((unit, name) for least, unit, name in _TIMES if largest >= least)
    return unit, f"training time ({name})"


def _names_of(
    runs: Sequence[RecordedRun], paths: Sequence[Path], by_folder: dict[Path, RecordedRun]
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
