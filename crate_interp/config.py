"""One frozen dataclass per command: its options, their defaults and their help text.

Standard library only, so that the command line can describe itself without loading torch. A field
becomes `--field-name`, or a positional argument if its metadata says so, and takes several values
if `several` names their type. Types are checked by the command line and in `--config FILE.yaml`
alike.
"""

from __future__ import annotations

import re
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from crate_interp.errors import InputError

__all__ = [
    "AblateConfig",
    "AtlasConfig",
    "AtomsConfig",
    "AttentionConfig",
    "AttributeConfig",
    "ConvertConfig",
    "CurvesConfig",
    "DownloadConfig",
    "EvaluateClassifierConfig",
    "EvaluateConfig",
    "LayersConfig",
    "MaskCutConfig",
    "ModelsConfig",
    "PcaConfig",
    "ProfileConfig",
    "ReconstructConfig",
    "SaliencyBenchmarkConfig",
    "SemanticBenchmarkConfig",
    "TrainConfig",
    "VocBenchmarkConfig",
]

AttentionFigure = Literal["heads", "semantics", "layers", "rollout", "curves"]
BatchSize = int | Literal["auto"]
KeepBy = Literal["mass", "entries"]
LabelledBy = Literal["kmeans", "linear"]
Feature = Literal[
    "auto", "subspace", "query", "key", "value", "tokens", "tokens_in", "codes", "neurons"
]
Foreground = Literal["auto", "none"] | float
Precision = Literal["float32", "bfloat16_attention", "bfloat16", "float16"]
PrecisionChoice = Literal["auto", "float32", "bfloat16_attention", "bfloat16", "float16"]
OnError = Literal["raise", "skip"]
Refine = Literal["none", "crf", "pydensecrf"]
Resolution = Literal["full", "grid"]
Solver = Literal["lanczos", "dense"]
Spent = Literal["steps", "pictures", "seconds"]
Unit = Literal["class", "object"]


def _option(help: str, default: Any = ..., **metadata: Any) -> Any:  # noqa: A002
    metadata["help"] = help
    if default is ...:
        return field(metadata=metadata)
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: copy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What commands that put images through a model have in common."""

    model: str = _option("model name, alias, or one of our safetensors files; see `models`")
    weights: Path | None = _option(
        "weight file in any official layout, not the released one; `random`: untrained", None
    )
    model_args: dict[str, Any] = _option("sizes that differ from the named model's (JSON)", {})
    size: int | None = _option(
        "side of the square that images are resized to (default: the model's own test size, or "
        "480 rounded down to whole patches)",
        None,
    )
    stride: int | None = _option("pixels between patches, if denser than the patch size", None)
    device: str = _option("cpu, cuda, cuda:1, mps, or auto", "auto")
    precision: PrecisionChoice = _option(
        "number type of the forward pass (auto: the fastest that keeps the masks)", "auto"
    )
    batch_size: BatchSize = _option("images in a forward pass (auto: by tokens and memory)", "auto")
    workers: int | None = _option(
        "processes that read images, and threads that finish them (default: half of the cores, at "
        "most 8); 0: no processes, and one thread",
        None,
    )
    limit: int | None = _option("only the first images", None)

    def __post_init__(self) -> None:
        for name in ("size", "stride", "batch_size", "limit"):
            value = getattr(self, name)
            if value not in (None, "auto") and value < 1:
                raise InputError(f"{name}: expected at least 1, found {value}")
        if self.workers is not None and self.workers < 0:
            raise InputError(f"workers: expected 0 or more, found {self.workers}")


@dataclass(frozen=True, kw_only=True)
class ObserveConfig(ModelConfig):
    """What commands that look inside a model have in common."""

    images: list[Path] = _option(
        "image files or folders, or `demo` for the built-in scenes", positional=True, several=Path
    )


@dataclass(frozen=True, kw_only=True)
class MaskCutConfig(ModelConfig):
    """Find objects with MaskCut, without labels, and score them as COCO does."""

    coco: str | None = _option("COCO split (val2017), or `demo` for the built-in scenes", None)
    coco_root: Path | None = _option("folder of the COCO splits and annotations", None)
    images: list[Path] | None = _option(
        "image files or folders, instead of --coco", None, several=Path
    )
    annotations: Path | None = _option("COCO annotations of --images, to score against", None)
    output: Path | None = _option("run folder (default: runs/maskcut-MODEL-DATA)", None)
    tau: float = _option("patches are alike above this cosine similarity", 0.15)
    max_masks: int = _option("masks an image, at most", 3)
    feature: Feature = _option("what to compare (auto: subspace for CRATE, key for ViT)", "auto")
    block: int = _option("block to read, from 0; negative counts from the last", -1)
    refine: Refine = _option(
        "refinement at input resolution; pydensecrf needs the extra crf", "none"
    )
    solver: Solver = _option("eigenvector solver", "lanczos")
    visualize: int = _option("draw overlays of the first images, and a sheet of them", 16)
    strict: bool = _option("stop at the first image that cannot be read", False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.coco is None) == (self.images is None):
            raise InputError("give either --coco SPLIT or --images DIR_OR_FILES")
        if self.annotations is not None and self.images is None:
            raise InputError("--annotations goes with --images; --coco brings its own")
        if self.max_masks < 1:
            raise InputError(f"max_masks: expected at least 1, found {self.max_masks}")
        if self.visualize < 0:
            raise InputError(f"visualize: expected 0 or more, found {self.visualize}")
        if not -1 < self.tau < 1:
            raise InputError(f"tau: expected a cosine between -1 and 1, found {self.tau}")


@dataclass(frozen=True, kw_only=True)
class AttentionConfig(ObserveConfig):
    """Draw what the heads of a model attend to, and measure how far and how widely they look."""

    output: Path = _option("folder of the figures (PNG, PDF) and their numbers (npz, CSV)")
    figure: list[AttentionFigure] = _option(
        "heads: maps, masks and outlines of each image; layers: all blocks by all heads of each "
        "image; semantics: chosen heads down, images across; rollout: after each block, images "
        "across; curves: distance, entropy and rollout by block",
        ["heads"],
        several=AttentionFigure,
    )
    block: int = _option("block to read, from 0; negative counts from the last", -1)
    head: Literal["all", "mean"] | int = _option(
        "of heads and layers: each head, their mean, or one head, from 0", "all"
    )
    query: str | None = _option(
        "Y,X: attention of the patch at this pixel of the original image, not of the class token",
        None,
    )
    threshold: float = _option("share that a mask keeps", 0.6)
    threshold_by: KeepBy = _option(
        "what is shared out: the mass of attention (DINO) or the patches (CRATE)", "mass"
    )
    heads: str = _option(
        "heads of semantics: numbers such as 0,3,5; auto: the four whose attended patches have the "
        "most similar keys in all images",
        "auto",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.threshold <= 1:
            raise InputError(f"threshold: expected a share in (0, 1], found {self.threshold}")
        if not self.figure:
            raise InputError("figure: expected at least one, found none")
        self.query_yx, self.head_numbers  # noqa: B018  # refuse what cannot be read

    @property
    def query_yx(self) -> tuple[int, int] | None:
        """Pixel of `query`, row first."""
        if self.query is None:
            return None
        numbers = _numbers_of(self.query)
        if numbers is None or len(numbers) != 2:
            raise InputError(f"query: expected Y,X such as 120,64, found {self.query!r}")
        return numbers[0], numbers[1]

    @property
    def head_numbers(self) -> list[int] | None:
        """Numbers of `heads`, each once; `None` for auto."""
        if self.heads == "auto":
            return None
        numbers = _numbers_of(self.heads)
        if numbers is None:
            raise InputError(f"heads: expected auto or numbers as 0,3,5, found {self.heads!r}")
        return list(dict.fromkeys(numbers))


def _numbers_of(text: str) -> list[int] | None:
    parts = [part.strip() for part in text.split(",")]
    return [int(part) for part in parts] if all(map(str.isdecimal, parts)) else None


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(ModelConfig):
    """What the benchmarks of labelled images have in common."""

    feature: Feature = _option("features to use (auto: subspace for CRATE, key for ViT)", "auto")
    block: int = _option("block to read, from 0; negative counts from the last", -1)
    output: Path | None = _option("run folder (default: runs/BENCHMARK-MODEL-DATA)", None)


@dataclass(frozen=True, kw_only=True)
class VocBenchmarkConfig(BenchmarkConfig):
    """Score attention masks by mIoU on VOC 2012, by the protocols of the papers."""

    data: Path = _option(
        "folder of JPEGImages, SegmentationClass and ImageSets; or `demo`: the built-in scenes",
        positional=True,
    )
    split: str = _option("list of images, ImageSets/Segmentation/SPLIT.txt", "val")
    protocol: KeepBy = _option(
        "patches that a mask keeps: the share of the patches (entries: CRATE papers) or of the "
        "attention (mass: DINO)",
        "entries",
    )
    keep: float = _option("that share", 0.6)
    per: Unit = _option("what has a best head: a class of an image (CRATE), or an object", "class")
    background: bool = _option("background counts as a class", False)
    resolution: Resolution = _option("compare at the image's pixels, or on the patch grid", "full")
    pictures: int = _option("draw the masks of the first images", 6)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.keep <= 1:
            raise InputError(f"keep: expected a share in (0, 1], found {self.keep}")
        if self.pictures < 0:
            raise InputError(f"pictures: expected 0 or more, found {self.pictures}")


@dataclass(frozen=True, kw_only=True)
class SemanticBenchmarkConfig(BenchmarkConfig):
    """Score semantic segmentation by a model's features: clusters, or a linear probe."""

    data: Path = _option(
        "folder as VOC or as ADE20K has it; or `demo`: the built-in scenes", positional=True
    )
    method: LabelledBy = _option(
        "k-means of the features, a cluster a class, matched to the classes; or logistic "
        "regression of them, learnt on --train-split",
        "kmeans",
    )
    split: str = _option("part of the data to score on", "val")
    train_split: str = _option("part of the data that a linear probe learns from", "train")
    patches: int = _option(
        "patches, of all images together, that clusters or probe learn from", 200_000
    )
    seed: int = _option("of the choice of the patches, and of k-means", 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patches < 1 or self.seed < 0:
            raise InputError(
                f"patches, seed: expected at least 1 and 0, found {self.patches}, {self.seed}"
            )


@dataclass(frozen=True, kw_only=True)
class SaliencyBenchmarkConfig(BenchmarkConfig):
    """Score masks of the salient object: TokenCut, attention, the first principal component."""

    images: Path = _option("folder of images", positional=True)
    masks: Path = _option(
        "folder of their masks, of the same names, white being the object", positional=True
    )
    tau: float = _option("of TokenCut: patches are alike above this cosine similarity", 0.2)
    keep: float = _option("share of the attention, by mass, that its mask keeps", 0.6)
    pictures: int = _option("draw the masks of the first images", 6)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -1 < self.tau < 1:
            raise InputError(f"tau: expected a cosine between -1 and 1, found {self.tau}")
        if not 0 < self.keep <= 1:
            raise InputError(f"keep: expected a share in (0, 1], found {self.keep}")
        if self.pictures < 0:
            raise InputError(f"pictures: expected 0 or more, found {self.pictures}")


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
class ReconstructConfig:
    """Hide patches of pictures and draw what a CRATE-MAE predicts of them."""

    images: list[Path] = _option("image files or folders", positional=True, several=Path)
    output: Path = _option("the figure, a PNG; a PDF of the same name goes with it")
    model: str | None = _option(
        "CRATE-MAE: name, alias, or one of our safetensors files; see `models`", None
    )
    weights: Path | None = _option(
        "weight file in the official layout, not the released one; ours goes without --model", None
    )
    model_args: dict[str, Any] = _option("sizes that differ from the named model's (JSON)", {})
    mask_ratio: float = _option("share of the patches to hide", 0.75)
    seed: int = _option("of the choice of patches", 0)
    size: int | None = _option(
        "side of the square that the middle of a picture is resized to (default: the model's)", None
    )
    normalised_target: Literal["auto", "yes", "no"] = _option(
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


@dataclass(frozen=True)
class TrainConfig:
    """Train a model by a recipe; a stopped run goes on with the same command."""

    recipe: Path = _option(
        "recipe, a YAML file; see pipelines/train_*.yaml and pretrain_*.yaml", positional=True
    )
    output: Path = _option("run folder: weights, checkpoints, metrics.csv")
    set: list[str] | None = _option(
        "key=value: recipe keys to change, several of them if so", None, several=str
    )


@dataclass(frozen=True)
class CurvesConfig:
    """Draw loss, accuracy and probes of training runs in one figure, as PNG and PDF."""

    runs: list[Path] = _option("run folders of `train`", positional=True, several=Path)
    output: Path = _option("the PNG; a PDF of the same name is put beside it", Path("curves.png"))
    x: Spent = _option(
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

    model: str = _option("model name, alias, or one of our safetensors files; see `models`")
    data: str = _option(
        "folder of class folders (the split below it, or not), whose sorted names are the labels "
        "0, 1, ... (of `.in1k` heads: the 1000 WordNet ids of ImageNet-1K, sorted); or torch/NAME, "
        "hfds/NAME, or `scenes`: held-out built-in ones, as training draws them"
    )
    weights: Path | None = _option(
        "weight file in any official layout, not the released one; `random`: untrained", None
    )
    model_args: dict[str, Any] = _option("sizes that differ from the named model's (JSON)", {})
    data_root: Path | None = _option("where torch/NAME or hfds/NAME lies", None)
    data_args: dict[str, Any] = _option(
        "more arguments of timm's create_dataset (JSON, for instance '{\"download\": true}')", {}
    )
    split: str = _option("part of the data", "validation")
    classes: Path | None = _option(
        "zero-shot (CLIPA models): file of the class names, one a line, in label order", None
    )
    templates: list[str] = _option(
        "zero-shot: prompts, {} being the class name; their embeddings are averaged",
        ["a photo of a {}."],
        several=str,
    )
    size: int | None = _option("side of the square input, pixels (default: the model's own)", None)
    batch_size: int = _option("pictures in a forward pass", 64)
    workers: int = _option("processes that read pictures", 2)
    device: str = _option("cpu, cuda, cuda:1, mps, or auto", "auto")
    precision: Precision = _option("number type of the forward pass", "float32")
    limit: int | None = _option("only so many pictures, evenly spread over the data", None)
    on_error: OnError = _option("what a picture that cannot be read does", "raise")
    output: Path | None = _option("JSON file of the result", None)

    def __post_init__(self) -> None:
        for name in ("size", "batch_size", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}: expected at least 1, found {value}")
        if self.workers < 0:
            raise InputError(f"workers: expected 0 or more, found {self.workers}")


@dataclass(frozen=True)
class ProfileConfig:
    """Compare models by parameters, FLOPs, activations, images a second and peak memory."""

    models: list[str] = _option("model names or aliases", positional=True, several=str)
    size: int = _option("side of the square input, pixels", 224)
    num_classes: int | None = _option("outputs of the head (default: each model's own)", None)
    batch_size: int = _option("images in a forward pass, for speed and memory", 1)
    device: str = _option("cpu, cuda, cuda:1, mps, or auto", "auto")
    precision: Precision = _option("number type of the forward pass", "float32")
    output: Path | None = _option("CSV file of the table", None)

    def __post_init__(self) -> None:
        for name in ("size", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected at least 1, found {getattr(self, name)}")
        if self.num_classes is not None and self.num_classes < 0:
            raise InputError(f"num_classes: expected 0 or more, found {self.num_classes}")


@dataclass(frozen=True, kw_only=True)
class AblateConfig(ObserveConfig):
    """Silence heads or atoms, one at a time, and rank them by what changes."""

    output: Path = _option("folder: figure (PNG, PDF), ranking (CSV), numbers of each image (npz)")
    target: Literal["heads", "atoms"] = _option(
        "what to silence; atoms are sparse codes, for ViTs the neurons of the MLP", "heads"
    )
    block: int | Literal["all"] = _option("from 0; negative counts from the last", "all")
    effect: Literal["logit", "mask"] = _option(
        "what may change: the score of a class, or the mask of MaskCut's first object (1 - IoU)",
        "logit",
    )
    class_: int | None = _option("number of the class (default: the predicted one)", None)
    measured: int = _option(
        "atoms to silence: so many of the largest first-order estimate (--effect logit) or of the "
        "largest written energy (--effect mask), mean over the images; 0: all",
        100,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.class_ is not None and self.effect == "mask":
            raise InputError("--class goes with --effect logit; a mask has no class")
        if self.measured < 0:
            raise InputError(f"measured: expected 0 or more, found {self.measured}")


@dataclass(frozen=True, kw_only=True)
class AttributeConfig(ObserveConfig):
    """Draw what speaks for a class: attention, relevance of attention, integrated gradients."""

    output: Path = _option("the PNG; a PDF and an npz of the same name are put beside it")
    class_: int | None = _option("number of the class (default: the predicted one)", None)
    steps: int = _option("points on the path of integrated gradients", 50)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise InputError(f"steps: expected at least 1, found {self.steps}")


@dataclass(frozen=True, kw_only=True)
class PcaConfig(ObserveConfig):
    """Colour the patches of images by their principal components: alike parts, alike colours."""

    feature: Feature = _option("what to analyse (auto: subspace for CRATE, key for ViT)", "auto")
    block: int = _option("block to read, from 0; negative counts from the last", -1)
    foreground: Foreground = _option(
        "grey of the first component, 0 to 1, above which a patch is coloured (auto: by Otsu's "
        "method; none: all patches are)",
        "auto",
    )
    output: Path = _option("PNG file; PDF and npz are written beside it")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.foreground, str) and not 0 <= self.foreground < 1:
            raise InputError(
                f"foreground: expected auto, none or 0 <= T < 1, found {self.foreground}"
            )


@dataclass(frozen=True, kw_only=True)
class LayersConfig(ObserveConfig):
    """Measure what each block of a white box optimises: compression, sparsity, and both at once."""

    model: str = _option("names of one model or more, separated by commas; see `models`")
    output: Path = _option("PNG file; PDF and CSV are written beside it")

    def __post_init__(self) -> None:
        super().__post_init__()
        names = self.model.split(",")
        if not all(names):
            raise InputError(f"model: expected names separated by commas, found {self.model!r}")
        if len(names) > 1 and (self.model_args or self.weights not in (None, Path("random"))):
            raise InputError("--model-args and a file of --weights go with one model only")


@dataclass(frozen=True, kw_only=True)
class AtlasConfig(ObserveConfig):
    """Catalogue the atoms of a block: how often each fires, where most, and for which classes.

    Of a folder of class folders, and of the built-in scenes, the classes are known.
    """

    output: Path = _option("folder of the atlas: index.html, atlas.npz, sheet.png, thumbnails/")
    block: int = _option("block to read, from 0; negative counts from the last", -1)
    strongest: int = _option("patches to keep of each atom, each of another image", 10)
    sheet: list[int] | None = _option(
        "atoms of the sheet (default: twelve, the most selective of each class; without classes, "
        "from rare to frequent)",
        None,
        several=int,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strongest < 1:
            raise InputError(f"strongest: expected at least 1, found {self.strongest}")


@dataclass(frozen=True)
class AtomsConfig:
    """Show the atoms that write a patch, a masked region, or a whole picture, by contribution."""

    image: Path = _option("the picture", positional=True)
    atlas: Path = _option("folder of an atlas; it says which model, block and size to use")
    patch: str | None = _option("Y,X: a pixel of the patch (default: the whole picture)", None)
    mask: Path | None = _option("PNG of the picture's size; what is not black is chosen", None)
    count: int = _option("atoms to show", 8)
    output: Path = _option("the PNG; a PDF and a CSV go with it", Path("atoms.png"))
    model: str | None = _option("where the atlas's model is now, if not where it was", None)
    weights: Path | None = _option("where its weight file is now, if not where it was", None)
    device: str = _option("cpu, cuda, cuda:1, mps, or auto", "auto")

    def __post_init__(self) -> None:
        if self.patch is not None and self.mask is not None:
            raise InputError("give --patch Y,X or --mask FILE, not both")
        if self.patch is not None and not re.fullmatch(r"-?\d+,-?\d+", self.patch):
            raise InputError(f"patch: expected Y,X in pixels, found {self.patch!r}")
        if self.count < 1:
            raise InputError(f"count: expected at least 1, found {self.count}")
