"""Class-token attention of all heads and blocks, against a plain forward pass, in one run.

The plain pass is timm's own `model(pixels)` with `fast_inference`, as the library runs it. Ours is
the same pass inside `record`. The naive way keeps the whole maps: attention is computed eagerly and
each block's map is held until the pass is over, as a hook on `attn_drop` gets it.

    python benchmarks/attention.py --size 480 --model vit_small_patch8_224 --repeats 5
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import Tensor

from crate_interp.hooks import Site, count_units, record
from crate_interp.models import fast_inference

Rows = list[Tensor]


def plain(model: Any, pixels: Tensor) -> Rows:
    model(pixels)
    return []


def recorded(model: Any, pixels: Tensor) -> Rows:
    blocks = range(len(model.blocks))
    with record(model, [Site.CLS_ATTENTION], blocks) as recorder:
        model(pixels)
    return [recorder.activations[Site.CLS_ATTENTION, block] for block in blocks]


def whole_maps(model: Any, pixels: Tensor) -> Rows:
    maps: list[Tensor] = []
    handles = []
    for block in model.blocks:
        block.attn.fused_attn = False
        handles.append(
            block.attn.attn_drop.register_forward_hook(lambda *args: maps.append(args[-1]))
        )
    try:
        model(pixels)
    finally:
        for handle, block in zip(handles, model.blocks, strict=True):
            handle.remove()
            block.attn.fused_attn = True
    return [attention[:, :, 0] for attention in maps]


def timed(
    way: Callable[[Any, Tensor], Rows], model: Any, pixels: Tensor
) -> tuple[float, float, Rows]:
    """Seconds on the wall, seconds of the processor (all threads), and rows."""
    started, worked = time.perf_counter(), time.process_time()
    with torch.inference_mode(), fast_inference():
        rows = way(model, pixels)
    wall, cpu = time.perf_counter() - started, time.process_time() - worked
    return wall, cpu, [row.clone() for row in rows]


def peak_memory_mb() -> float:
    """Most memory that this process has held so far; it never falls."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vit_small_patch8_224", help="a timm ViT")
    parser.add_argument("--size", type=int, default=480, help="side of the picture, pixels")
    parser.add_argument("--repeats", type=int, default=5, help="runs each; medians are printed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error("repeats: expected at least 1")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = timm.create_model(arguments.model, img_size=arguments.size, num_classes=0).eval()
    pixels = torch.randn(1, 3, arguments.size, arguments.size)
    heads, blocks = count_units(model, "heads"), len(model.blocks)

    timed(plain, model, pixels)  # the first pass also sets up
    seconds: dict[str, list[tuple[float, float]]] = {"plain": [], "recorded": [], "naive": []}
    peaks = {"plain": peak_memory_mb()}
    for _ in range(arguments.repeats):  # in turns: what else runs on the machine slows both
        wall, cpu, _ = timed(plain, model, pixels)
        seconds["plain"].append((wall, cpu))
        wall, cpu, rows = timed(recorded, model, pixels)
        seconds["recorded"].append((wall, cpu))
    peaks["recorded"] = peak_memory_mb()
    wall, cpu, whole = timed(whole_maps, model, pixels)  # last: the peak of memory never falls
    seconds["naive"].append((wall, cpu))
    peaks["naive"] = peak_memory_mb()

    print(
        f"{arguments.model}, {arguments.size} px, {blocks} blocks of {heads} heads, "
        f"{rows[0].shape[-1]} tokens; {platform.processor() or platform.machine()}, "
        f"{arguments.threads} threads; Python {platform.python_version()}, "
        f"torch {torch.__version__}, timm {timm.__version__}\n"
    )
    print("| way | s | CPU s | times the plain pass | of its CPU s | peak of the process, MB |")
    print("|---|---|---|---|---|---|")
    names = {"plain": "plain forward pass", "recorded": "class-token rows", "naive": "whole maps"}
    medians = {
        way: [statistics.median(column) for column in zip(*measured, strict=True)]
        for way, measured in seconds.items()
    }
    for way, name in names.items():
        (wall, cpu), (plain_wall, plain_cpu) = medians[way], medians["plain"]
        ratios = f"{wall / plain_wall:.2f} | {cpu / plain_cpu:.2f}"
        print(f"| {name} | {wall:.3f} | {cpu:.3f} | {ratios} | {peaks[way]:.0f} |")
    apart = max(float((ours - full).abs().max()) for ours, full in zip(rows, whole, strict=True))
    print(f"\nlargest difference between the rows of both: {apart:.1e}")


if __name__ == "__main__":
    main()
