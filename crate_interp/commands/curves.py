"""Loss, accuracy and probes of several training runs in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from crate_interp import training, visualization
from crate_interp.commands.training_numbers import ShownNumber, choose_numbers, shown_values
from crate_interp.errors import InputError, shorten
from crate_interp.options import option
from crate_interp.options.choices import Spent
from crate_interp.runs.command import Command
from crate_interp.runs.options import FigureOptions

if TYPE_CHECKING:
    from crate_interp.training import RecordedRun
    from crate_interp.visualization import Curve

__all__ = ["Curves"]

_TIMES = ((2 * 3600, 3600, "hours"), (120, 60, "minutes"), (0, 1, "seconds"))  # from, unit, name


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
    numbers: list[str] | None = option(
        "numbers to draw, in this order: loss, validation_loss, accuracy, and columns of "
        "probes.csv, such as tokencut_iou or tokencut_iou_224px_block-2 (default: all, each at the "
        "first of its sizes and blocks)",
        None,
        several=str,
    )
    names: list[str] | None = option(
        "names in the legend, one of each run (default: folder, model and sizes)", None, several=str
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.names is not None and len(self.names) != len(self.runs):
            raise InputError(
                f"names: expected {len(self.runs)}, one of each run, found {len(self.names)}"
            )
        for option_name, given in (("names", self.names), ("numbers", self.numbers)):
            if given is not None and len(set(given)) < len(given):
                raise InputError(f"{option_name}: expected each once, found {' '.join(given)}")
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
        names = self.names or _names_of(runs, self.runs, by_folder)

        def curves_of(number: ShownNumber) -> list[Curve]:
            curves = []
            for run, name, start in zip(runs, names, starts, strict=True):
                table = run.probes if number.is_probe else run.metrics
                columns = [column for column in number.columns if column in table]
                lines = [shown_values(column, table[column]) for column in columns]
                if lines and np.isfinite(lines).any():
                    x = (start + run.spent(table["step"], self.x)) / divisor
                    curves.append(visualization.Curve(name, x, np.stack(lines, axis=1)))
            return curves

        panels = [
            visualization.CurvePanel(
                f"{number.title}, by block (first: pale)" if number.by_block else number.title,
                curves_of(number),
                number.columns == ["loss"],
            )
            for number in choose_numbers([run.probes for run in runs], self.numbers)
        ]
        drawn = [panel for panel in panels if panel.curves]
        if self.numbers and len(drawn) < len(panels):
            missing = next(panel.title for panel in panels if not panel.curves)
            raise InputError(f"numbers: expected what a run has measured, found {missing}")
        figure = visualization.draw_curves(drawn, x_label, width=self.width_inches)
        print(*save_figure(figure, self.output, self), sep="\n")
        return 0


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
