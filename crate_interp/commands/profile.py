"""The command `profile`: parameters, multiply-adds, activations, speed and memory of models."""

from __future__ import annotations

import ctypes
import gc
import statistics
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from crate_interp.config import ProfileConfig
from crate_interp.errors import InputError
from crate_interp.models import ForwardCost, forward_cost, inference_precision
from crate_interp.options.choices import Precision
from crate_interp.runs.inference import describe_weights, device_of
from crate_interp.runs.number_files import versions, write_table
from crate_interp.weights import ModelName, create_backbone, create_on_meta, resolve_name

__all__ = ["run"]

_WARM_UP_RUNS = 3
_TIMED_RUNS = 10  # at least, and for at least
_TIMED_SECONDS = 1.0
_HEADINGS = ("MODEL", "PARAMETERS", "GMACS", "GFLOPS", "ACTIVATIONS", "IMAGES/S", "PEAK MEMORY")


@dataclass(frozen=True)
class _Row:
    """A line of the CSV."""

    model: str
    size: int
    batch_size: int
    device: str
    precision: str
    parameters: int
    multiply_adds: int
    flops: int
    activations: int
    images_per_second: float
    peak_memory_bytes: int | None

    def cells(self) -> tuple[str, ...]:
        memory = self.peak_memory_bytes
        return (
            self.model,
            f"{self.parameters / 1e6:.2f} M",
            f"{self.multiply_adds / 1e9:.2f}",
            f"{self.flops / 1e9:.2f}",
            f"{self.activations / 1e6:.2f} M",
            f"{self.images_per_second:.4g}",
            "-" if memory is None else f"{memory / 1e6:.0f} MB",
        )


def run(config: ProfileConfig) -> int:
    """Measure each model with random weights, print a table, and write it as CSV if asked.

    Returns:
        0.

    Raises:
        InputError: A model, its size or the device cannot be had.
    """
    device = device_of(config.device)
    sizes = {"img_size": config.size}
    if config.num_classes is not None:
        sizes["num_classes"] = config.num_classes
    names = [resolve_name(name) for name in config.models]
    costs = [_cost_of(name, sizes) for name in names]  # refuses what is wrong before it measures
    # What libraries load at the first forward pass of a process is no model's memory.
    _measure(resolve_name("demo"), {"img_size": 32}, replace(config, size=32), device)
    rows = []
    for name, cost in zip(names, costs, strict=True):
        print(f"{name} ...", file=sys.stderr)
        speed, memory = _measure(name, sizes, config, device)
        rows.append(
            _Row(
                model=str(name),
                size=config.size,
                batch_size=config.batch_size,
                device=str(device),
                precision=config.precision,
                **asdict(cost),
                flops=cost.flops,
                images_per_second=speed,
                peak_memory_bytes=memory,
            )
        )
    _print_table(rows, config, device)
    if config.output is not None:
        settings = {name: value for name, value in asdict(config).items() if name != "output"}
        about = {"weights": describe_weights(None), "settings": settings, "versions": versions()}
        cells = [list(asdict(row).values()) for row in rows]
        write_table(config.output, list(asdict(rows[0])), cells, about)
        print(config.output)
    return 0


def _cost_of(name: ModelName, sizes: dict[str, int]) -> ForwardCost:
    model = create_on_meta(name, **sizes).eval()
    patches = model.patch_embed.patch_size
    if any(sizes["img_size"] % patch for patch in patches):
        raise InputError(
            f"size {sizes['img_size']}: expected a multiple of the patch of {patches[0]} pixels "
            f"of {name}"
        )
    return forward_cost(model, torch.empty(1, 3, *model.patch_embed.img_size, device="meta"))


def _measure(
    name: ModelName, sizes: dict[str, int], config: ProfileConfig, device: torch.device
) -> tuple[float, int | None]:
    """Images a second, and the bytes that model and forward passes need at most."""
    _give_back_memory()
    before = _memory(device, largest=False)
    torch.manual_seed(0)
    with torch.device(device):
        model = create_backbone(name, **sizes)
        images = torch.randn(config.batch_size, 3, config.size, config.size)
    _forget_peak(device)
    seconds = _seconds_a_run(model, images, config.precision)
    peak = _memory(device, largest=True)
    memory = None if before is None or peak is None else peak - before
    return config.batch_size / seconds, memory


@torch.inference_mode()
def _seconds_a_run(model: nn.Module, images: Tensor, precision: Precision) -> float:
    """Median of the timed runs."""
    synchronize = torch.get_device_module(images.device).synchronize
    seconds: list[float] = []
    with inference_precision(precision, model):
        for _ in range(_WARM_UP_RUNS):
            model(images)
        while len(seconds) < _TIMED_RUNS or sum(seconds) < _TIMED_SECONDS:
            synchronize()
            started = time.perf_counter()
            model(images)
            synchronize()
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _memory(device: torch.device, *, largest: bool) -> int | None:
    """Bytes in use, now or at most since `_forget_peak`.

    On CUDA of tensors, on the CPU of the process; `None` where it cannot be told.
    """
    if device.type == "cuda":
        cuda = torch.cuda
        return (cuda.max_memory_allocated if largest else cuda.memory_allocated)(device)
    entries = Path("/proc/self/status")
    if device.type != "cpu" or not entries.exists():
        return None
    wanted = "VmHWM:" if largest else "VmRSS:"
    lines = (line.split() for line in entries.read_text().splitlines())
    return next((int(line[1]) * 1024 for line in lines if line[0] == wanted), None)


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


def _print_table(rows: list[_Row], config: ProfileConfig, device: torch.device) -> None:
    cells = [_HEADINGS, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for name, *numbers in cells:
        aligned = (number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True))
        print("  ".join([name.ljust(widths[0]), *aligned]))
    memory = {
        "cuda": "largest memory of tensors on the GPU (torch.cuda.max_memory_allocated)",
        "cpu": "growth of the process's resident memory, at its largest",
    }.get(device.type, "not measured on this device")
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    print(
        f"\nOf one image of {config.size} x {config.size} pixels: multiply-adds (GMACs) and FLOPs, "
        "two each, of\nconvolutions, linear layers and attention products; activations are what "
        "convolutions and\nlinear layers put out.\n"
        f"Images/s: median of {_TIMED_RUNS} runs or more, random weights, batch "
        f"{config.batch_size}, {config.precision}, {device}{threads}.\nMemory: {memory}."
    )
