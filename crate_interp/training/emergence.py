"""How far segmentation has emerged in a model that never saw a mask, one forward pass per image."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from operator import methodcaller
from typing import TypedDict

import torch

from crate_interp.analysis.layer_objective import layer_objective
from crate_interp.data import ImageRecord, ImageSet, LabelledSet, ResizedImage
from crate_interp.engine import StageClock, process_images
from crate_interp.evaluation import (
    AttentionSegmentationScore,
    CocoScores,
    MeanIoU,
    attention_segmentation_score,
    mean_iou,
    saliency_score,
)
from crate_interp.hooks import Site, available_sites, blocks_of, default_feature
from crate_interp.options.choices import KeepBy
from crate_interp.segmentation import MaskCut
from crate_interp.structures import Activations
from crate_interp.training.ground_truth import (
    BlockMeasures,
    GroundTruth,
    SeenBlock,
    ground_truth_of,
)

__all__ = ["Emergence", "measure_blocks", "measure_emergence"]

_METHODS = {
    "attention_miou": "best head",
    "attention_one_head": "one head",
    "attention_mean_head": "mean head",
}


class _ImageEmergence(TypedDict):
    """Measures of one image, which `Emergence` averages."""

    blocks: list[BlockMeasures]  # of the blocks that cuts and attention read
    coding_rate: list[float]
    sparsity: list[float]


@dataclass(frozen=True)
class Emergence:
    """Measures of the insides of a model on a set of images with masks.

    Attributes:
        attention: IoU of attention masks with objects, by protocol; empty for a model without a
            class token.
        box: Average precision of MaskCut's boxes; `None` without instances to compare with.
        mask: Average precision of MaskCut's masks, likewise.
        tokencut: IoU of TokenCut's mask with the salient object: the largest of several.
        coding_rate: Coding rate of each block, mean over images, nats.
        sparsity: Sparsity of each block's codes, mean over images; empty for a model without codes.
        tokencut_max_f: Largest F of TokenCut's masks, where each image has a mask of its salient
            object; else `None`.
        principal: IoU of the mask of the first principal component with that object, likewise.
    """

    attention: dict[KeepBy, AttentionSegmentationScore]
    box: CocoScores | None
    mask: CocoScores | None
    tokencut: MeanIoU
    coding_rate: tuple[float, ...]
    sparsity: tuple[float, ...]
    tokencut_max_f: float | None = None
    principal: MeanIoU | None = None

    def numbers(self) -> dict[str, float]:
        """The numbers that stand for a model in a table or on a curve, by name."""
        return {**self.cut_numbers(), **self.layer_numbers()}

    def cut_numbers(self) -> dict[str, float]:
        """Numbers of the block that cuts and attention read; more is better."""
        attention = {
            f"{name}_{by}": score.mean_iou[method]
            for name, method in _METHODS.items()
            for by, score in self.attention.items()
            if method in score.mean_iou
        }
        precision = {
            f"{kind}_{name.lower()}": asdict(scores)[name]
            for kind, scores in (("box", self.box), ("mask", self.mask))
            if scores is not None
            for name in ("AP", "AP50")
        }
        numbers = {**attention, **precision, "tokencut_iou": self.tokencut.mean_iou}
        if self.tokencut_max_f is not None:
            numbers["tokencut_max_f"] = self.tokencut_max_f
        if self.principal is not None:
            numbers["pca_iou"] = self.principal.mean_iou
        return numbers

    def layer_numbers(self) -> dict[str, float]:
        """Numbers of all blocks, each with the block's number at the end of its name."""
        layers = {"coding_rate": self.coding_rate, "sparsity": self.sparsity}
        return {
            f"{name}_{block}": value
            for name, values in layers.items()
            for block, value in enumerate(values)
        }


def measure_emergence(predictor: MaskCut, images: ImageSet | LabelledSet) -> Emergence:
    """Measure attention, normalized cuts and the layer-wise objective on images with masks.

    Attention masks keep a share of 0.6, by either protocol; TokenCut's tau is 0.2. Both read the
    block that MaskCut reads. Crowds are no objects, and an image without an object of its COCO
    annotations counts in the average precision and the objective only.

    Args:
        predictor: MaskCut with the model, in evaluation mode, and the input size.
        images: Images with masks as ground truth: COCO annotations, or a mask of the salient
            object of each image, where nothing is to be found by MaskCut.

    Raises:
        InputError: There is no ground truth of masks or no object in it, it is malformed, or an
            image cannot be read.

    Reference:
        Yu et al., Emergence of Segmentation with Minimalistic White-Box Transformers (arXiv
        2308.16271).
    """
    (emergence,) = measure_blocks(predictor, images, [predictor.block])
    return emergence


def measure_blocks(
    predictor: MaskCut, images: ImageSet | LabelledSet, blocks: Sequence[int]
) -> list[Emergence]:
    """Measure several blocks as `measure_emergence` does, in the same forward passes.

    Args:
        predictor: As for `measure_emergence`; its own block is not looked at.
        images: As for `measure_emergence`.
        blocks: Numbers of the blocks that cuts and attention read, negative from the last.

    Returns:
        Measures of each block; coding rate and sparsity are those of all blocks everywhere.

    Raises:
        InputError: As `measure_emergence`, or the model has no such block.
    """
    predictors = [replace(predictor, block=block) for block in blocks]
    truth = ground_truth_of(images)
    outcomes = process_images(
        truth.images.records,
        methodcaller("read_resized", predictor.observer.input_size),
        partial(_observe, predictors),
        partial(_measure, predictors, truth),
        batch_size=1,  # every site of interest at every block: one image has enough of that
        workers=0,  # no process, as this happens in the middle of a training run, too
    )
    records: list[_ImageEmergence] = []
    with closing(outcomes):
        for image in outcomes:
            if image.error is not None:
                raise image.error
            if image.result is not None:
                records.append(image.result)
    return [_average(truth, records, number) for number in range(len(blocks))]


def _observe(
    predictors: Sequence[MaskCut], images: Sequence[ResizedImage], _: StageClock
) -> list[Activations]:
    model, observer = predictors[0].model, predictors[0].observer
    others = {Site.CLS_ATTENTION, Site.CODES}.intersection(
        *(available_sites(model, predictor.block) for predictor in predictors)
    )
    sites = [predictors[0].feature, default_feature(model), *others]
    blocks = range(len(blocks_of(model)))
    return [observer.activations([image.rgb], sites, blocks) for image in images]


def _measure(
    predictors: Sequence[MaskCut],
    truth: GroundTruth,
    record: ImageRecord,
    image: ResizedImage,
    activations: Activations,
    _: StageClock,
) -> _ImageEmergence:
    geometry = predictors[0].observer.geometry(image.original_hw)
    measures: list[BlockMeasures] = []
    for predictor in predictors:
        block, attention = predictor.block, None
        if (Site.CLS_ATTENTION, block) in activations:
            rows = activations[Site.CLS_ATTENTION, block][0]
            patches = rows[:, activations.num_prefix_tokens :]
            attention = patches.unflatten(1, geometry.grid_hw)
        features = activations.patch_features(predictor.feature, block)[0].float()
        seen = SeenBlock(predictor, record, image, geometry, features, attention)
        measures.append(truth.measure(seen))
    objective = layer_objective(predictors[0].model, activations)
    sparsity = objective.sparsity
    return {
        "blocks": measures,
        "coding_rate": objective.coding_rate[0].tolist(),
        "sparsity": [] if sparsity is None else sparsity[0].tolist(),
    }


def _average(truth: GroundTruth, records: Sequence[_ImageEmergence], number: int) -> Emergence:
    """Average over images what was measured of one of the blocks."""
    measures = [record["blocks"][number] for record in records]
    box, mask = truth.precision(measures)
    saliency = [of["saliency"] for of in measures if of["saliency"] is not None]
    return Emergence(
        attention={
            by: attention_segmentation_score([of["attention"][by] for of in measures], 1)
            for by in (measures[0]["attention"] if measures else ())
        },
        box=box,
        mask=mask,
        tokencut=mean_iou([of["tokencut"] for of in measures]),
        coding_rate=_mean([record["coding_rate"] for record in records]),
        sparsity=_mean([record["sparsity"] for record in records]),
        tokencut_max_f=saliency_score(saliency).max_f if saliency else None,
        principal=mean_iou([of["principal"] for of in measures]) if saliency else None,
    )


def _mean(by_image: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(torch.tensor(by_image, dtype=torch.float64).mean(dim=0).tolist())
