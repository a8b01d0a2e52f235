"""Checkpoints of a run, to go on from, and the weights that it exports.

A checkpoint holds the model, the optimizer, the moving average and the number of finished updates.
Learning rate, order of the images and every random choice follow from that number and the recipe.
"""

from __future__ import annotations

import copy
import json
import logging
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.utils import ModelEmaV3
from torch import nn

import crate_interp
from crate_interp.errors import CheckpointError
from crate_interp.files import remove_leftovers
from crate_interp.training.checkpoint_files import (
    Content,
    list_checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from crate_interp.training.data import TrainingData
from crate_interp.training.data_records import record_of_recipe
from crate_interp.training.objective import Objective
from crate_interp.training.recipe import Recipe
from crate_interp.training.sharding import gather, scatter
from crate_interp.weights import write_safetensors

__all__ = [
    "TrainingState",
    "export_weights",
    "load_latest",
    "load_weights",
    "save_checkpoint",
    "training_record",
    "write_weights",
]

_logger = logging.getLogger(__name__)


@dataclass
class TrainingState:
    """All of a run that changes from update to update.

    Attributes:
        model: The model, without the wrapper of several processes.
        optimizer: Optimizer of the model's parameters.
        scaler: Scales gradients of float16; does nothing for other types.
        ema: The moving average of the weights.
        unsharded: A whole model on the CPU, of any weights, if model and average are in pieces.
        step: Number of finished updates.
        best: Best score of validation so far, `None` before the first.
        seconds: Time spent on training, over all parts of the run.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: ModelEmaV3 | None
    unsharded: nn.Module | None = None
    step: int = 0
    best: float | None = None
    seconds: float = 0.0

    def evaluated(self) -> nn.Module:
        """Give the weights that count, whole: the moving average if there is one.

        Where they are in pieces, every process must call.
        """
        model: nn.Module = self.model if self.ema is None else self.ema.module
        if self.unsharded is None:
            return model
        whole = copy.deepcopy(self.unsharded)
        whole.load_state_dict(gather(model.state_dict()))
        return whole.to(next(model.parameters()).device)


def save_checkpoint(folder: Path, state: TrainingState, keep: int, writes: bool = True) -> Path:
    """Write a checkpoint, as a whole or not at all, then remove those before the last few.

    Args:
        folder: Folder of the checkpoints; made if missing.
        state: State to save.
        keep: Number of checkpoints that stay, this one included.
        writes: Whether this process is the one that writes; all of them must call.

    Raises:
        InputError: It cannot be written, for instance on a full disk, or the state has NaN or
            infinity in it; the older ones stay.
    """
    content: Content = {
        "model": gather(state.model.state_dict(), writes),
        "optimizer": gather(state.optimizer.state_dict(), writes),
        "scaler": state.scaler.state_dict(),
        "ema": None if state.ema is None else gather(state.ema.module.state_dict(), writes),
        "step": state.step,
        "best": state.best,
        "seconds": state.seconds,
    }
    path = folder / f"step-{state.step:08d}.pt"
    if not writes:
        return path
    write_checkpoint(path, content)
    files = list_checkpoints(folder)
    kept = [file for file in files if file.name <= path.name][-keep:]
    for other in files:  # later ones, too, are damaged: this run goes on from before them
        if other not in kept:
            other.unlink()
    return path


def load_latest(folder: Path, state: TrainingState, writes: bool = True) -> bool:
    """Go on from the last checkpoint of a folder that is whole, if there is any.

    Args:
        folder: Folder of the checkpoints.
        state: State that becomes the saved one.
        writes: Whether this process is the one that warns of damaged checkpoints, and removes
            those that a killed process has left half-written.

    Raises:
        CheckpointError: All of them are damaged, or the last one that is not is another model's.
    """
    if writes:
        remove_leftovers(folder)
    damaged: list[CheckpointError] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            content = read_checkpoint(path)
        except CheckpointError as error:
            damaged.append(error)
            continue
        if writes:
            for reason in damaged:
                _logger.warning("%s; the run goes on from %s", reason, path.name)
        _restore(path, content, state)
        return True
    if damaged:
        raise CheckpointError(
            f"{damaged[0]}; there is no other one to go on from: choose another --output, or "
            f"remove {folder} to begin anew"
        )
    return False


def load_weights(path: Path, model: nn.Module, raw: bool = False) -> Content:
    """Load the weights of a checkpoint that count: the moving average if there is one.

    Args:
        path: The checkpoint.
        model: Model of the run, whole.
        raw: Load the weights themselves all the same.

    Returns:
        Content of the checkpoint.

    Raises:
        CheckpointError: The checkpoint is damaged, or another model's.
    """
    content = read_checkpoint(path)
    average = None if raw else content["ema"]
    try:
        model.load_state_dict(content["model"] if average is None else average)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of this run: {error}") from error
    return content


def _restore(path: Path, content: Content, state: TrainingState) -> None:
    try:
        _load_into(state.model, content["model"])
        state.optimizer.load_state_dict(_scatter_optimizer(content["optimizer"], state.optimizer))
        if content["scaler"]:
            state.scaler.load_state_dict(content["scaler"])
        if state.ema is not None:
            _load_into(state.ema.module, content["ema"] or {})
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of this run: {error}") from error
    state.step, state.seconds, state.best = content["step"], content["seconds"], content["best"]


def _load_into(model: nn.Module, weights: dict[str, Any]) -> None:
    model.load_state_dict(scatter(weights, model.state_dict()))


def _scatter_optimizer(content: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    # An optimizer's state dict numbers its parameters in the order of its groups.
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {
        number: scatter(moment, dict.fromkeys(moment, parameters[number]))
        for number, moment in content["state"].items()
    }
    return {**content, "state": moments}


def export_weights(
    path: Path,
    objective: Objective,
    state: TrainingState,
    measured: Mapping[str, float],
    writes: bool = True,
) -> None:
    """Write the weights as safetensors that `load_backbone(path)` reads, with their record.

    Args:
        path: The file to write.
        objective: Objective that the weights were trained for, with its recipe.
        state: State with these weights.
        measured: Measures of validation by name; empty if there was none.
        writes: Whether this process is the one that writes; all of them must call.
    """
    model = state.evaluated()
    if writes:
        record = training_record(
            objective.recipe, objective.data, state.step, state.seconds, measured
        )
        write_weights(path, objective, model, record)


def training_record(
    recipe: Recipe, data: TrainingData, step: int, seconds: float, measured: Mapping[str, float]
) -> dict[str, Any]:
    """Give what an exported file says of the training that its weights come from.

    Args:
        recipe: Settings of the run.
        data: Images of the run.
        step: Number of finished updates.
        seconds: Time spent on them.
        measured: Measures of the weights by name.
    """
    return {
        "recipe": record_of_recipe(recipe),
        "data": data.record or recipe.data,
        "steps": step,
        "pictures": step * recipe.batch_size,
        "seconds": round(seconds),
        **{name: round(value, 4) for name, value in measured.items()},
        "commit": _commit(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "python": platform.python_version(),
    }


def write_weights(
    path: Path, objective: Objective, model: nn.Module, record: Mapping[str, Any]
) -> None:
    """Write a trained model as safetensors, with the record of its training."""
    tensors, metadata = objective.export(model)
    write_safetensors(path, tensors, {**metadata, "training": json.dumps(record)})


def _commit() -> str | None:
    """The commit of the package, `-changed` if its files are not those of it; else `None`."""
    package = Path(crate_interp.__file__).parent
    git = partial(
        subprocess.check_output, cwd=package, stderr=subprocess.DEVNULL, text=True, timeout=20
    )
    try:
        # Not merely inside another checkout.
        git(["git", "ls-files", "--error-unmatch", "__init__.py"])
        changed = git(["git", "status", "--porcelain", "--untracked-files=no", "."])
        return git(["git", "rev-parse", "HEAD"]).strip() + ("-changed" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
