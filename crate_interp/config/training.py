"""Training, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from crate_interp.config.options import (
    OnError,
    Pictures,
    Precision,
    WeightsConfig,
)
from crate_interp.options import option
from crate_interp.options.ranges import AtLeastOne, Range, ReadProcesses, Side, check_ranges

__all__ = [
    "EvaluateClassifierConfig",
]

Hidden = Annotated[float, Range(0, 1, (0, 1), "between 0 and 1")]


@dataclass(frozen=True)
class EvaluateClassifierConfig(WeightsConfig):
    """Measure top-1 and top-5 accuracy of a classifier, or of a CLIPA model without a head."""

    continues: ClassVar[bool] = False

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
    size: Side | None = option("side of the square input, pixels (default: the model's own)", None)
    batch_size: Pictures = option("images in a forward pass", 64)
    workers: ReadProcesses = option("processes that read images", 2)
    device: str = option("cpu, cuda, cuda:1, mps, or auto", "auto")
    precision: Precision = option("number type of the forward pass", "float32")
    limit: AtLeastOne | None = option("only so many images, evenly spread over the data", None)
    on_error: OnError = option("what an image that cannot be read does", "raise")
    output: Path | None = option("JSON file of the result", None)

    def __post_init__(self) -> None:
        check_ranges(self)
