"""Milestones: model files of the evaluated weights, written while a run goes on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from crate_interp.training.checkpoints import TrainingState, export_weights
from crate_interp.training.metrics import is_due
from crate_interp.training.objective import Objective

__all__ = ["Milestones", "list_milestones"]

_NAME = re.compile(r"step-(\d{8})\.safetensors")


def list_milestones(run: Path) -> dict[int, Path]:
    """Find the milestones of a run folder, by the number of finished updates."""
    found = {}
    for path in sorted((run / "milestones").glob("step-*.safetensors")):
        name = _NAME.fullmatch(path.name)
        if name is not None:
            found[int(name[1])] = path
    return found


class Milestones:
    """Writes the milestones that are due; all processes make one, and one of them writes.

    Args:
        run: Folder of the run; milestones of updates that the run has not made are removed.
        objective: Objective of the run; its recipe says how often.
        state: State of the run; an untrained model is a milestone at once.
        updates: Number of updates of the whole run.
        writes: Whether this process is the one that writes.
    """

    def __init__(
        self, run: Path, objective: Objective, state: TrainingState, updates: int, writes: bool
    ) -> None:
        self._run, self._objective, self._state = run, objective, state
        self._updates, self._writes = updates, writes
        for step, path in list_milestones(run).items():
            if writes and step > state.step:
                path.unlink()
        if state.step == 0:
            self.write({})

    def write(self, measured: Mapping[str, float]) -> None:
        """Write the weights after the last update, if a milestone is due.

        Args:
            measured: Measures of validation by name; empty if there was none.

        Raises:
            InputError: The file cannot be written.
        """
        every, step = self._objective.recipe.milestone_every, self._state.step
        if every and is_due(step, every, self._updates):
            folder = self._run / "milestones"
            folder.mkdir(exist_ok=True)
            path = folder / f"step-{step:08d}.safetensors"
            export_weights(path, self._objective, self._state, measured, self._writes)
