"""MaskCut, its score, and the benchmarks of labelled images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from crate_interp.config.options import (
    Feature,
    KeepBy,
    LabelledBy,
    ModelConfig,
    Resolution,
    Unit,
)
from crate_interp.options import option
from crate_interp.options.ranges import Cosine, Index, Range, Seed, Share

__all__ = [
    "BenchmarkConfig",
    "SaliencyBenchmarkConfig",
    "SemanticBenchmarkConfig",
    "VocBenchmarkConfig",
]

Masks = Annotated[int, Range(1, 1000)]
Rows = Annotated[int, Range(0, 100)]  # of a figure
Patches = Annotated[int, Range(1, 100_000_000)]


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(ModelConfig):
    """What the benchmarks of labelled images have in common."""

    continues: ClassVar[bool] = True

    feature: Feature = option("features to use (auto: subspace for CRATE, key for ViT)", "auto")
    block: Index = option("block to read, from 0; negative counts from the last", -1)
    output: Path | None = option("run folder (default: runs/BENCHMARK-MODEL-DATA)", None)


@dataclass(frozen=True, kw_only=True)
class VocBenchmarkConfig(BenchmarkConfig):
    """Score attention masks by mIoU on VOC 2012, by the protocols of the papers."""

    data: Path = option(
        "folder of JPEGImages, SegmentationClass and ImageSets; or `demo`: the built-in scenes",
        positional=True,
    )
    split: str = option("list of images, ImageSets/Segmentation/SPLIT.txt", "val")
    protocol: KeepBy = option(
        "patches that a mask keeps: the share of the patches (entries: CRATE papers) or of the "
        "attention (mass: DINO)",
        "entries",
    )
    keep: Share = option("that share", 0.6)
    per: Unit = option("what has a best head: a class of an image (CRATE), or an object", "class")
    background: bool = option("background counts as a class", False)
    resolution: Resolution = option("compare at the image's pixels, or on the patch grid", "full")
    pictures: Rows = option("draw the masks of the first images", 6)


@dataclass(frozen=True, kw_only=True)
class SemanticBenchmarkConfig(BenchmarkConfig):
    """Score semantic segmentation by a model's features: clusters, or a linear probe."""

    data: Path = option(
        "folder as VOC or as ADE20K has it; or `demo`: the built-in scenes", positional=True
    )
    method: LabelledBy = option(
        "k-means of the features, a cluster a class, matched to the classes; or logistic "
        "regression of them, learnt on --train-split",
        "kmeans",
    )
    split: str = option("part of the data to score on", "val")
    train_split: str = option("part of the data that a linear probe learns from", "train")
    patches: Patches = option(
        "patches, of all images together, that clusters or probe learn from", 200_000
    )
    seed: Seed = option("of the choice of the patches, and of k-means", 0)


@dataclass(frozen=True, kw_only=True)
class SaliencyBenchmarkConfig(BenchmarkConfig):
    """Score masks of the salient object: TokenCut, attention, the first principal component."""

    images: Path = option("folder of images", positional=True)
    masks: Path = option(
        "folder of their masks, of the same names, white being the object", positional=True
    )
    recursive: bool = option("search the folders in the folders, too; masks lie alike", False)
    tau: Cosine = option("of TokenCut: patches are alike above this cosine similarity", 0.2)
    keep: Share = option("share of the attention, by mass, that its mask keeps", 0.6)
    pictures: Rows = option("draw the masks of the first images", 6)
