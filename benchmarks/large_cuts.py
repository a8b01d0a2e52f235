"""MaskCut of a large photograph: seconds and peak memory, of the cut alone and with the model.

Each size is measured in a process of its own, so that its peak is its own.

    python benchmarks/large_cuts.py
    python benchmarks/large_cuts.py --sizes 512 768 1024 --masks 3 --threads 2
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from maskcut import peak_memory_mb
from sklearn.datasets import load_sample_image

from crate_interp.segmentation import MaskCut
from crate_interp.weights import load_backbone

TITLES = (
    "| px | tokens | model, s | of processors | cut, s | of processors | "
    "peak before the cut, MB | peak, MB | patches a mask |\n" + 9 * "|---" + "|"
)
BLOCK, TAU = -2, 0.7  # of the shipped model, at which the photograph has three objects


def measure(model_name: str, size: int, tau: float, masks: int) -> list[str]:
    """Row of the table, with the system's count of the memory of this process."""
    finder = MaskCut(load_backbone(model_name), tau=tau, max_masks=masks, size=size, block=BLOCK)
    rgb = load_sample_image("flower.jpg")
    start = clocks()
    features = finder.features([rgb])
    recorded, before = clocks(), peak_memory_mb()
    (cut,) = finder.cut(features)
    end = clocks()
    seconds = [f"{value:.1f}" for value in (*(recorded - start), *(end - recorded))]
    areas = " ".join(str(int(mask.sum())) for mask in cut.masks)
    memory = (f"{before:.0f}", f"{peak_memory_mb():.0f}")
    return [str(size), str(features.shape[-1]), *seconds, *memory, areas]


def clocks() -> np.ndarray:
    """Seconds of the clock, and of processors."""
    return np.array([time.perf_counter(), time.process_time()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="photo", help="the default has patches of 8 pixels")
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024], help="sides, pixels")
    parser.add_argument("--masks", type=int, default=3)
    parser.add_argument("--tau", type=float, default=TAU)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        torch.set_num_threads(arguments.threads)
        row = measure(arguments.model, arguments.only, arguments.tau, arguments.masks)
        print(f"| {' | '.join(row)} |", flush=True)
        return
    print(TITLES, flush=True)
    for size in arguments.sizes:
        command = [sys.executable, str(Path(__file__)), *sys.argv[1:], "--only", str(size)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
