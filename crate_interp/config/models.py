"""What there is, and what it costs: models, weights, data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from crate_interp.config.options import (
    Pictures,
    Precision,
    WeightsConfig,
)
from crate_interp.errors import InputError
from crate_interp.options import option
from crate_interp.options.ranges import Range, Side, check_ranges

__all__ = [
    "ConvertConfig",
    "DownloadConfig",
    "ModelsConfig",
    "ProfileConfig",
]

Classes = Annotated[int, Range(0, 1_000_000)]


@dataclass(frozen=True)
class DownloadConfig:
    """Fetch a data set and check it; a broken download goes on where it stopped."""

    continues: ClassVar[bool] = True

    name: str | None = option("data set, for instance coco-val2017", None, positional=True)
    list: bool = option("say what can be fetched, and where it goes", False)
    root: Path | None = option("data folder (default: $CRATE_INTERP_DATA, or the user's)", None)

    def __post_init__(self) -> None:
        if self.name is None and not self.list:
            raise InputError("name a data set, or ask for them with --list")


@dataclass(frozen=True)
class ConvertConfig(WeightsConfig):
    """Turn a weight file of any official layout into safetensors with its metadata."""

    continues: ClassVar[bool] = False

    input: Path = option("weight file (.npz, .pth, .pth.tar, safetensors)", positional=True)
    output: Path = option("the safetensors file to write", positional=True)
    model: str = option("model name or alias of the weights")
    model_args: dict[str, Any] = option(
        "sizes that differ from the named model's and that the file does not tell (JSON, for "
        "instance '{\"num_heads\": 3}')",
        {},
    )

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class ModelsConfig:
    """List models: parameters, patch and input size, weights, and whether they are here."""

    continues: ClassVar[bool] = False

    pattern: str | None = option("names to list, with * and ?", None, positional=True)


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
