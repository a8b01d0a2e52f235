"""Where the numbers of a run go: metrics.csv, probes.csv, TensorBoard and Weights & Biases.

TensorBoard's files lie in the run's folder, `tensorboard/`, if it is installed. Weights & Biases
sends to a server, so it is used only where the user has named a project, in the environment
variable WANDB_PROJECT. Both are accelerate's trackers.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from crate_interp.errors import InputError, shorten
from crate_interp.files import read_bytes, write_whole
from crate_interp.training.checkpoints import TrainingState
from crate_interp.training.metrics import Metrics, MetricsFile, is_due
from crate_interp.training.objective import Objective
from crate_interp.training.probe import Probe
from crate_interp.training.recipe import Recipe

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

__all__ = ["RunLog", "Trackers", "open_log", "open_trackers"]

_logger = logging.getLogger(__name__)


class Trackers:
    """The trackers of a run, none or several of accelerate's; made by `open_trackers`."""

    def __init__(self, trackers: list[GeneralTracker]) -> None:
        self._trackers = trackers

    def log(self, metrics: Mapping[str, float | None], step: int) -> None:
        """Send the metrics of an update; what was not measured, `None`, is left out.

        Args:
            metrics: Values by name; `step`, the axis, is left out, too.
            step: Number of finished updates.
        """
        values = {key: value for key, value in metrics.items() if value is not None}
        values.pop("step", None)
        for tracker in self._trackers:
            tracker.log(values, step=step)


@contextmanager
def open_trackers(folder: Path, recipe: Recipe, step: int, writes: bool) -> Iterator[Trackers]:
    """Open the trackers that are installed, to go on after an update.

    Args:
        folder: Folder of the run.
        recipe: Settings of the run, for Weights & Biases.
        step: Number of finished updates; TensorBoard forgets what it has of later ones.
        writes: Whether this process is the one that writes.
    """
    trackers = list(_start_trackers(folder, recipe, step)) if writes else []
    try:
        yield Trackers(trackers)
    finally:
        for tracker in trackers:
            tracker.finish()


def _start_trackers(folder: Path, recipe: Recipe, step: int) -> Iterator[GeneralTracker]:
    from accelerate.tracking import TensorBoardTracker, WandBTracker

    if importlib.util.find_spec("tensorboard") is not None:
        board = TensorBoardTracker("tensorboard", folder, purge_step=step + 1)
        board.start()
        yield board
    project = os.environ.get("WANDB_PROJECT")
    if not project:
        return
    run = {"id": _run_id_in(folder / "wandb_run_id"), "name": folder.resolve().name}
    settings = {"config": dataclasses.asdict(recipe), "dir": str(folder), "resume": "allow"}
    wandb = WandBTracker(project, **run, **settings)
    try:
        wandb.start()
    except ImportError:
        _logger.warning("WANDB_PROJECT is set, but wandb is not installed: nothing is sent")
    else:
        yield wandb


def _run_id_in(path: Path) -> str:
    """Give the name of a run, kept in a file, so that a run that goes on is the same run there."""
    if not path.exists():
        with write_whole(path, "w") as file:
            file.write(uuid.uuid4().hex)
    content = read_bytes(path)
    if not re.fullmatch(rb"[0-9a-f]{32}", content):
        raise InputError(f"{path}: expected 32 hexadecimal digits, found {shorten(content)}")
    return content.decode()


class RunLog:
    """Writes those lines of a run that are due; made by `open_log`.

    Args:
        objective: Gives the recipe, which says how often.
        state: State of the run.
        updates: Number of updates of the whole run.
        trackers: Hear of every line.
        files: metrics.csv and the probe with its file; `None` where another process writes, or
            where nothing is probed.
    """

    def __init__(
        self,
        objective: Objective,
        state: TrainingState,
        updates: int,
        trackers: Trackers,
        files: tuple[MetricsFile | None, Probe | None],
    ) -> None:
        self._recipe, self._state, self._updates = objective.recipe, state, updates
        self._trackers = trackers
        self._metrics_file, self._probe = files

    def write(self, metrics: Metrics) -> None:
        """Write the metrics of the last update, and probe the weights, if either is due."""
        measured = metrics.accuracy is not None or metrics.validation_loss is not None
        if measured or is_due(metrics.step, self._recipe.log_every, self._updates):
            line = dataclasses.asdict(metrics)
            self._trackers.log(line, metrics.step)
            if self._metrics_file is not None:
                self._metrics_file.append(line)
        every = self._recipe.probe_every
        if every and is_due(metrics.step, every, self._updates):
            self.probe()

    def probe(self) -> None:
        """Probe the weights; all processes must call, as they may have to be gathered."""
        model = self._state.evaluated()
        if self._probe is not None:
            self._trackers.log(self._probe.measure(model), self._state.step)


@contextmanager
def open_log(
    folder: Path, objective: Objective, state: TrainingState, updates: int, writes: bool
) -> Iterator[RunLog]:
    """Open metrics.csv, probes.csv and the trackers; the untrained model is probed at once.

    Args:
        folder: Folder of the run.
        objective: Gives the recipe.
        state: State of the run; lines of later updates are dropped.
        updates: Number of updates of the whole run.
        writes: Whether this process is the one that writes; all of them must call.
    """
    recipe, probe = objective.recipe, None
    metrics_file = MetricsFile(folder / "metrics.csv", state.step) if writes else None
    probes = recipe.probe_every > 0 and state.step < updates
    if probes and writes:
        probe = Probe(objective, folder / "probes.csv", state)
    with open_trackers(folder, recipe, state.step, writes) as trackers:
        log = RunLog(objective, state, updates, trackers, (metrics_file, probe))
        if probes and state.step == 0:
            log.probe()
        yield log
