"""Training, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from crate_interp.config.options import (
    OnError,
    Precision,
    Spent,
    option,
)
from crate_interp.errors import InputError

__all__ = [
    "CurvesConfig",
    "EvaluateClassifierConfig",
    "ReconstructConfig",
    "TrainConfig",
]


@dataclass(frozen=True)
class TrainConfig:
    """Train a model by a recipe; a stopped run goes on with the same command."""

    recipe: Path = option(
        "recipe, a YAML file; see pipelines/train_*.yaml and pretrain_*.yaml", positional=True
    )
    output: Path = option("run folder: weights, checkpoints, metrics.csv")
    set: list[str] | None = option(
        "key=value: recipe keys to change, several of them if so", None, several=str
    )


@dataclass(frozen=True)
class CurvesConfig:
    """Draw loss, accuracy and probes of training runs in one figure, as PNG and PDF."""

    runs: list[Path] = option("run folders of `train`", positional=True, several=Path)
    output: Path = option("the PNG; a PDF of the same name is put beside it", Path("curves.png"))
    x: Spent = option(
        "what a run has spent; a run whose initial weights come from another run of the figure "
        "starts where that one ends",
        "steps",
    )

    def __post_init__(self) -> None:
        if self.output.suffix.lower() != ".png":
            raise InputError(f"output: expected a file name ending in .png, found {self.output}")


@dataclass(frozen=True)
class EvaluateClassifierConfig:
    """Measure top-1 and top-5 accuracy of a classifier, or of a CLIPA model without a head."""

    model: str = option("model name, alias, or one of our safetensors files; see `models`")
    data: str = option(
        "folder of class folders (the split below it, or not), whose sorted names are the labels "
        "0, 1, ... (of `.in1k` heads: the 1000 WordNet ids of ImageNet-1K, sorted); or torch/NAME, "
        "hfds/NAME, or `scenes`: held-out built-in ones, as training draws them"
    )
    weights: Path | None = option(
        "weight file in any official layout, not the released one; `random`: untrained", None
    )
    model_args: dict[str, Any] = option("sizes that differ from the named model's (JSON)", {})
    data_root: Path | None = option("where torch/NAME or hfds/NAME lies", None)
    data_args: dict[str, Any] = option(
        "more arguments of timm's create_dataset (JSON, for instance '{\"download\": true}')", {}
    )
    split: str = option("part of the data", "validation")
    classes: Path | None = option(
        "zero-shot (CLIPA models): file of the class names, one a line, in label order", None
    )
    templates: list[str] = option(
        "zero-shot: prompts, {} being the class name; their embeddings are averaged",
        ["a photo of a {}."],
        several=str,
    )
    size: int | None = option("side of the square input, pixels (default: the model's own)", None)
    batch_size: int = option("pictures in a forward pass", 64)
    workers: int = option("processes that read pictures", 2)
    device: str = option("cpu, cuda, cuda:1, mps, or auto", "auto")
    precision: Precision = option("number type of the forward pass", "float32")
    limit: int | None = option("only so many pictures, evenly spread over the data", None)
    on_error: OnError = option("what a picture that cannot be read does", "raise")
    output: Path | None = option("JSON file of the result", None)

    def __post_init__(self) -> None:
        for name in ("size", "batch_size", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}: expected at least 1, found {value}")
        if self.workers < 0:
            raise InputError(f"workers: expected 0 or more, found {self.workers}")


@dataclass(frozen=True)
class ReconstructConfig:
    """Hide patches of pictures and draw what a CRATE-MAE predicts of them."""

    images: list[Path] = option("image files or folders", positional=True, several=Path)
    output: Path = option("the figure, a PNG; a PDF of the same name goes with it")
    model: str | None = option(
        "CRATE-MAE: name, alias, or one of our safetensors files; see `models`", None
    )
    weights: Path | None = option(
        "weight file in the official layout, not the released one; ours goes without --model", None
    )
    model_args: dict[str, Any] = option("sizes that differ from the named model's (JSON)", {})
    mask_ratio: float = option("share of the patches to hide", 0.75)
    seed: int = option("of the choice of patches", 0)
    size: int | None = option(
        "side of the square that the middle of a picture is resized to (default: the model's)", None
    )
    normalised_target: Literal["auto", "yes", "no"] = option(
        "whether the model predicts patches less their mean and over their deviation (auto: what "
        "the file says; official files do not: no)",
        "auto",
    )

    def __post_init__(self) -> None:
        if self.model is None and self.weights is None:
            raise InputError("give --model NAME, --weights FILE, or both")
        if not 0 < self.mask_ratio < 1:
            raise InputError(f"mask_ratio: expected between 0 and 1, found {self.mask_ratio}")
        if self.size is not None and self.size < 1:
            raise InputError(f"size: expected at least 1, found {self.size}")
        if self.seed < 0:
            raise InputError(f"seed: expected 0 or more, found {self.seed}")
