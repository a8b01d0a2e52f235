"""Probes of a training run that was made without them, or without some of them."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from crate_interp import training
from crate_interp.errors import InputError, shorten
from crate_interp.options import option
from crate_interp.runs.command import Command
from crate_interp.runs.progress import progress_bar

__all__ = ["ProbeRun"]


@dataclass(frozen=True)
class ProbeRun(Command):
    """Measure probes of a training run afterwards.

    They say how far segmentation had emerged in the weights that the run keeps, its milestones and
    its checkpoints; each of their updates that probes.csv lacks gets a line.
    """

    group: ClassVar[str] = "train"
    continues: ClassVar[bool] = True

    folder: Path = option("run folder of `train`", positional=True)
    set: list[str] | None = option(
        "key=value: keys of the recipe that decide about probes, such as probe_set, probe_size "
        "and probe_block, and probe_every, which leaves out updates between",
        None,
        several=str,
    )
    output: Path | None = option("the table (default: FOLDER/probes.csv)", None, presentation=True)
    device: str = option("cpu, cuda, cuda:1, mps, or auto", "auto")

    def run(self) -> int:
        """Measure what is missing, one update after the other; the same command goes on.

        Raises:
            InputError: The folder is not that of a training run, it keeps no weights, or the table
                has other probes.
        """
        from crate_interp.runs.inference import device_of
        from crate_interp.runs.run_folder import hold_folder

        self._check_keys()
        recipe = training.read_run_recipe(self.folder, self.set or ())
        weights = training.RunWeights(self.folder, recipe)
        path, device = self.output or self.folder / "probes.csv", device_of(self.device)
        if path.suffix != ".csv" or not path.parent.is_dir():
            raise InputError(f"{path}: expected a name ending in .csv, in a folder that is there")
        # A run that probes itself, and may go on now, writes its own table.
        own = path == self.folder / "probes.csv" and training.probes_itself(self.folder)
        with hold_folder(self.folder) if own else nullcontext():
            steps = training.missing_probes(weights, path)
            with progress_bar(desc="probe", unit="update", total=len(steps)) as progress:
                for _ in training.probe_run(weights, path, steps, device):
                    progress.update()
        print(f"{len(steps)} updates measured: {path}")
        return 0

    def _check_keys(self) -> None:
        for change in self.set or ():
            key = change.partition("=")[0]
            if key not in (*training.PROBE_KEYS, "probe_every", "data_root"):
                raise InputError(
                    f"--set: expected a key of the probes, one of {', '.join(training.PROBE_KEYS)}"
                    f" or probe_every, found {shorten(key)}"
                )
