"""How far segmentation has emerged in a model that never saw a mask, one forward pass per image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from operator import methodcaller
from typing import Any, TypedDict

import torch

from crate_interp.analysis.layer_objective import layer_objective
from crate_interp.data import ImageRecord, ImageSet, ResizedImage, results_of
from crate_interp.engine import StageClock, process_images
from crate_interp.errors import InputError
from crate_interp.evaluation import (
    AttentionSegmentationScore,
    CocoScores,
    HeadOverlaps,
    MeanIoU,
    attention_segmentation_score,
    best_overlaps,
    coco_average_precision,
    head_overlaps,
    mean_iou,
)
from crate_interp.evaluation.coco_input import object_masks, prepare_ground_truth
from crate_interp.hooks import Site, available_sites, blocks_of, default_feature
from crate_interp.options.choices import KeepBy
from crate_interp.segmentation import MaskCut, tokencut
from crate_interp.structures import Activations

__all__ = ["Emergence", "measure_emergence"]

PROTOCOLS: tuple[KeepBy, ...] = ("mass", "entries")


class _ImageEmergence(TypedDict):
    """Measures of one image, which `Emergence` averages."""

    attention: dict[KeepBy, HeadOverlaps]
    salient: list[float]  # empty without an object
    results: list[dict[str, Any]]  # MaskCut's objects, as COCO results
    coding_rate: list[float]
    sparsity: list[float]


@dataclass(frozen=True)
class Emergence:
    """Measures of the insides of a model on a set of images with masks.

    Attributes:
        attention: IoU of attention masks with objects, by protocol; empty for a model without a
            class token.
        box: Average precision of MaskCut's boxes.
        mask: Average precision of MaskCut's masks.
        tokencut: IoU of TokenCut's mask with the largest object.
        coding_rate: Coding rate of each block, mean over images, nats.
        sparsity: Sparsity of each block's codes, mean over images; empty for a model without codes.
    """

    attention: dict[KeepBy, AttentionSegmentationScore]
    box: CocoScores
    mask: CocoScores
    tokencut: MeanIoU
    coding_rate: tuple[float, ...]
    sparsity: tuple[float, ...]

    def numbers(self) -> dict[str, float]:
        """The numbers that stand for a model in a table or on a curve, by name."""
        attention = {
            f"attention_{name}_{by}": score.mean_iou[method]
            for name, method in (("miou", "best head"), ("one_head", "one head"))
            for by, score in self.attention.items()
        }
        precision = {
            f"{kind}_{name.lower()}": asdict(scores)[name]
            for kind, scores in (("box", self.box), ("mask", self.mask))
            for name in ("AP", "AP50")
        }
        layers = {"coding_rate": self.coding_rate, "sparsity": self.sparsity}
        by_block = {
            f"{name}_{block}": value
            for name, values in layers.items()
            for block, value in enumerate(values)
        }
        return {**attention, **precision, "tokencut_iou": self.tokencut.mean_iou, **by_block}


def measure_emergence(predictor: MaskCut, images: ImageSet) -> Emergence:
    """Measure attention, normalized cuts and the layer-wise objective on images with masks.

    Attention masks keep a share of 0.6, by either protocol; TokenCut's tau is 0.2. Both read the
    block that MaskCut reads. Crowds are no objects, and an image without an object counts in the
    average precision and the objective only.

    Args:
        predictor: MaskCut with the model, in evaluation mode, and the input size.
        images: Images with masks as ground truth.

    Raises:
        InputError: There is no ground truth of masks or no object in it, it is malformed, or an
            image cannot be read.

    Reference:
        Yu et al., Emergence of Segmentation with Minimalistic White-Box Transformers (arXiv
        2308.16271).
    """
    if images.annotations is None:
        raise InputError(f"{images.name}: expected images with masks, found no annotations")
    truth = prepare_ground_truth(images.annotations, "segm", class_agnostic=True)
    annotations: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in truth["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    outcomes = process_images(
        images.records,
        methodcaller("read_resized", predictor.observer.input_size),
        partial(_observe, predictor),
        partial(_measure, predictor, annotations),
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
    precision = partial(
        coco_average_precision,
        images.annotations,
        [result for record in records for result in record["results"]],
        image_ids=[record.image_id for record in images.records],
    )
    protocols = [by for by in PROTOCOLS if records and by in records[0]["attention"]]
    return Emergence(
        attention={
            by: attention_segmentation_score([record["attention"][by] for record in records], 1)
            for by in protocols
        },
        box=precision(iou_type="bbox"),
        mask=precision(iou_type="segm"),
        tokencut=mean_iou([record["salient"] for record in records]),
        coding_rate=_mean([record["coding_rate"] for record in records]),
        sparsity=_mean([record["sparsity"] for record in records]),
    )


def _observe(
    predictor: MaskCut, images: Sequence[ResizedImage], _: StageClock
) -> list[Activations]:
    available = available_sites(predictor.model, predictor.block)
    others = {Site.CLS_ATTENTION, Site.CODES}.intersection(available)
    sites = [predictor.feature, default_feature(predictor.model), *others]
    blocks = range(len(blocks_of(predictor.model)))
    return [predictor.observer.activations([image.rgb], sites, blocks) for image in images]


def _measure(
    predictor: MaskCut,
    annotations: Mapping[int, Sequence[Mapping[str, Any]]],
    record: ImageRecord,
    image: ResizedImage,
    activations: Activations,
    _: StageClock,
) -> _ImageEmergence:
    geometry = predictor.observer.geometry(image.original_hw)
    features = activations.patch_features(predictor.feature, predictor.block).float()
    objects = object_masks(annotations.get(record.image_id, ()), geometry.original_hw)
    attention: dict[KeepBy, HeadOverlaps] = {}
    if (Site.CLS_ATTENTION, predictor.block) in activations:
        rows = activations[Site.CLS_ATTENTION, predictor.block][0]
        patches = rows[:, activations.num_prefix_tokens :].unflatten(1, geometry.grid_hw)
        attention = {by: head_overlaps(patches, geometry, objects, by) for by in PROTOCOLS}
    salient = tokencut(features[0], geometry.grid_hw).mask[None].cpu().numpy()
    largest = objects[objects.sum(axis=(1, 2)).argsort()[-1:]]
    (cut,) = predictor.cut(features)
    instances = predictor.instances(image.rgb, cut, image.original_hw)
    objective = layer_objective(predictor.model, activations)
    sparsity = objective.sparsity
    return {
        "attention": attention,
        "salient": best_overlaps(geometry.grid_to_original(salient), largest),
        "results": results_of(instances, record.image_id),
        "coding_rate": objective.coding_rate[0].tolist(),
        "sparsity": [] if sparsity is None else sparsity[0].tolist(),
    }


def _mean(by_image: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(torch.tensor(by_image, dtype=torch.float64).mean(dim=0).tolist())
