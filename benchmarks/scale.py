# ruff: noqa: ARG002  (methods of a contract)
"""Workers of a Ray cluster on this machine: rate, start-up, what kills change, memory.

Each part prints a table. `rate` compares one process of all cores with a worker for each core, and
with five workers; `wait` works with a model that waits 100 ms a batch, as a GPU would, so that what
is left is what handing out costs; `kills` sends SIGKILL at random moments and compares the results;
`memory` watches the processes of a long run.

    python benchmarks/scale.py
    python benchmarks/scale.py --parts rate --images ../shared/data/ecssd/images --limit 200
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from crate_interp.data import write_scenes
from crate_interp.runs.command import ImageFilesCommand, Reading
from crate_interp.runs.outputs import Conclusion

POLL_SECONDS = 0.2
COMMAND = [sys.executable, "-m", "crate_interp", "maskcut", "--visualize", "0"]


@dataclass(frozen=True, kw_only=True)
class Waiting(ImageFilesCommand):
    """A command whose model only waits."""

    run_folder: ClassVar[bool] = True
    timed: ClassVar[bool] = True

    output: Path | None = None

    def reading(self, run: Any) -> Reading:
        return Reading(["tokens"])

    def forward(self, run: Any, images: Sequence[Any], stage: Any) -> Iterable[Any]:
        time.sleep(0.1)
        return [0] * len(images)

    def measure(self, run: Any, image: Any, output: Any) -> Mapping[str, Any]:
        return {"done": True}

    def conclude(self, run: Any) -> Conclusion:
        return Conclusion()


def run_command(images: Sequence[str], output: Path, *more: str) -> tuple[float, float]:
    """Run `maskcut`: images a second, and seconds before and after the images."""
    started = time.perf_counter()
    command = [*COMMAND, *images, "--output", str(output), *more]
    subprocess.run(command, check=True, capture_output=True)
    whole = time.perf_counter() - started
    this_time = json.loads((output / "summary.json").read_text())["this_time"]
    return this_time["images_per_second"], whole - this_time["seconds"]


def checksum(output: Path) -> str:
    return hashlib.sha256((output / "results.json").read_bytes()).hexdigest()[:16]


def rate(images: Sequence[str], cores: int, folder: Path) -> None:
    print("| | images a second | seconds around them | results |\n|---|---|---|---|")
    ways = {
        f"one process, {cores} threads": [],
        **{f"{count} workers": ["--devices", str(count)] for count in (cores, 5)},
    }
    for number, (name, more) in enumerate(ways.items()):
        output = folder / f"rate{number}"
        speed, around = run_command(images, output, *more)
        print(f"| {name} | {speed:.2f} | {around:.1f} | {checksum(output)} |", flush=True)


def wait(folder: Path) -> None:
    """Time shards of a model that waits; 60 batches for each worker."""
    write_scenes(folder / "scenes", 960, seed=0)
    pictures = folder / "scenes" / "demo"
    speeds = {}
    for count in (1, 16):
        output = folder / f"wait{count}"
        command = Waiting(
            images=[pictures],
            model="demo",
            size=24,
            batch_size=1,
            limit=60 * count,
            output=output,
            cluster="local",
            devices=str(count),
        )
        command.run()
        speeds[count] = json.loads((output / "summary.json").read_text())["this_time"]
    rates = {count: timing["images_per_second"] for count, timing in speeds.items()}
    print(f"a batch of 100 ms: {rates}, {rates[16] / rates[1]:.1f} times with 16 workers")


def descendants(process: int) -> list[int]:
    """A process and all that it started (Linux)."""
    folder = Path("/proc") / str(process)
    try:
        children = " ".join(path.read_text() for path in folder.glob("task/*/children")).split()
    except OSError:  # it has ended in the meantime
        return []
    return [process, *(one for child in children for one in descendants(int(child)))]


def name_of(process: int) -> str:
    try:
        return (Path("/proc") / str(process) / "cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""


def resident_mb(process: int) -> float:
    try:
        lines = (Path("/proc") / str(process) / "status").read_text().splitlines()
    except OSError:
        return 0.0
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("VmRSS:")]
    return sum(kilobytes) * 1024 / 1e6


def lines_of(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def kills(images: Sequence[str], total: int, folder: Path, seed: int) -> None:
    """Kill workers ten times and the driver five times, at random numbers of finished images."""
    rng = random.Random(seed)
    whole, killed = folder / "whole", folder / "killed"
    run_command(images, whole)
    command = [*COMMAND, *images, "--output", str(killed), "--devices", "2"]
    workers, drivers = 10, 5
    started: set[int] = set()
    moments = sorted(rng.sample(range(1, total), workers + drivers))
    kinds = ["worker"] * workers + ["driver"] * drivers
    rng.shuffle(kinds)
    lost: list[int] = []
    while True:
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while run.poll() is None:
            started |= set(descendants(run.pid))
            done = lines_of(killed / "journal.jsonl")
            if moments and done >= moments[0]:
                kind = kinds.pop(0)
                moments.pop(0)
                alive = [one for one in descendants(run.pid) if "ray::Worker" in name_of(one)]
                target = run.pid if kind == "driver" else rng.choice(alive or [run.pid])
                print(
                    f"{done} images: SIGKILL of {'a worker' if target != run.pid else 'the driver'}"
                )
                os.kill(target, signal.SIGKILL)
            time.sleep(POLL_SECONDS)
        if run.returncode == 0:
            break
        lost.append(run.returncode)
    ended = time.perf_counter()
    while any(Path("/proc", str(one)).exists() and name_of(one) for one in started):
        time.sleep(1)
    print(
        f"results as of one process: {checksum(whole) == checksum(killed)}; the driver ended early "
        f"with {lost}; the last process was gone after {time.perf_counter() - ended:.0f} s"
    )


def memory(count: int, folder: Path) -> None:
    """Resident memory as a run of two workers goes on."""
    write_scenes(folder / "many", count, seed=1)
    output = folder / "memory"
    command = [
        *(*COMMAND, "--images", str(folder / "many" / "demo"), "--model", "demo", "--size", "48"),
        *("--output", str(output), "--devices", "2"),
    ]
    marks = [count // 10, count // 4, count // 2, count - 50]
    print("| images | driver, MB | workers, MB |\n|---|---|---|")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:
        while run.poll() is None:
            if marks and lines_of(output / "journal.jsonl") >= marks[0]:
                workers = [one for one in descendants(run.pid) if "ray::Worker" in name_of(one)]
                each = ", ".join(f"{resident_mb(one):.0f}" for one in workers)
                print(f"| {marks.pop(0)} | {resident_mb(run.pid):.0f} | {each} |", flush=True)
            time.sleep(POLL_SECONDS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=["rate", "wait", "kills", "memory"])
    parser.add_argument("--images", help="folder for `rate` (default: the built-in scenes)")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--count", type=int, default=5000, help="images of `memory`")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of `kills`")
    options = parser.parse_args()
    scenes = ["--coco", "demo", "--model", "demo"]
    images = scenes
    if options.images:
        images = ["--images", options.images, "--limit", str(options.limit), "--model", "photo"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "rate" in options.parts:
            rate(images, len(os.sched_getaffinity(0)), folder)
        if "wait" in options.parts:
            wait(folder)
        if "kills" in options.parts:
            kills(scenes, 64, folder, options.seed)
        if "memory" in options.parts:
            memory(options.count, folder)


if __name__ == "__main__":
    main()
