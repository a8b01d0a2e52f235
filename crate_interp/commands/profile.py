"""Parameters, multiply-adds, activations, speed and memory of models, side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from crate_interp import models, visualization, weights
from crate_interp.commands.published import published_top1
from crate_interp.errors import InputError
from crate_interp.options import Range, check_ranges, option
from crate_interp.options.choices import Pictures, Precision
from crate_interp.options.ranges import Side
from crate_interp.runs.command import Command
from crate_interp.runs.options import FigureOptions

if TYPE_CHECKING:
    import torch

    from crate_interp.models import ForwardCost
    from crate_interp.weights import ModelName

__all__ = ["Profile"]

Classes = Annotated[int, Range(0, 1_000_000)]
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
    images_per_second: float | None
    peak_memory_bytes: int | None

    def cells(self) -> tuple[str, ...]:
        memory = self.peak_memory_bytes
        return (
            self.model,
            f"{self.parameters / 1e6:.2f} M",
            f"{self.multiply_adds / 1e9:.2f}",
            f"{self.flops / 1e9:.2f}",
            f"{self.activations / 1e6:.2f} M",
            "-" if self.images_per_second is None else f"{self.images_per_second:.4g}",
            "-" if memory is None else f"{memory / 1e6:.0f} MB",
        )


@dataclass(frozen=True, kw_only=True)
class Profile(Command):
    """Compare models by size, FLOPs, speed and memory."""

    group: ClassVar[str] = "score"

    models: list[str] = option("model names or aliases", positional=True, several=str)
    size: Side = option("side of the square input, pixels", 224)
    num_classes: Classes | None = option("outputs of the head (default: each model's own)", None)
    batch_size: Pictures = option("images in a forward pass, for speed and memory", 1)
    device: str = option("cpu, cuda, cuda:1, mps, or auto", "auto")
    precision: Precision = option("number type of the forward pass", "float32")
    count_only: bool = option("count, but measure neither speed nor memory", False)
    output: Path | None = option("CSV file of the table", None, presentation=True)
    figure: Path | None = option(
        "NAME.png: published top-1 on ImageNet-1K against multiply-adds",
        None,
        presentation=True,
    )

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.figure is not None and self.figure.suffix.lower() != ".png":
            raise InputError(f"{self.figure}: expected a file name that ends in .png")

    def run(self) -> int:
        """Measure each model with random weights, print a table, and write it as CSV if asked.

        Raises:
            InputError: A model, its size or the device cannot be had.
        """
        from crate_interp.runs.inference import describe_weights, device_of
        from crate_interp.runs.number_files import write_table
        from crate_interp.runs.provenance import settings_of, versions
        from crate_interp.runs.speed import measure_speed

        device = device_of(self.device)
        sizes = {"img_size": self.size}
        if self.num_classes is not None:
            sizes["num_classes"] = self.num_classes
        names = [weights.resolve_name(name) for name in self.models]
        top1 = [published_top1(str(name).split(".")[0]) for name in names]
        if self.figure is not None and not any(top1):
            raise InputError(f"{self.figure}: expected a model with a published top-1, found none")
        costs = [_cost_of(name, sizes) for name in names]  # refuses before anything is measured
        if not self.count_only:
            # What libraries load at the first forward pass of a process is no model's memory.
            demo, small = weights.resolve_name("demo"), (self.batch_size, 3, 32, 32)
            measure_speed(demo, {"img_size": 32}, small, self.precision, device)
        rows = []
        speed, memory = None, None
        for name, cost in zip(names, costs, strict=True):
            if not self.count_only:
                print(f"{name} ...", file=sys.stderr)
                shape = (self.batch_size, 3, self.size, self.size)
                speed, memory = measure_speed(name, sizes, shape, self.precision, device)
            rows.append(
                _Row(
                    model=str(name),
                    size=self.size,
                    batch_size=self.batch_size,
                    device=str(device),
                    precision=self.precision,
                    **asdict(cost),
                    flops=cost.flops,
                    images_per_second=speed,
                    peak_memory_bytes=memory,
                )
            )
        _print_table(rows, self, device)
        if self.output is not None:
            about = {
                "weights": describe_weights(None),
                "settings": settings_of(self),
                "versions": versions(),
            }
            header = [column.name for column in fields(_Row)]
            write_table(self.output, header, map(astuple, rows), about)
            print(self.output)
        if self.figure is not None:
            self._draw(rows, top1, self.figure)
        return 0

    def _draw(self, rows: Sequence[_Row], top1: Sequence[float | None], path: Path) -> None:
        from crate_interp.runs.figure_files import list_files, save_figure

        points = [
            (name, row.multiply_adds / 1e9, value)
            for name, row, value in zip(self.models, rows, top1, strict=True)
            if value is not None
        ]
        note = f"Multiply-adds of an image of {self.size} pixels; top-1 as published."
        drawn = save_figure(visualization.accuracy_figure(points, note), path, FigureOptions())
        print(list_files(drawn))


def _cost_of(name: ModelName, sizes: dict[str, int]) -> ForwardCost:
    import torch

    model = weights.create_on_meta(name, **sizes).eval()
    patches = models.patch_hw_of(models.embedding_of(model))
    if any(sizes["img_size"] % patch for patch in patches):
        raise InputError(
            f"size {sizes['img_size']}: expected a multiple of the patch of {patches[0]} pixels "
            f"of {name}"
        )
    images = torch.empty(1, 3, sizes["img_size"], sizes["img_size"], device="meta")
    return models.forward_cost(model, images)


def _print_table(rows: list[_Row], options: Profile, device: torch.device) -> None:
    import torch

    from crate_interp.runs.speed import TIMED_RUNS

    cells = [_HEADINGS, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for name, *numbers in cells:
        aligned = (number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True))
        print("  ".join([name.ljust(widths[0]), *aligned]))
    side = options.size
    print(
        f"\nOf one image of {side} x {side} pixels: multiply-adds (GMACs) and FLOPs, "
        "two each, of\nconvolutions, linear layers and attention products; activations are what "
        "convolutions and\nlinear layers put out."
    )
    if options.count_only:
        return
    memory = {
        "cuda": "largest memory of tensors on the GPU (torch.cuda.max_memory_allocated)",
        "cpu": "growth of the process's resident memory, at its largest",
    }.get(device.type, "not measured on this device")
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    print(
        f"Images/s: median of {TIMED_RUNS} runs or more, random weights, batch "
        f"{options.batch_size}, {options.precision}, {device}{threads}.\nMemory: {memory}."
    )
