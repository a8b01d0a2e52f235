"""The command `train`: a recipe to checkpoints, weights and metrics."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path

from crate_interp.config import TrainConfig
from crate_interp.errors import InputError
from crate_interp.models.memory import usable_memory
from crate_interp.options.pipelines import find_pipeline
from crate_interp.runs.progress import progress_bar
from crate_interp.runs.run_folder import open_run_folder
from crate_interp.training import Metrics, Recipe, TrainingResult, read_recipe, train

__all__ = ["run"]

# Keys that decide how a run goes about it, not what comes out.
_PRESENTATION = {"data_root", "workers", "log_every", "probe_every", "save_every", "keep"}
_PRESENTATION |= {"sharding"}
_RECIPES = ("train", "pretrain", "finetune", "scale")  # how the names of recipes begin
_PROBES = {"probe_set", "probe_pictures", "probe_size"}


def run(config: TrainConfig) -> int:
    """Train, or go on with a stopped run of the same recipe.

    Returns:
        0, or 143 if SIGTERM stopped it; the same command then goes on.
    """
    path = find_pipeline(config.recipe, _RECIPES, "recipe")
    recipe = read_recipe(path, config.set or ())
    _refuse_large_batches(recipe, path)
    settings = dataclasses.asdict(recipe)
    left_out = _PRESENTATION if recipe.probe_every else _PRESENTATION | _PROBES
    settings = {name: value for name, value in settings.items() if name not in left_out}
    main = int(os.environ.get("RANK", "0")) == 0  # of the processes of torchrun
    opened = open_run_folder(config.output, settings) if main else nullcontext()
    measured: dict[str, str] = {}
    with (
        opened,
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

        result = train(recipe, config.output, report)
    if not result.finished:
        if main:
            print(f"stopped after step {result.step}; the same command goes on", file=sys.stderr)
        return 128 + signal.SIGTERM
    if main:
        found = "".join(f", {name} {value}" for name, value in _measured(result).items())
        print(f"{result.step} steps{found}: {config.output / 'model.safetensors'}")
    return 0


def _refuse_large_batches(recipe: Recipe, path: Path) -> None:
    """Refuse pixels of one forward pass that the memory does not hold."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    pictures = math.ceil(recipe.batch_size / recipe.accumulation / processes)
    for part in (recipe, *recipe.staged):
        needed, there = pictures * 3 * part.image_size**2 * 4, usable_memory()
        if needed > there:
            raise InputError(
                f"{path}: batch_size, image_size: expected the pixels of a forward pass to fit "
                f"into the memory, {there / 1e9:.1f} GB, found {pictures} images of "
                f"{part.image_size} pixels a side, {needed / 1e9:.1f} GB; raise accumulation"
            )


def _measured(values: Metrics | TrainingResult) -> dict[str, str]:
    """What validation measured, in words and digits."""
    found = {"accuracy": values.accuracy, "validation loss": values.validation_loss}
    return {name: f"{value:.4f}" for name, value in found.items() if value is not None}
