"""Kills commands at random points of their work, goes on, and compares with an undisturbed run.

    python -m tests.fuzz.kills --points 50 --seed 0

A kill takes the whole process group, or the main process alone: then its readers have to end by
themselves. Afterwards the same command goes on, perhaps to be killed again; when it has finished,
its files are those of a run that nothing has disturbed, but for seconds, and there are no others.
"""

import argparse
import csv
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file

from crate_interp.cli import main as crate_interp
from crate_interp.runs import fold
from crate_interp.runs.atlas_files import INDEX, read_atlas, read_thumbnail
from crate_interp.training.checkpoint_files import read_checkpoint
from tests.pages import without_seconds

MODEL = ["--model", "crate_alpha_demo", "--weights", "random", "--size", "48", "--batch-size", "2"]
RECIPE = {
    "model": "crate_alpha_demo",
    "model_args": {"embed_dim": 32, "depth": 2, "num_heads": 2},
    "data": "scenes",
    "image_size": 32,
    "scene_objects": [1, 1],
    "scene_object_size": [0.55, 1.0],
    "validation_scenes": 16,
    "batch_size": 8,
    "steps": 24,
    "save_every": 3,
    "keep": 2,
    "evaluate_every": 8,
    "log_every": 1,
    "ema_decay": 0.9,
}
PATIENCE = 300  # seconds, for a run to finish; for readers to end without it, a tenth
TIMED = {"seconds", "this_time"}  # keys of a summary that no two runs share


@dataclass(frozen=True)
class Job:
    """A command that is killed.

    Attributes:
        name: For the report.
        arguments: Of the command, without its output.
        prepare: Fills the folder before the first start; by default, there is none.
        look: Refuses what a kill must not leave.
    """

    name: str
    arguments: list[str]
    prepare: Callable[[random.Random, Path], None] = lambda rng, folder: None
    look: Callable[[Path], None] = lambda folder: None


@dataclass
class Campaign:
    """What came of the kills, job by job."""

    place: Path
    rng: random.Random
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def run(self, job: Job, points: int) -> None:
        """Kill a job at this many points, a few to a folder."""
        count = self.counts.setdefault(job.name, Counter())
        expected = self.place / job.name / "undisturbed"
        started = time.monotonic()
        if self._start(job, expected, 0, None) != 0:
            raise RuntimeError(f"{job.name}: see {expected}.log")
        seconds = time.monotonic() - started
        wanted = _fingerprint(expected)
        number = 0
        while count["points"] < points:
            number += 1
            folder = self.place / job.name / f"{number:03d}"
            job.prepare(self.rng, folder)
            workers = int(self.rng.random() < 0.3)
            for _ in range(min(self.rng.randint(1, 3), points - count["points"])):
                code = self._start(job, folder, workers, self.rng.uniform(0, seconds))
                count["points" if code == -signal.SIGKILL else "finished first"] += 1
                if code not in (0, -signal.SIGKILL):
                    self._fail(job, folder, f"exit code {code} where a killed run goes on")
                self._look(job, folder)
            code = self._start(job, folder, workers, None)
            count["folders"] += 1
            if code != 0:
                self._fail(job, folder, f"exit code {code} of the last run")
            elif found := _differences(wanted, _fingerprint(folder)):
                self._fail(job, folder, "; ".join(found))
            else:
                count["equal"] += 1
                shutil.rmtree(folder)

    def _start(self, job: Job, folder: Path, workers: int, until: float | None) -> int:
        """Run the command, perhaps only for some seconds; its exit code, negative for a signal."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        options = ["--output", str(folder)]
        if job.name == "train":
            options += ["--set", f"workers={workers}"]
        else:
            options += ["--workers", str(workers)]
        process = _fork([*job.arguments, *options], folder.with_suffix(".log"))
        ended = _wait(process, PATIENCE if until is None else until)
        if ended is None:
            together = self.rng.random() < 0.6
            (os.killpg if together else os.kill)(process, signal.SIGKILL)
            ended = _wait(process, PATIENCE)
            deadline = time.monotonic() + PATIENCE / 10
            while (left := _processes_of(process)) and time.monotonic() < deadline:
                time.sleep(0.05)
            for orphan in left:
                self._fail(job, folder, f"process {orphan} outlived the killed one")
                os.kill(orphan, signal.SIGKILL)
        return 0 if ended is None else ended

    def _look(self, job: Job, folder: Path) -> None:
        try:
            job.look(folder)
        except Exception as error:
            self._fail(job, folder, f"after a kill: {error!r}")

    def _fail(self, job: Job, folder: Path, why: str) -> None:
        self.failures.append(f"{job.name} {folder}: {why}")


def _fork(arguments: list[str], log: Path) -> int:
    """Run a command in a process, and group, of its own; all modules are loaded already."""
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        code = crate_interp(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _wait(process: int, seconds: float) -> int | None:
    """The exit code of a child, negative for a signal; `None` if it still runs."""
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.002)


def _processes_of(session: int) -> list[int]:
    """Processes of a session that still live."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, own = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has just ended
            continue
        if own == str(session) and state != "Z":
            found.append(int(path.parent.name))
    return found


def _fingerprint(folder: Path) -> dict[str, str]:
    """What each file of a run holds, without seconds."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(folder)): hashlib.sha256(_content(path)).hexdigest()
        for path in paths
        if path.name not in (".lock", "journal.jsonl") and "tensorboard" not in path.parts
    }


def _content(path: Path) -> bytes:
    if path.name == "summary.json":
        summary = json.loads(path.read_text())
        return json.dumps({key: summary[key] for key in summary if key not in TIMED}).encode()
    if path.name == "report.html":
        return without_seconds(path.read_bytes())
    if path.name == "metrics.csv":
        with path.open(newline="") as file:
            return repr([{**row, "seconds": ""} for row in csv.DictReader(file)]).encode()
    if path.suffix == ".safetensors":
        return _bytes_of(load_file(path))
    if path.suffix == ".pt":
        return _bytes_of({**read_checkpoint(path), "seconds": 0})
    return path.read_bytes()


def _bytes_of(value: object) -> bytes:
    if isinstance(value, dict):
        return b"".join(f"{key}:".encode() + _bytes_of(value[key]) for key in value)
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    return repr(value).encode()


def _differences(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    missing = [f"{name} is missing" for name in wanted if name not in found]
    left = [f"{name} is left over" for name in found if name not in wanted]
    other = [f"{name} differs" for name in wanted if found.get(name, wanted[name]) != wanted[name]]
    return [*missing, *left, *other]


def _whole_atlas(folder: Path) -> None:
    if (folder / INDEX).exists():
        stored = read_atlas(folder)
        for number in stored.thumbnails:
            read_thumbnail(folder, stored, number)


def _jobs(place: Path) -> list[Job]:
    recipe = place / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    atlas = ["atlas", "demo", *MODEL, "--limit", "8", "--sheet", "0"]

    def with_another_atlas(rng: random.Random, folder: Path) -> None:
        other = place / "another-atlas"
        if not other.exists():
            command = [*atlas, "--block", "0", "--workers", "0", "--output", str(other)]
            if _wait(_fork(command, other.with_suffix(".log")), PATIENCE) != 0:
                raise RuntimeError(f"see {other}.log")
        if rng.random() < 0.5:
            shutil.copytree(other, folder)

    maskcut = ["maskcut", "--coco", "demo", *MODEL, "--limit", "12", "--tau", "0.3"]
    benchmark = [*MODEL, "--limit", "8"]
    return [
        Job("maskcut", [*maskcut, "--visualize", "2"]),
        Job("train", ["train", str(recipe)]),
        Job("atlas", atlas, with_another_atlas, _whole_atlas),
        Job("semantic", ["benchmark", "semantic", "demo", *benchmark, "--patches", "2000"]),
        Job("voc2012", ["benchmark", "voc2012", "demo", *benchmark, "--pictures", "2"]),
    ]


def main() -> int:
    """Run the campaign and print its table; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", type=int, default=50, help="kills, over all jobs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="jobs, separated by commas")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "crate-interp-kills"
    )
    options = parser.parse_args()
    place = (options.folder / f"seed-{options.seed}").absolute()
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    os.environ["CRATE_INTERP_DATA"] = str(place / "data")
    os.chdir(place)
    torch.set_num_threads(1)  # a forked process has no threads of its parent's
    for name in ("maskcut", "train", "atlas", "benchmark.semantic", "benchmark.voc2012"):
        importlib.import_module(f"crate_interp.commands.{name}")
    for name in ("run", "atom_rows"):  # which commands import when they need them
        importlib.import_module(f"crate_interp.runs.{name}")
    fold.SAVE_EVERY = 0  # runs are too short for half a minute
    jobs = _jobs(place)
    if options.only:
        jobs = [job for job in jobs if job.name in options.only.split(",")]
    campaign = Campaign(place, random.Random(options.seed))
    started = time.monotonic()
    for number, job in enumerate(jobs):
        campaign.run(job, (options.points + number) // len(jobs))
    columns = ("points", "finished first", "folders", "equal")
    lines = [f"{'job':10s}" + "".join(f"{name:>16s}" for name in columns)]
    for name, count in campaign.counts.items():
        lines.append(f"{name:10s}" + "".join(f"{count[column]:16d}" for column in columns))
    points = sum(count["points"] for count in campaign.counts.values())
    lines += [f"failure: {failure}" for failure in campaign.failures]
    lines.append(
        f"seed {options.seed}: {points} kills in {time.monotonic() - started:.0f} s, "
        f"{len(campaign.failures)} failures"
    )
    sys.stdout.write("\n".join(lines) + "\n")
    if not campaign.failures:
        shutil.rmtree(place)
    return 1 if campaign.failures else 0


if __name__ == "__main__":
    sys.exit(main())
