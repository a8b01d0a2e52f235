"""Outputs of a run's numbers: metrics.csv, probes.csv, TensorBoard and Weights & Biases.

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from crate_interp.errors import InputError, shorten
from crate_interp.files import read_bytes, write_whole
from crate_interp.training.checkpoints import TrainingState, training_record, write_weights
from crate_interp.training.metrics import Metrics, MetricsFile, is_due
from crate_interp.training.objective import Objective
from crate_interp.training.probe import Probe
from crate_interp.training.probe_columns import column_of
from crate_interp.training.recipe import Recipe

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

__all__ = ["RunLog", "open_trackers"]

_logger = logging.getLogger(__name__)


@contextmanager
def open_trackers(
    folder: Path, recipe: Recipe, step: int, writes: bool
) -> Iterator[list[GeneralTracker]]:
    """Open the trackers that are installed, to go on after an update.

    Args:
        folder: Folder of the run.
        recipe: Settings of the run, for Weights & Biases.
        step: Number of finished updates; TensorBoard forgets what it has of later ones.
        writes: Whether this process is the one that writes.
    """
    trackers = list(_start_trackers(folder, recipe, step)) if writes else []
    try:
        yield trackers
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
    """Writes the lines of a run that are due, and the weights that its probes find best.

    All processes make one, and one of them writes. Training goes on as if nothing had been probed.

    Args:
        folder: Folder of the run; lines that its files have of later updates are dropped.
        objective: Objective of the run; its recipe says how often.
        state: State of the run; an untrained model is probed at once.
        updates: Number of updates of the whole run.
        trackers: Trackers that get every line.
        writes: Whether this process is the one that writes.

    Raises:
        InputError: A file of the run is damaged, or the recipe's probes cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        objective: Objective,
        state: TrainingState,
        updates: int,
        trackers: Sequence[GeneralTracker],
        writes: bool,
    ) -> None:
        recipe = self._recipe = objective.recipe
        self._folder, self._objective, self._state = folder, objective, state
        self._updates, self._trackers = updates, trackers
        self._file = MetricsFile(folder / "metrics.csv", state.step) if writes else None
        self._probe: Probe | None = None
        if recipe.probe_every and state.step < updates:
            if writes:
                self._open_probe(folder / "probes.csv")
            if state.step == 0:
                self._measure_probe({})

    def write(self, metrics: Metrics) -> None:
        """Write the metrics of the last update, and probe the weights, if either is due."""
        recipe, step = self._recipe, metrics.step
        scores = {"accuracy": metrics.accuracy, "validation_loss": metrics.validation_loss}
        measured = {name: value for name, value in scores.items() if value is not None}
        if measured or is_due(step, recipe.log_every, self._updates):
            line = dataclasses.asdict(metrics)
            self._send(line)
            if self._file is not None:
                self._file.append(line)
        if recipe.probe_every and is_due(step, recipe.probe_every, self._updates):
            self._measure_probe(measured)

    def _open_probe(self, path: Path) -> None:
        state = self._state
        whole = state.model if state.unsharded is None else state.unsharded
        self._probe = Probe(self._recipe, self._objective.backbone(whole))
        # Without a checkpoint nothing is kept: the untrained model is measured again.
        self._probes = MetricsFile(path, state.step or -1)
        if not self._probe.has_attention:
            _logger.warning("%s: the model has no class token, no attention is measured", path)

    def _measure_probe(self, measured: Mapping[str, float]) -> None:
        model = self._state.evaluated()  # by all processes: it may have to be gathered
        if self._probe is None:
            return
        numbers = self._probe.measure(self._objective.backbone(model))
        self._state.model.train()
        self._probes.append({"step": self._state.step, **numbers})
        self._send(numbers)
        if self._recipe.keep_best is not None:
            self._keep_best(self._recipe.keep_best, model, numbers, measured)

    def _keep_best(
        self,
        name: str,
        model: nn.Module,
        numbers: Mapping[str, float],
        measured: Mapping[str, float],
    ) -> None:
        state = self._state
        names = [column for column in numbers if column_of(column).layer is None]
        if name not in names:
            raise InputError(f"keep_best: expected one of {', '.join(names)}, found {name}")
        if state.best is None or numbers[name] > state.best:
            state.best = numbers[name]
            measured = {**measured, name: state.best}
            data = self._objective.data
            record = training_record(self._recipe, data, state.step, state.seconds, measured)
            write_weights(self._folder / "best.safetensors", self._objective, model, record)

    def _send(self, line: Mapping[str, float | None]) -> None:
        """Send what was measured to the trackers; the step is their axis."""
        values = {key: v for key, v in line.items() if v is not None and key != "step"}
        for tracker in self._trackers:
            tracker.log(values, step=self._state.step)
