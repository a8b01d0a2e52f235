"""Speed and memory of a model's forward passes, as they are on this machine."""

from __future__ import annotations

import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from crate_interp.models import inference_precision
from crate_interp.options.choices import Precision
from crate_interp.weights import ModelName, create_backbone

__all__ = ["TIMED_RUNS", "measure_speed"]

TIMED_RUNS = 10  # at least, and for at least
_TIMED_SECONDS = 1.0
_WARM_UP_RUNS = 3


def measure_speed(
    name: ModelName,
    sizes: Mapping[str, int],
    shape: tuple[int, int, int, int],
    precision: Precision,
    device: torch.device,
) -> tuple[float, int | None]:
    """Measure a model with random weights and random input.

    Args:
        name: The model.
        sizes: Sizes that differ from the named model's.
        shape: Shape of the input: images, channels, height and width in pixels.
        precision: Number type of the forward pass.
        device: Device to measure on.

    Returns:
        Images a second, and the bytes that model and forward passes need at most; `None` where
        these cannot be told.
    """
    _give_back_memory()
    before = _memory(device, largest=False)
    torch.manual_seed(0)
    with torch.device(device):
        model = create_backbone(name, **sizes)
        images = torch.randn(shape)
    _forget_peak(device)
    seconds = _seconds_a_run(model, images, precision)
    peak = _memory(device, largest=True)
    memory = None if before is None or peak is None else peak - before
    return shape[0] / seconds, memory


@torch.inference_mode()
def _seconds_a_run(model: nn.Module, images: Tensor, precision: Precision) -> float:
    """Median of the timed runs."""
    synchronize = torch.get_device_module(images.device).synchronize
    seconds: list[float] = []
    with inference_precision(precision, model):
        for _ in range(_WARM_UP_RUNS):
            model(images)
        while len(seconds) < TIMED_RUNS or sum(seconds) < _TIMED_SECONDS:
            synchronize()
            started = time.perf_counter()
            model(images)
            synchronize()
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _memory(device: torch.device, *, largest: bool) -> int | None:
    """Bytes in use, now or at most since `_forget_peak`.

    Tensors count on CUDA, the process on the CPU; `None` where it cannot be told.
    """
    if device.type == "cuda":
        cuda = torch.cuda
        return (cuda.max_memory_allocated if largest else cuda.memory_allocated)(device)
    entries = Path("/proc/self/status")
    if device.type != "cpu" or not entries.exists():
        return None
    name = "VmHWM:" if largest else "VmRSS:"
    lines = (line.split() for line in entries.read_text().splitlines())
    return next((int(line[1]) * 1024 for line in lines if line[0] == name), None)


def _give_back_memory() -> None:
    """Give back what earlier models used: memory that is used again would not count as growth."""
    gc.collect()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "cpu" and Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak becomes what it is now
