"""Metrics to TensorBoard and to Weights & Biases, where these are installed; CSV needs neither.

TensorBoard's files lie in the run's folder, `tensorboard/`. Weights & Biases sends to a server, so
it is used only where the user has named a project, in the environment variable WANDB_PROJECT.
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
from typing import Any

from crate_interp.errors import InputError, shorten
from crate_interp.files import read_bytes, write_whole
from crate_interp.training.recipe import Recipe

__all__ = ["Trackers", "open_trackers"]

_logger = logging.getLogger(__name__)


class Trackers:
    """Where metrics go besides the CSV file; made by `open_trackers`, which closes them."""

    def __init__(self, tensorboard: Any | None, wandb_run: Any | None) -> None:
        self._tensorboard, self._wandb_run = tensorboard, wandb_run

    def log(self, metrics: Mapping[str, float | None], step: int) -> None:
        """Send the metrics of an update; what was not measured, `None`, is left out.

        Args:
            metrics: By name.
            step: Finished updates.
        """
        measured = {name: value for name, value in metrics.items() if value is not None}
        measured.pop("step", None)  # it is the axis
        if self._tensorboard is not None:
            for name, value in measured.items():
                self._tensorboard.add_scalar(name, value, step)
        if self._wandb_run is not None:
            self._wandb_run.log(measured, step=step)

    def close(self) -> None:
        """Write what is still held back."""
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb_run is not None:
            self._wandb_run.finish()


@contextmanager
def open_trackers(folder: Path, recipe: Recipe, step: int, writes: bool) -> Iterator[Trackers]:
    """Open the trackers that are installed, to go on after an update.

    Args:
        folder: Of the run.
        recipe: Told to Weights & Biases as the run's settings.
        step: Finished updates; TensorBoard forgets what it was told of later ones.
        writes: Whether this process is the one that writes.
    """
    trackers = Trackers(
        _open_tensorboard(folder, step) if writes else None,
        _open_wandb(folder, recipe) if writes else None,
    )
    try:
        yield trackers
    finally:
        trackers.close()


def _open_tensorboard(folder: Path, step: int) -> Any | None:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)


def _open_wandb(folder: Path, recipe: Recipe) -> Any | None:
    project = os.environ.get("WANDB_PROJECT")
    if not project:
        return None
    try:
        import wandb
    except ImportError:
        _logger.warning("WANDB_PROJECT is set, but wandb is not installed: nothing is sent")
        return None
    return wandb.init(
        project=project,
        id=_run_id_in(folder / "wandb_run_id"),
        name=folder.resolve().name,
        dir=str(folder),
        config=dataclasses.asdict(recipe),
        resume="allow",
    )


def _run_id_in(path: Path) -> str:
    """The name of a run, in a file, so that a run that goes on is the same run there."""
    if not path.exists():
        with write_whole(path, "w") as file:
            file.write(uuid.uuid4().hex)
    found = read_bytes(path)
    if not re.fullmatch(rb"[0-9a-f]{32}", found):
        raise InputError(f"{path}: expected 32 hexadecimal digits, found {shorten(found)}")
    return found.decode()
