"""The training loop: one process, or several that `torchrun` or `accelerate launch` started."""

from __future__ import annotations

import copy
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from timm.utils import ModelEmaV3

from crate_interp.training.batches import seed_generators
from crate_interp.training.checkpoints import (
    TrainingState,
    export_weights,
    load_latest,
    save_checkpoint,
)
from crate_interp.training.data_records import keep_data_record
from crate_interp.training.metrics import Metrics, is_due
from crate_interp.training.milestones import Milestones
from crate_interp.training.objective import Objective
from crate_interp.training.objectives import find_objective
from crate_interp.training.recipe import Recipe
from crate_interp.training.setup import adapt_model, build_optimizer
from crate_interp.training.sharding import join_processes, shard
from crate_interp.training.sources import sources_of
from crate_interp.training.trackers import RunLog, open_trackers
from crate_interp.training.trainer import Trainer

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["TrainingResult", "train"]


@dataclass(frozen=True)
class TrainingResult:
    """End of a run.

    Attributes:
        step: Number of finished updates.
        finished: Whether these are all; otherwise the run was asked to stop.
        accuracy: Accuracy of the exported weights, if measured.
        validation_loss: Validation loss of the exported weights, if measured.
    """

    step: int
    finished: bool
    accuracy: float | None = None
    validation_loss: float | None = None


def train(
    recipe: Recipe, folder: Path, report: Callable[[Metrics, int], None] = lambda *_: None
) -> TrainingResult:
    """Train a model by a recipe, or go on with a run that stopped.

    Writes `checkpoints/` (to go on from), `data.json` (which pictures), `metrics.csv`, `probes.csv`
    and `milestones/` if the recipe asks for them, `best.safetensors` (the best so far on
    validation, or by a probe) and, at the end, `model.safetensors`. SIGTERM and Ctrl-C end the run
    after a last checkpoint; a second Ctrl-C ends it at once.

    Args:
        recipe: Settings of the run.
        folder: Folder of the run; it exists.
        report: Called after every update with its metrics and the number of all updates.

    Raises:
        InputError: The recipe asks for what is not there, the run had other data, an image cannot
            be read, or the loss is no longer a finite number; the last checkpoint stays as it was.
        KeyboardInterrupt: Ctrl-C was pressed; the last checkpoint holds all finished updates.
    """
    accelerator = join_processes(recipe)
    writes, downloads = accelerator.is_main_process, _downloads(recipe)
    with accelerator.main_process_first() if downloads else nullcontext():
        objective = find_objective(recipe)(recipe)
    state = _initial_state(objective, accelerator)
    load_latest(folder / "checkpoints", state, writes)
    if writes:
        keep_data_record(folder, objective, state.step)
    trainer = Trainer(objective, state, accelerator)
    updates = trainer.updates
    measured: dict[str, Any] = {}
    if state.step >= updates:  # the export may be missing all the same
        measured = trainer.validate()
    with (
        _stop_request() as stop,
        open_trackers(folder, recipe, state.step, writes) as trackers,
    ):
        log = RunLog(folder, objective, state, updates, trackers, writes)
        milestones = Milestones(folder, objective, state, updates, writes)
        while state.step < updates:
            metrics, stopping = trainer.update(stop)
            evaluates = is_due(state.step, recipe.evaluate_every, updates)
            measured = trainer.validate() if evaluates else {}
            score = None if recipe.keep_best else measured.get(objective.measure)
            if score is not None and objective.improves(score, state.best):
                state.best = score
                export_weights(folder / "best.safetensors", objective, state, measured, writes)
            metrics = replace(metrics, **measured)
            log.write(metrics)
            milestones.write(measured)
            report(metrics, updates)
            if stopping or is_due(state.step, recipe.save_every, updates):
                save_checkpoint(folder / "checkpoints", state, recipe.keep, writes)
            if stopping:
                accelerator.wait_for_everyone()  # none goes on before the checkpoint is there
                if signal.SIGINT in stop:
                    raise KeyboardInterrupt
                return TrainingResult(state.step, False, **measured)
    export_weights(folder / "model.safetensors", objective, state, measured, writes)
    accelerator.wait_for_everyone()
    return TrainingResult(state.step, True, **measured)


def _downloads(recipe: Recipe) -> bool:
    return any((source.data_args or {}).get("download") for source in sources_of(recipe))


def _initial_state(objective: Objective, accelerator: Accelerator) -> TrainingState:
    """Make model, average and optimizer, in pieces if the recipe shards them."""
    recipe, device, processes = objective.recipe, accelerator.device, accelerator.num_processes
    seed_generators(recipe.seed)
    network = objective.build_model().train().to(device)
    adapt_model(network, recipe)
    ema = recipe.ema_decay and ModelEmaV3(network, decay=recipe.ema_decay, use_warmup=True)
    unsharded = None
    if recipe.sharding == "fsdp" and processes > 1:
        unsharded = copy.deepcopy(network).cpu()
        for part in (network, ema.module) if ema else (network,):
            shard(part, device, processes)
    optimizer = build_optimizer(recipe, network)
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
    return TrainingState(network, optimizer, scaler, ema or None, unsharded)


@contextmanager
def _stop_request() -> Iterator[list[int]]:
    """A list that SIGTERM and Ctrl-C are put into when they come."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may listen
        return

    def receive(number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and number in received:
            raise KeyboardInterrupt  # whoever presses it twice does not want to wait
        received.append(number)

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, receive) for number in numbers]
    try:
        yield received
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
