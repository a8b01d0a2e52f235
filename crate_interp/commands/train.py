"""Training by a recipe, to checkpoints, weights and metrics."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from crate_interp import models, training
from crate_interp.commands.training_page import training_page
from crate_interp.errors import InputError
from crate_interp.options import option
from crate_interp.options.pipelines import find_pipeline
from crate_interp.runs.command import Command
from crate_interp.runs.progress import progress_bar

if TYPE_CHECKING:
    from crate_interp.runs.finished_run import Comparable, FinishedRun
    from crate_interp.training import Metrics, Recipe, TrainingResult

__all__ = ["Train"]

# Keys that decide how a run goes about it, not what comes out.
_PRESENTATION = {"data_root", "workers", "log_every", "probe_every", "save_every", "keep"}
_PRESENTATION |= {"milestone_every", "sharding"}
_COMPARED = ("accuracy", "validation_loss", "loss")
_RECIPES = ("train", "pretrain", "finetune", "scale")  # how the names of recipes begin


@dataclass(frozen=True)
class Train(Command):
    """Train a model by a recipe; a stopped run goes on."""

    group: ClassVar[str] = "train"
    continues: ClassVar[bool] = True

    recipe: Path = option(
        "recipe: a YAML file, or the name of one that comes with the package, as train_demo",
        positional=True,
    )
    output: Path = option(
        "run folder: weights, checkpoints, metrics.csv, report.html", presentation=True
    )
    set: list[str] | None = option(
        "key=value: recipe keys to change, several of them if so", None, several=str
    )

    @classmethod
    def compared(cls, run: FinishedRun) -> Comparable:
        """Give accuracy, losses and probes, the last one of each that was measured."""
        from crate_interp.runs.finished_run import Comparable

        recorded = training.read_run(run.place)
        columns = {name: recorded.metrics[name] for name in _COMPARED if name in recorded.metrics}
        columns |= {name: values for name, values in recorded.probes.items() if name != "step"}
        known = {name: values[np.isfinite(values)] for name, values in columns.items()}
        metrics = {name: float(values[-1]) for name, values in known.items() if len(values)}
        return Comparable(metrics, percent=False)

    def run(self) -> int:
        """Train, or go on with a stopped run of the same recipe.

        Returns:
            0, or 143 if SIGTERM stopped it; the same command then goes on.

        Raises:
            KeyboardInterrupt: Ctrl-C stopped it; the same command then goes on.
        """
        from crate_interp.runs.run_folder import open_run_folder

        path = find_pipeline(self.recipe, _RECIPES, "recipe")
        recipe = training.read_recipe(path, self.set or ())
        _refuse_large_batches(recipe, path)
        settings = dataclasses.asdict(recipe)
        left_out = _PRESENTATION if recipe.probe_every else _PRESENTATION.union(training.PROBE_KEYS)
        if recipe.keep_best:  # one of the probes made decides
            left_out = left_out - {"probe_every"}
        settings = {name: value for name, value in settings.items() if name not in left_out}
        main = int(os.environ.get("RANK", "0")) == 0  # of the processes of torchrun
        opened = open_run_folder(self.output, settings) if main else nullcontext()
        measured: dict[str, str] = {}
        with (
            opened as folder,
            progress_bar(desc="train", unit="step", disable=not main) as progress,
        ):

            def report(metrics: Metrics, updates: int) -> None:
                measured.update(_measured(metrics))
                if progress.total is None:
                    progress.total = updates
                    progress.initial = progress.n = metrics.step - 1
                shown = {"loss": f"{metrics.loss:.3f}", "lr": f"{metrics.learning_rate:.1e}"}
                progress.set_postfix({**shown, **measured}, refresh=False)
                progress.update(metrics.step - progress.n)

            result = training.train(recipe, self.output, report)
            if folder is not None and (self.output / "metrics.csv").is_file():
                folder.write_file("report.html", training_page(self.output, result.finished))
        if not result.finished:
            if main:
                message = f"stopped after step {result.step}; the same command goes on"
                print(message, file=sys.stderr)
            return 128 + signal.SIGTERM
        if main:
            scores = "".join(f", {name} {value}" for name, value in _measured(result).items())
            print(f"{result.step} steps{scores}: {self.output / 'model.safetensors'}")
        return 0


def _refuse_large_batches(recipe: Recipe, path: Path) -> None:
    """Refuse pixels of one forward pass that the memory does not hold."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    pictures = math.ceil(recipe.batch_size / recipe.accumulation / processes)
    for part in (recipe, *recipe.staged):
        needed, there = pictures * 3 * part.image_size**2 * 4, models.usable_memory()
        if needed > there:
            raise InputError(
                f"{path}: batch_size, image_size: expected the pixels of a forward pass to fit "
                f"into the memory, {there / 1e9:.1f} GB, found {pictures} images of "
                f"{part.image_size} pixels a side, {needed / 1e9:.1f} GB; raise accumulation"
            )


def _measured(values: Metrics | TrainingResult) -> dict[str, str]:
    """Measures of validation, in words and digits."""
    scores = {"accuracy": values.accuracy, "validation loss": values.validation_loss}
    return {name: f"{value:.4f}" for name, value in scores.items() if value is not None}
