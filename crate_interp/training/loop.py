"""The training loop: one process, or several that `torchrun` or `accelerate launch` started."""

from __future__ import annotations

import copy
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.models.float64 import float64_device
from crate_interp.training.batches import batches_of, seed_generators
from crate_interp.training.checkpoints import (
    TrainingState,
    export_weights,
    load_latest,
    save_checkpoint,
)
from crate_interp.training.data import TrainingData, open_data
from crate_interp.training.metrics import Metrics, MetricsFile
from crate_interp.training.objectives import Objective, build_objective
from crate_interp.training.probe import Probe
from crate_interp.training.recipe import Recipe
from crate_interp.training.setup import (
    backbone_of,
    build_model,
    build_optimizer,
    build_schedule,
    set_patch_drop,
    updates_of,
)
from crate_interp.training.sharding import shard, whole
from crate_interp.training.trackers import Trackers, open_trackers

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["TrainingResult", "train"]


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Attributes:
        step: Finished updates.
        finished: Whether these are all; otherwise the run was asked to stop.
        accuracy: Of the exported weights, if measured.
        validation_loss: Of the exported weights, if measured.
    """

    step: int
    finished: bool
    accuracy: float | None = None
    validation_loss: float | None = None


def train(
    recipe: Recipe, folder: Path, report: Callable[[Metrics, int], None] = lambda *_: None
) -> TrainingResult:
    """Train a model by a recipe, or go on with a run that stopped.

    Writes `checkpoints/` (to go on from), `metrics.csv`, `probes.csv` if the recipe asks for it,
    `best.safetensors` (the best on validation so far) and, at the end, `model.safetensors`. SIGTERM
    ends the run after a last checkpoint.

    Args:
        recipe: What to do.
        folder: Where to; it exists.
        report: Called after every update with its metrics and the number of all updates.

    Raises:
        InputError: The recipe asks for what is not there, an image cannot be read, or the loss is
            no longer a finite number; the last checkpoint stays as it was.
    """
    accelerator = _accelerator()
    device, processes = accelerator.device, accelerator.num_processes
    sharded = recipe.sharding == "fsdp" and processes > 1
    if sharded and recipe.precision == "float16":
        raise InputError("sharding fsdp: expected precision bfloat16 or float32, found float16")
    if recipe.precision == "float16" and device.type != "cuda":
        raise InputError(f"precision float16: expected a GPU, found {device.type}; try bfloat16")
    if recipe.batch_size % (recipe.accumulation * processes):
        raise InputError(
            f"batch_size: expected a multiple of {recipe.accumulation} accumulation steps x "
            f"{processes} processes, found {recipe.batch_size}"
        )
    downloads = bool(recipe.data_args.get("download"))
    with accelerator.main_process_first() if downloads else nullcontext():
        data = open_data(recipe)
    seed_generators(recipe.seed)
    network = build_model(recipe, data.num_classes).to(device)
    objective = build_objective(recipe, network, data.num_classes)
    config: Any = backbone_of(network).pretrained_cfg
    normalisation = (tuple(config["mean"]), tuple(config["std"]))
    ema = recipe.ema_decay and ModelEmaV3(network, decay=recipe.ema_decay, use_warmup=True)
    unsharded = None
    if sharded:
        unsharded = copy.deepcopy(network).cpu()
        for part in (network, ema.module) if ema else (network,):
            shard(part, device, processes)
    optimizer = build_optimizer(recipe, network)
    updates, warmup = updates_of(recipe, len(data.training))
    schedule = build_schedule(recipe, optimizer, updates, warmup)
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
    state = TrainingState(network, optimizer, scaler, ema or None, unsharded, data.training.classes)
    load_latest(folder / "checkpoints", state, accelerator.is_main_process)
    model = network if sharded else accelerator.prepare_model(network)
    # Of the network itself only the step is compiled: its names stay, and hooks on it are seen.
    forward: Any = torch.compile(model) if recipe.compile else model

    process = (accelerator.process_index, processes)
    remaining = range(state.step, updates)
    batches = batches_of(
        recipe, data.training, normalisation, process, remaining, objective.target_of
    )
    writes = accelerator.is_main_process
    metrics_file, probe = None, None
    if writes:
        metrics_file = MetricsFile(folder / "metrics.csv", state.step)
        if recipe.probe_every and remaining:
            probe = Probe(recipe, folder / "probes.csv", state)
    started = time.monotonic() - state.seconds
    measured: dict[str, float] = {}

    with (
        _stop_request() as stop,
        open_trackers(folder, recipe, state.step, writes) as trackers,
    ):
        if recipe.probe_every and remaining and state.step == 0:
            _measure(probe, state, trackers)
        for step in remaining:
            schedule.step_update(step)
            set_patch_drop(backbone_of(network), recipe.at(step, updates).patch_drop)
            rate = max(group["lr"] for group in optimizer.param_groups)
            loss = torch.zeros((), device=device)
            for part in range(recipe.accumulation):
                images, targets = (tensor.to(device, non_blocking=True) for tensor in next(batches))
                seed_generators(recipe.seed, step, part, process[0], 1)  # mixing, drop path
                last = part == recipe.accumulation - 1
                with nullcontext() if last else accelerator.no_sync(model):
                    with _autocast(recipe, device):
                        part_loss = objective.loss(forward, images, targets) / recipe.accumulation
                    scaler.scale(part_loss).backward()
                loss += part_loss.detach()
            scaler.unscale_(optimizer)
            norm = torch.nn.utils.clip_grad_norm_(
                network.parameters(), recipe.clip_norm or math.inf
            )
            told: Any = accelerator.reduce(torch.stack([loss, torch.full_like(loss, len(stop))]))
            numbers = _Numbers(torch.cat([told, whole(norm).view(1)]))
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            if state.ema is not None:
                state.ema.update(network, step=step + 1)
            # Only now, so that a GPU has work to do while the next update is sent to it. Nothing
            # of an update is told or written before its numbers are known to be finite.
            total_loss, stops, gradient_norm = numbers.read()
            mean_loss, stopping = total_loss / processes, stops > 0
            _refuse_infinite(mean_loss, gradient_norm, recipe, step, rate)

            state.step, state.seconds = step + 1, time.monotonic() - started
            stopping = stopping and state.step < updates
            measured = {}
            if _due(state.step, recipe.evaluate_every, updates):
                measured = _validate(recipe, data, normalisation, objective, state, accelerator)
            score = measured.get(objective.measure)
            if score is not None and (state.best is None or objective.improves(score, state.best)):
                state.best = score
                export_weights(folder / "best.safetensors", recipe, state, measured, writes)
            metrics = Metrics(
                step=state.step,
                loss=mean_loss,
                learning_rate=rate,
                gradient_norm=gradient_norm,
                accuracy=measured.get("accuracy"),
                seconds=state.seconds,
                validation_loss=measured.get("validation_loss"),
            )
            if measured or _due(state.step, recipe.log_every, updates):
                trackers.log(asdict(metrics), state.step)
                if metrics_file is not None:
                    metrics_file.append(asdict(metrics))
            if recipe.probe_every and _due(state.step, recipe.probe_every, updates):
                _measure(probe, state, trackers)
            report(metrics, updates)
            if stopping or _due(state.step, recipe.save_every, updates):
                save_checkpoint(folder / "checkpoints", state, recipe.keep, writes)
            if stopping:
                return TrainingResult(state.step, False, **measured)
    if not remaining:  # finished before; the export may not be
        measured = _validate(recipe, data, normalisation, objective, state, accelerator)
    export_weights(folder / "model.safetensors", recipe, state, measured, writes)
    accelerator.wait_for_everyone()
    return TrainingResult(state.step, True, **measured)


def _accelerator() -> Accelerator:
    try:
        from accelerate import Accelerator, DistributedType
    except ImportError as error:
        raise InputError("training needs accelerate: pip install 'crate-interp[train]'") from error
    # The loop casts and accumulates by itself: accelerate places the model and joins processes.
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no")
    kind = accelerator.distributed_type
    if kind in (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise InputError(
            f"accelerate launch: found {kind.value}; expected plain processes, without --use_fsdp "
            "and the like: the recipe's `sharding: fsdp` splits a model"
        )
    return accelerator


class _Numbers:
    """Numbers that a device has yet to compute, on their way to the host."""

    def __init__(self, numbers: Tensor) -> None:
        self._numbers = numbers.detach().to("cpu", non_blocking=True)
        self._copied = torch.cuda.Event() if numbers.is_cuda else None
        if self._copied is not None:
            self._copied.record()

    def read(self) -> list[float]:
        """Wait for them, and for nothing that was asked for later."""
        if self._copied is not None:
            self._copied.synchronize()
        found: list[float] = self._numbers.tolist()
        return found


def _autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    number_type = torch.float16 if recipe.precision == "float16" else torch.bfloat16
    return torch.autocast(device.type, number_type, enabled=recipe.precision != "float32")


def _due(step: int, every: int, updates: int) -> bool:
    return step == updates or (every > 0 and step % every == 0)


def _measure(probe: Probe | None, state: TrainingState, trackers: Trackers) -> None:
    model = state.evaluated()  # by all processes: it may have to be gathered
    if probe is not None:
        trackers.log(probe.measure(model), state.step)


def _refuse_infinite(loss: float, norm: float, recipe: Recipe, step: int, rate: float) -> None:
    # A float16 gradient may overflow: its scaler leaves the update out and goes on.
    if math.isfinite(loss) and (math.isfinite(norm) or recipe.precision == "float16"):
        return
    raise InputError(
        f"step {step}, learning rate {rate:.3g}: the loss is {loss}, the gradient's norm {norm}; "
        "expected finite numbers. The last checkpoint is kept; a lower learning_rate, a longer "
        "warm-up or clip_norm: 1 may help"
    )


def _validate(
    recipe: Recipe,
    data: TrainingData,
    normalisation: tuple[tuple[float, ...], tuple[float, ...]],
    objective: Objective,
    state: TrainingState,
    accelerator: Accelerator,
) -> dict[str, float]:
    """What the objective measures, by its name: the mean over images, over all processes.

    Without images for validation, nothing.
    """
    if data.validation is None:
        return {}
    model, device = state.evaluated().eval(), accelerator.device
    process = (accelerator.process_index, accelerator.num_processes)
    total = torch.zeros(2, dtype=torch.float64)
    with torch.inference_mode():
        for batch in batches_of(
            recipe, data.validation, normalisation, process, target_of=objective.target_of
        ):
            images, targets = (tensor.to(device) for tensor in batch)
            with _autocast(recipe, device):
                scores = objective.scores(model, images, targets).cpu()
            total += torch.tensor([scores.double().sum(), len(scores)])
    state.model.train()
    told: Any = accelerator.reduce(total.to(float64_device(device)))
    return {objective.measure: float(told[0] / told[1])}


@contextmanager
def _stop_request() -> Iterator[list[int]]:
    """A list that is filled when SIGTERM comes."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may listen
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)
