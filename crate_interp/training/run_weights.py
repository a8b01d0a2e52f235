"""Weights that a run folder holds of some updates: milestones, and checkpoints to go on from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import nn

from crate_interp.errors import InputError
from crate_interp.files import is_file, read_table
from crate_interp.models.backbones import Backbone
from crate_interp.training.batches import seed_generators
from crate_interp.training.checkpoint_files import is_checkpoint_name, list_checkpoints
from crate_interp.training.checkpoints import load_weights, training_record, write_weights
from crate_interp.training.data_records import data_root_of
from crate_interp.training.milestones import list_milestones
from crate_interp.training.objective import Objective
from crate_interp.training.objectives import find_objective
from crate_interp.training.recipe import Recipe
from crate_interp.training.recipe_files import read_recipe
from crate_interp.weights import load_backbone, weights_checksum

__all__ = ["RunWeights", "export_checkpoint", "is_run_checkpoint", "read_run_recipe"]


def read_run_recipe(run: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read the recipe of a training run from its folder.

    Keys that do not change the weights are not recorded there and have their defaults, but for
    `data_root`.

    Args:
        run: Folder of the run.
        changes: As for `read_recipe`.

    Raises:
        InputError: There is no such run, or as `read_recipe`.
    """
    settings = run / "settings.json"
    if not is_file(settings):
        raise InputError(f"{run}: expected the folder of a training run, found no settings.json")
    return read_recipe(settings, (*data_root_of(run), *changes))


@dataclass(frozen=True)
class RunWeights:
    """Evaluated weights of a run, after each update that has a milestone or a checkpoint.

    Args:
        run: Folder of the run.
        recipe: Settings of the run.
    """

    run: Path
    recipe: Recipe

    def steps(self) -> list[int]:
        """Numbers of finished updates, ascending; with checkpoints, 0 for the untrained model."""
        untrained = [0] if self._checkpoints else []
        return sorted({*untrained, *self._checkpoints, *list_milestones(self.run)})

    def load(self, step: int) -> Backbone:
        """Load the model as it was after an update, in evaluation mode, on the CPU.

        Args:
            step: One of `steps`.

        Raises:
            InputError: Checkpoints need the training data, whose classes decide the head, and they
                cannot be opened.
            CheckpointError: The file is damaged.
        """
        milestone = list_milestones(self.run).get(step)
        if milestone is not None:
            return load_backbone(milestone)
        objective, model = self._trained
        if step == 0:
            seed_generators(self.recipe.seed)
            untrained = find_objective(self.recipe)(self.recipe)
            return untrained.backbone(untrained.build_model()).eval()
        load_weights(self._checkpoints[step], model)
        return objective.backbone(model).eval()

    @property
    def _checkpoints(self) -> dict[int, Path]:
        files = list_checkpoints(self.run / "checkpoints")
        return {int(path.stem.removeprefix("step-")): path for path in files}

    @cached_property
    def _trained(self) -> tuple[Objective, nn.Module]:
        return _open_objective(self.recipe)


def is_run_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint in the folder of a training run, by its place."""
    return is_checkpoint_name(path.name) and is_file(_run_of(path) / "settings.json")


def export_checkpoint(path: Path, output: Path, raw: bool = False) -> nn.Module:
    """Write the weights of a checkpoint as the run would have exported them.

    Args:
        path: Checkpoint in the folder of its run.
        output: The safetensors file to write.
        raw: Take the weights themselves, where the checkpoint has their moving average as well.

    Returns:
        The exported part of the model that `load_backbone` reads.

    Raises:
        InputError: The run's recipe or its data cannot be read.
        CheckpointError: The checkpoint is damaged.
    """
    run = _run_of(path)
    recipe = read_run_recipe(run)
    objective, model = _open_objective(recipe)
    content = load_weights(path, model, raw)
    step, seconds = content["step"], content["seconds"]
    record = training_record(recipe, objective.data, step, seconds, _measured_at(run, step))
    record |= {
        "checkpoint": {"file": path.name, "sha256": weights_checksum(path)},
        "moving_average": content["ema"] is not None and not raw,
    }
    write_weights(output, objective, model, record)
    return objective.backbone(model)


def _run_of(checkpoint: Path) -> Path:
    return checkpoint.absolute().parent.parent


def _open_objective(recipe: Recipe) -> tuple[Objective, nn.Module]:
    """Make objective and model for weights to come; those it began with may no longer be there."""
    recipe = dataclasses.replace(recipe, initial_weights=None)
    objective = find_objective(recipe)(recipe)
    return objective, objective.build_model()


def _measured_at(run: Path, step: int) -> dict[str, float]:
    """Measures of validation after an update; empty where there were none."""
    file = run / "metrics.csv"
    names, rows = read_table(file) if is_file(file) else ([], [])
    row = next((row for row in rows if row.numbers[names.index("step")] == step), None)
    if row is None:
        return {}
    numbers = dict(zip(names, row.numbers, strict=True))
    measured = {name: numbers.get(name, math.nan) for name in ("accuracy", "validation_loss")}
    return {name: value for name, value in measured.items() if math.isfinite(value)}
