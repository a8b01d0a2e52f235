"""How far segmentation has emerged in a model that never saw a mask, one forward pass an image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from operator import methodcaller
from typing import Any

import torch
from torch import Tensor

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
from crate_interp.hooks import Site, available_sites, default_feature
from crate_interp.options.choices import KeepBy
from crate_interp.segmentation import MaskCut, tokencut
from crate_interp.structures import Activations

__all__ = ["Emergence", "measure_emergence"]

PROTOCOLS: tuple[KeepBy, ...] = ("mass", "entries")


@dataclass(frozen=True)
class Emergence:
    """What the insides of a model say of a set of images with masks.

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
        images: With masks as ground truth.

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
    measures = _Measures(predictor, annotations)
    outcomes = process_images(
        images.records,
        methodcaller("read_resized", predictor.observer.input_size),
        measures.forward,
        measures.add,
        batch_size=1,  # every site of interest at every block: one image has enough of that
        workers=0,  # no process, as this happens in the middle of a training run, too
    )
    with closing(outcomes):
        for image in outcomes:
            if image.error is not None:
                raise image.error
    score = partial(
        coco_average_precision,
        images.annotations,
        measures.results,
        image_ids=[record.image_id for record in images.records],
    )
    return Emergence(
        attention={
            by: attention_segmentation_score(images, 1) for by, images in measures.attention.items()
        },
        box=score(iou_type="bbox"),
        mask=score(iou_type="segm"),
        tokencut=mean_iou(measures.salient),
        coding_rate=_mean(measures.rates),
        sparsity=_mean(measures.sparsities),
    )


class _Measures:
    """Grows by one image after the other; with `workers=0` they come in order, from one thread."""

    def __init__(
        self, predictor: MaskCut, annotations: Mapping[int, Sequence[Mapping[str, Any]]]
    ) -> None:
        self._predictor = predictor
        self._annotations = annotations
        self._model: Any = predictor.model
        available = available_sites(self._model, predictor.block)
        self._sites = [
            predictor.feature,
            default_feature(self._model),
            *{Site.CLS_ATTENTION, Site.CODES}.intersection(available),
        ]
        has_attention = Site.CLS_ATTENTION in available
        self.attention: dict[KeepBy, list[HeadOverlaps]]
        self.attention = {by: [] for by in PROTOCOLS if has_attention}
        self.salient: list[list[float]] = []
        self.results: list[dict[str, Any]] = []
        self.rates: list[Tensor] = []
        self.sparsities: list[Tensor] = []

    def forward(self, images: Sequence[ResizedImage], stage: StageClock) -> list[Activations]:
        blocks = range(len(self._model.blocks))
        with stage("forward"):
            observe = self._predictor.observer.activations
            return [observe([image.rgb], self._sites, blocks) for image in images]

    def add(
        self, record: ImageRecord, image: ResizedImage, activations: Activations, _: StageClock
    ) -> None:
        predictor = self._predictor
        geometry = predictor.observer.geometry(image.original_hw)
        features = activations.patch_features(predictor.feature, predictor.block).float()
        objects = object_masks(self._annotations.get(record.image_id, ()), geometry.original_hw)
        for by, overlaps in self.attention.items():
            rows = activations[Site.CLS_ATTENTION, predictor.block][0]
            patches = rows[:, activations.num_prefix_tokens :].unflatten(1, geometry.grid_hw)
            overlaps.append(head_overlaps(patches, geometry, objects, by))
        salient = tokencut(features[0], geometry.grid_hw).mask[None].cpu().numpy()
        largest = objects[objects.sum(axis=(1, 2)).argsort()[-1:]]
        self.salient.append(best_overlaps(geometry.grid_to_original(salient), largest))
        (cut,) = predictor.cut(features)
        instances = predictor.instances(image.rgb, cut, image.original_hw)
        self.results += results_of(instances, record.image_id)
        objective = layer_objective(self._model, activations)
        self.rates.append(objective.coding_rate[0])
        self.sparsities += [] if objective.sparsity is None else [objective.sparsity[0]]


def _mean(of_images: list[Tensor]) -> tuple[float, ...]:
    return tuple(torch.stack(of_images).mean(dim=0).tolist()) if of_images else ()
