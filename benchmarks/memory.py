"""Memory of a MaskCut run as it goes on: that of 200 images is to be that of 20.

Draws scenes, runs the command `maskcut` on them with the shipped model, a CRF and workers, and asks
the system (Linux) for the resident memory of the process and of those that it started, whenever a
number of images is in the journal.

    python benchmarks/memory.py
    python benchmarks/memory.py --images 40 --size 192 --refine none
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from crate_interp.data import write_scenes

POLL_SECONDS = 0.2


def resident_mb(process: int) -> float:
    """Resident memory of a process and its descendants, 10^6 bytes; shared pages count in each."""
    folder = Path("/proc") / str(process)
    try:
        lines = (folder / "status").read_text().splitlines()
        children = " ".join(path.read_text() for path in folder.glob("task/*/children")).split()
    except OSError:  # it has ended in the meantime
        return 0.0
    (kilobytes,) = [line.split()[1] for line in lines if line.startswith("VmRSS:")] or ["0"]
    return int(kilobytes) * 1024 / 1e6 + sum(resident_mb(int(child)) for child in children)


def lines_of(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def measure(command: list[str], journal: Path, marks: list[int]) -> dict[int, float]:
    """Resident memory of a run when as many images as each mark says are done."""
    found: dict[int, float] = {}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:
        while run.poll() is None:
            done, memory = lines_of(journal), resident_mb(run.pid)
            found.update({mark: memory for mark in marks if mark <= done and mark not in found})
            time.sleep(POLL_SECONDS)
    if run.returncode:
        raise SystemExit(run.returncode)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--size", type=int, default=96, help="side of the model's input, pixels")
    parser.add_argument("--refine", default="crf")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    marks = sorted({arguments.images * part // 10 for part in (1, 5, 9)})
    if marks[0] < 1:
        parser.error("--images: expected at least 10")
    with tempfile.TemporaryDirectory() as name:
        folder, output = Path(name) / "scenes", Path(name) / "run"
        write_scenes(folder, count=arguments.images)
        command = [
            sys.executable,
            "-m",
            "crate_interp",
            "maskcut",
            "--images",
            str(folder / "demo"),
        ]
        command += ["--output", str(output), "--visualize", "0"]
        for option in ("model", "size", "refine", "workers"):
            command += [f"--{option}", str(getattr(arguments, option))]
        found = measure(command, output / "journal.jsonl", marks)
    for mark, memory in found.items():
        print(f"image {mark:4d}: {memory:6.0f} MB")


if __name__ == "__main__":
    main()
