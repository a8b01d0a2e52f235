"""Passes through the model in training: updates, and the measure of validation images."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.models.float64 import float64_device
from crate_interp.training.batches import batches_of, seed_generators
from crate_interp.training.checkpoints import TrainingState
from crate_interp.training.metrics import Metrics
from crate_interp.training.objective import Objective
from crate_interp.training.setup import build_schedule, updates_of
from crate_interp.training.sharding import whole

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Trainer"]


class Trainer:
    """Updates the model of a state, and measures it on the validation images.

    Args:
        objective: Objective, with data, views, loss and measure.
        state: State to go on from; updates change its model, optimizer, scaler and average.
        accelerator: Accelerator, which has the device and joins the processes.

    Attributes:
        updates: Number of updates of the whole run.

    Raises:
        InputError: The warm-up is longer than the run.
    """

    def __init__(
        self, objective: Objective, state: TrainingState, accelerator: Accelerator
    ) -> None:
        self._started = time.monotonic() - state.seconds
        self._objective, self._state, self._accelerator = objective, state, accelerator
        recipe = self._recipe = objective.recipe
        self.updates, warmup = updates_of(recipe, len(objective.data.training))
        self._schedule = build_schedule(recipe, state.optimizer, self.updates, warmup)
        sharded = state.unsharded is not None
        self._model = state.model if sharded else accelerator.prepare_model(state.model)
        # Of the network itself only the step is compiled: its names stay, and hooks on it are seen.
        self._forward: Any = torch.compile(self._model) if recipe.compile else self._model
        self._process = (accelerator.process_index, accelerator.num_processes)
        self._normalisation = objective.normalisation(state.model)
        self._batches = batches_of(
            recipe,
            objective.data.training,
            self._normalisation,
            self._process,
            range(state.step, self.updates),
            objective.view,
        )

    def update(self, stop_requests: Sequence[int]) -> tuple[Metrics, bool]:
        """Make the next update; it counts, in `state.step`, once its numbers are finite.

        Args:
            stop_requests: Signals that asked this process to stop; filled while it works.

        Returns:
            What the update says over all processes, and whether to stop before the last update,
            as one of them was asked to.

        Raises:
            InputError: An image cannot be read, or loss or gradient are no finite numbers.
        """
        state, recipe = self._state, self._recipe
        step, optimizer, scaler = state.step, state.optimizer, state.scaler
        self._schedule.step_update(step)
        self._objective.enter_stage(state.model, recipe.at(step, self.updates))
        rate = max(group["lr"] for group in optimizer.param_groups)
        loss = self._accumulate_gradient(step)
        scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(
            state.model.parameters(), recipe.clip_norm or math.inf
        )
        stops = torch.full_like(loss, len(stop_requests))
        sums: Any = self._accelerator.reduce(torch.stack([loss, stops]))
        numbers = _Numbers(torch.cat([sums, whole(norm).view(1)]))
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if state.ema is not None:
            state.ema.update(state.model, step=step + 1)
        # Only now, so that a GPU has work to do while the next update is sent to it. Nothing
        # of an update is reported or written before its numbers are known to be finite.
        total_loss, stop_count, gradient_norm = numbers.read()
        mean_loss = total_loss / self._process[1]
        # A float16 gradient may overflow: its scaler leaves the update out and goes on.
        overflows = not math.isfinite(gradient_norm) and recipe.precision != "float16"
        if overflows or not math.isfinite(mean_loss):
            raise InputError(
                f"step {step}, learning rate {rate:.3g}: the loss is {mean_loss}, the gradient's "
                f"norm {gradient_norm}; expected finite numbers. The last checkpoint is kept; a "
                "lower learning_rate, a longer warm-up or clip_norm: 1 may help"
            )
        state.step, state.seconds = step + 1, time.monotonic() - self._started
        metrics = Metrics(state.step, mean_loss, rate, gradient_norm, None, state.seconds)
        return metrics, stop_count > 0 and state.step < self.updates

    def _accumulate_gradient(self, step: int) -> Tensor:
        """Pass the images of an update forth and back, and give their mean loss."""
        loss = torch.zeros((), device=self._accelerator.device)
        parts = self._recipe.accumulation
        for part in range(parts):
            images, targets = self._to_device(next(self._batches))
            seed_generators(self._recipe.seed, step, part, self._process[0], 1)  # mixing, drop path
            last = part == parts - 1
            with nullcontext() if last else self._accelerator.no_sync(self._model):
                with self._autocast():
                    part_loss = self._objective.loss(self._forward, images, targets) / parts
                self._state.scaler.scale(part_loss).backward()
            loss += part_loss.detach()
        return loss

    def validate(self) -> dict[str, float]:
        """Give the objective's measure by its name: the mean over images, over all processes.

        Without images for validation, nothing.
        """
        objective = self._objective
        if objective.data.validation is None:
            return {}
        model = self._state.evaluated().eval()
        total = torch.zeros(2, dtype=torch.float64)
        batches = batches_of(
            self._recipe,
            objective.data.validation,
            self._normalisation,
            self._process,
            view=objective.view,
        )
        with torch.inference_mode():
            for batch in batches:
                images, targets = self._to_device(batch)
                with self._autocast():
                    scores = objective.scores(model, images, targets).cpu()
                total += torch.tensor([scores.double().sum(), len(scores)])
        self._state.model.train()
        sums: Any = self._accelerator.reduce(total.to(float64_device(self._accelerator.device)))
        return {objective.measure: float(sums[0] / sums[1])}

    def _to_device(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(tensor.to(self._accelerator.device, non_blocking=True) for tensor in batch)

    def _autocast(self) -> torch.autocast:
        precision = self._recipe.precision
        number_type = torch.float16 if precision == "float16" else torch.bfloat16
        device = self._accelerator.device.type
        return torch.autocast(device, number_type, enabled=precision != "float32")


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
        numbers: list[float] = self._numbers.tolist()
        return numbers
