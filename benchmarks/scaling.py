"""MaskCut end to end for several models and sizes: seconds, exponents in tokens, and the roofline.

Every pair of a model and a size is one run of `benchmarks/maskcut.py` in a process of its own. The
roofline is the least time that the machine needs for the products of our forward pass, at the rate
of a large matrix product measured here, and for reading the weights once, at the rate of a copy.

    python benchmarks/scaling.py --crf
    python benchmarks/scaling.py --models vit_small_patch8_224 --sizes 224 320 480 640
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from crate_interp.hooks import record
from crate_interp.models import has_fast_bfloat16
from crate_interp.models.onednn import _linear
from crate_interp.segmentation import MaskCut

MODELS = ["vit_small_patch8_224", "crate_alpha_base_patch8_224", "crate_alpha_large_patch8_224"]


def seconds_of(function: Callable[[], object], repeats: int = 5) -> float:
    """The fastest of some runs."""
    function()
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        found.append(time.perf_counter() - started)
    return min(found)


@torch.inference_mode()
def machine_peaks() -> dict[str, float]:
    """FLOP/s of a product of 4096 x 4096 matrices by number type, and bytes/s of a copy."""
    values = torch.randn(4096, 4096)
    peaks = {"float32": 2 * 4096**3 / seconds_of(lambda: _linear(values, values))}
    if has_fast_bfloat16():
        halves = values.bfloat16()
        peaks["bfloat16"] = 2 * 4096**3 / seconds_of(lambda: _linear(halves, halves))
    large = torch.randn(1 << 26)
    target = torch.empty_like(large)
    peaks["bytes"] = 2 * large.nbytes / seconds_of(lambda: target.copy_(large))
    return peaks


def forward_work(name: str, size: int) -> dict[str, float]:
    """FLOPs of linear layers and of attention up to the last block's keys, and bytes of weights."""
    with torch.device("meta"):
        model = timm.create_model(name, img_size=size, num_classes=0).eval()
        pixels = torch.empty(1, 3, size, size)
    for block in model.blocks:
        block.attn.fused_attn = False
    recorder = record(model, [MaskCut(model).feature], [-1], stop_early=True)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter, recorder:
        model(pixels)
    counts = counter.get_flop_counts()["Global"]
    attention = sum(number for kind, number in counts.items() if "bmm" in str(kind))
    weights = sum(parameter.numel() for parameter in model.parameters())
    return {
        "attention": attention,
        "linear": counter.get_total_flops() - attention,
        "bytes": 4 * weights,
    }


def roofline(work: dict[str, float], peaks: dict[str, float]) -> float:
    """Seconds; attention over 1024 tokens and more is in bfloat16 where the machine has it."""
    attention = work["attention"] / peaks.get("bfloat16", peaks["float32"])
    return max(attention + work["linear"] / peaks["float32"], work["bytes"] / peaks["bytes"])


def measure(name: str, size: int, options: list[str]) -> dict[str, Any]:
    """Run the benchmark in a process of its own."""
    script = Path(__file__).with_name("maskcut.py")
    command = [sys.executable, str(script), "--model", name, "--size", str(size), "--json"]
    output = subprocess.run([*command, *options], check=True, capture_output=True, text=True)
    numbers: dict[str, Any] = json.loads(output.stdout)
    return numbers


def exponent(tokens: list[int], seconds: list[float]) -> float:
    """The slope of log time over log tokens, by least squares."""
    return float(np.polyfit(np.log(tokens), np.log(seconds), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--sizes", nargs="+", type=int, default=[480])
    parser.add_argument("--crf", action="store_true", help="refine; needs the extra `crf`")
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    options = ["--repeats", str(arguments.repeats), *(["--crf"] if arguments.crf else [])]
    peaks = machine_peaks()
    rates = ", ".join(f"{kind} {rate / 1e9:.0f} G/s" for kind, rate in peaks.items())
    print(f"peaks, {torch.get_num_threads()} threads: {rates}\n")
    print("| model | pixels | tokens | reference, s | ours, s | times faster ", end="")
    print("| forward, s | its roofline, s | masks equal | ours, MB |\n" + "|---" * 10 + "|")
    for name in arguments.models:
        tokens, ours, reference = [], [], []
        for size in arguments.sizes:
            numbers = measure(name, size, options)
            patch = timm.create_model(name, img_size=size).patch_embed.patch_size[0]
            tokens.append((size // patch) ** 2 + 1)
            ours.append(numbers["ours"]["total"])
            reference.append(numbers["reference"]["total"])
            least = roofline(forward_work(name, size), peaks)
            print(
                f"| {name} | {size} | {tokens[-1]} | {reference[-1]:.2f} | {ours[-1]:.3f} "
                f"| {reference[-1] / ours[-1]:.1f} | {numbers['ours']['forward']:.3f} "
                f"| {least:.3f} | {numbers['masks_equal']} | {numbers['ours_mb']:.0f} |",
                flush=True,
            )
        if len(tokens) > 1:
            print(
                f"| {name} | | exponent | {exponent(tokens, reference):.2f} "
                f"| {exponent(tokens, ours):.2f} | | | | | |"
            )


if __name__ == "__main__":
    main()
