"""What there is, and what it costs: models, weights, data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from crate_interp.config.options import (
    Pictures,
    Precision,
)
from crate_interp.options import option
from crate_interp.options.ranges import Range, Side, check_ranges

__all__ = [
    "ProfileConfig",
]

Classes = Annotated[int, Range(0, 1_000_000)]


@dataclass(frozen=True)
class ProfileConfig:
    """Compare models by parameters, FLOPs, activations, images a second and peak memory."""

    continues: ClassVar[bool] = False

    models: list[str] = option("model names or aliases", positional=True, several=str)
    size: Side = option("side of the square input, pixels", 224)
    num_classes: Classes | None = option("outputs of the head (default: each model's own)", None)
    batch_size: Pictures = option("images in a forward pass, for speed and memory", 1)
    device: str = option("cpu, cuda, cuda:1, mps, or auto", "auto")
    precision: Precision = option("number type of the forward pass", "float32")
    output: Path | None = option("CSV file of the table", None)

    def __post_init__(self) -> None:
        check_ranges(self)
