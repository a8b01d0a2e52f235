"""One frozen dataclass per command: its options, their defaults and their help text.

Standard library only, so that the command line can describe itself without loading torch. A field
becomes `--field-name`, or a positional argument if its metadata says so; its type is checked by
the command line and in `--config FILE.yaml` alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from crate_interp.errors import InputError

__all__ = [
    "ConvertConfig",
    "DownloadConfig",
    "EvaluateConfig",
    "MaskCutConfig",
    "ModelsConfig",
    "TrainConfig",
]

Feature = Literal["auto", "subspace", "query", "key", "value", "tokens", "tokens_in", "codes"]
Precision = Literal["float32", "bfloat16", "float16"]
Refine = Literal["none", "crf", "pydensecrf"]
Solver = Literal["lanczos", "dense"]


def _option(help: str, default: Any = ..., **metadata: Any) -> Any:  # noqa: A002
    metadata["help"] = help
    if default is ...:
        return field(metadata=metadata)
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class MaskCutConfig:
    """Find objects with MaskCut, without labels, and score them as COCO does."""

    model: str = _option("model name, alias, or one of our safetensors files; see `models`")
    weights: Path | None = _option(
        "weight file in any official layout, not the released one; `random`: untrained", None
    )
    model_args: dict[str, Any] = _option("sizes that differ from the named model's (JSON)", {})
    coco: str | None = _option("COCO split (val2017), or `demo` for the built-in scenes", None)
    coco_root: Path | None = _option("folder of the COCO splits and annotations", None)
    images: list[Path] | None = _option("image files or folders, instead of --coco", None)
    annotations: Path | None = _option("COCO annotations of --images, to score against", None)
    output: Path | None = _option("run folder (default: runs/maskcut-MODEL-DATA)", None)
    tau: float = _option("patches are alike above this cosine similarity", 0.15)
    max_masks: int = _option("masks an image, at most", 3)
    size: int | None = _option(
        "side of the square that images are resized to (default: the model's own test size, or "
        "480 rounded down to whole patches)",
        None,
    )
    stride: int | None = _option("pixels between patches, if denser than the patch size", None)
    feature: Feature = _option("what to compare (auto: subspace for CRATE, key for ViT)", "auto")
    block: int = _option("block to read, from 0; negative counts from the last", -1)
    refine: Refine = _option(
        "refinement at input resolution; pydensecrf needs the extra crf", "none"
    )
    solver: Solver = _option("eigenvector solver", "lanczos")
    device: str = _option("cpu, cuda, cuda:1, mps, or auto", "auto")
    precision: Precision = _option("number type of the forward pass", "float32")
    batch_size: int = _option("images in a forward pass", 4)
    limit: int | None = _option("only the first images", None)
    visualize: int = _option("draw overlays of the first images, and a sheet of them", 16)
    strict: bool = _option("stop at the first image that cannot be read", False)

    def __post_init__(self) -> None:
        if (self.coco is None) == (self.images is None):
            raise InputError("give either --coco SPLIT or --images DIR_OR_FILES")
        if self.annotations is not None and self.images is None:
            raise InputError("--annotations goes with --images; --coco brings its own")
        for name in ("max_masks", "size", "stride", "batch_size", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}: expected at least 1, found {value}")
        if self.visualize < 0:
            raise InputError(f"visualize: expected 0 or more, found {self.visualize}")
        if not -1 < self.tau < 1:
            raise InputError(f"tau: expected a cosine between -1 and 1, found {self.tau}")


@dataclass(frozen=True)
class EvaluateConfig:
    """Score a COCO results file: AP of boxes and masks, class-agnostic unless told otherwise."""

    results: Path = _option("results JSON as COCO defines it", positional=True)
    coco: str | None = _option("COCO split the results belong to, or `demo`", None)
    coco_root: Path | None = _option("folder of the COCO splits and annotations", None)
    annotations: Path | None = _option("a COCO annotation file, instead of --coco", None)
    category_aware: bool = _option("match categories, as for a trained detector", False)

    def __post_init__(self) -> None:
        if (self.coco is None) == (self.annotations is None):
            raise InputError("give either --coco SPLIT or --annotations FILE")


@dataclass(frozen=True)
class DownloadConfig:
    """Fetch a data set and check it; a broken download goes on where it stopped."""

    name: str | None = _option("data set, for instance coco-val2017", None, positional=True)
    list: bool = _option("say what can be fetched, and where it goes", False)
    root: Path | None = _option("data folder (default: $CRATE_INTERP_DATA, or the user's)", None)

    def __post_init__(self) -> None:
        if self.name is None and not self.list:
            raise InputError("name a data set, or ask for them with --list")


@dataclass(frozen=True)
class ConvertConfig:
    """Turn a weight file of any official layout into safetensors with its metadata."""

    input: Path = _option("weight file (.npz, .pth, .pth.tar, safetensors)", positional=True)
    output: Path = _option("the safetensors file to write", positional=True)
    model: str = _option("model name or alias of the weights")
    model_args: dict[str, Any] = _option(
        "sizes that differ from the named model's and that the file does not tell (JSON, for "
        "instance '{\"num_heads\": 3}')",
        {},
    )


@dataclass(frozen=True)
class ModelsConfig:
    """List models: parameters, patch and input size, weights, and whether they are here."""

    pattern: str | None = _option("names to list, with * and ?", None, positional=True)


@dataclass(frozen=True)
class TrainConfig:
    """Train a model by a recipe; a stopped run goes on with the same command."""

    recipe: Path = _option("recipe, a YAML file; see pipelines/train_*.yaml", positional=True)
    output: Path = _option("run folder: weights, checkpoints, metrics.csv")
    set: list[str] | None = _option("key=value: recipe keys to change, several of them if so", None)
