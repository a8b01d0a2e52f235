"""The weights that a run exports, with the record of their training."""

from __future__ import annotations

import dataclasses
import json
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

import timm
import torch

import crate_interp
from crate_interp.training.checkpoints import TrainingState
from crate_interp.training.objective import Objective
from crate_interp.weights import write_safetensors

__all__ = ["export_weights"]


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
        objective: What the weights were trained for, and by which recipe.
        state: Holds them.
        measured: What validation measured of them, by name; nothing if there was none.
        writes: Whether this process is the one that writes; all of them must call.
    """
    model, recipe = state.evaluated(), objective.recipe
    if not writes:
        return
    training = {
        "recipe": dataclasses.asdict(recipe),
        "data": recipe.data,
        "steps": state.step,
        "pictures": state.step * recipe.batch_size,
        "seconds": round(state.seconds),
        **{name: round(value, 4) for name, value in measured.items()},
        "commit": _commit(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "python": platform.python_version(),
    }
    tensors, metadata = objective.export(model)
    write_safetensors(path, tensors, {**metadata, "training": json.dumps(training)})


def _commit() -> str | None:
    """The commit of the package, `-changed` if its files are not those of it; else `None`."""
    package = Path(crate_interp.__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(package), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # not merely inside another checkout
        changed = git("status", "--porcelain", "--untracked-files=no", ".")
        return git("rev-parse", "HEAD") + ("-changed" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
