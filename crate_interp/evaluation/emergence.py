"""How far segmentation has emerged in a model that never saw a mask, one forward pass an image."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from crate_interp.config import KeepBy
from crate_interp.data import ImageSet, results_of
from crate_interp.errors import InputError
from crate_interp.evaluation.attention import AttentionIoU, AttentionScore
from crate_interp.evaluation.coco_ap import CocoScores, coco_average_precision
from crate_interp.evaluation.coco_input import object_masks, prepare_ground_truth
from crate_interp.evaluation.layer_objective import layer_objective
from crate_interp.evaluation.masks import BestMaskIoU, MeanIoU
from crate_interp.hooks import Site, available_sites, default_feature
from crate_interp.segmentation import MaskCut, tokencut

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
        coding_rate: Of each block, mean over images, nats.
        sparsity: Of each block's codes, mean over images; empty for a model without codes.
    """

    attention: dict[KeepBy, AttentionScore]
    box: CocoScores
    mask: CocoScores
    tokencut: MeanIoU
    coding_rate: tuple[float, ...]
    sparsity: tuple[float, ...]

    def numbers(self) -> dict[str, float]:
        """The numbers that stand for a model in a table or on a curve, by name."""
        attention = {
            f"attention_miou_{by}": score.best_head for by, score in self.attention.items()
        }
        attention |= {
            f"attention_one_head_{by}": score.single_head for by, score in self.attention.items()
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
    model: Any = predictor.model
    available = available_sites(model, predictor.block)
    wanted = [
        predictor.feature,
        default_feature(model),
        *{Site.CLS_ATTENTION, Site.CODES}.intersection(available),
    ]
    attention = {by: AttentionIoU(by) for by in PROTOCOLS if Site.CLS_ATTENTION in wanted}
    salient, results, rates, sparsities = BestMaskIoU(), [], [], []
    for record in images.records:
        rgb = record.read()
        geometry = predictor.observer.geometry((rgb.shape[0], rgb.shape[1]))
        activations = predictor.observer.activations([rgb], wanted, range(len(model.blocks)))
        features = activations.patch_features(predictor.feature, predictor.block)[0].float()
        objects = object_masks(annotations[record.image_id], geometry.original_hw)
        for metric in attention.values():
            row = activations[Site.CLS_ATTENTION, predictor.block][0]
            patches = row[:, activations.num_prefix_tokens :]
            metric.update(patches.unflatten(1, geometry.grid_hw), geometry, objects)
        cut = tokencut(features, geometry.grid_hw).mask[None].cpu().numpy()
        largest = objects[objects.sum(axis=(1, 2)).argsort()[-1:]]
        salient.update(geometry.input_to_original(geometry.grid_to_input(cut)), largest)
        results += results_of(predictor.instances(rgb, features), record.image_id)
        objective = layer_objective(activations, model.blocks[0].attn.num_heads)
        rates.append(objective.coding_rate[0])
        sparsities += [] if objective.sparsity is None else [objective.sparsity[0]]
    score = partial(
        coco_average_precision,
        images.annotations,
        results,
        image_ids=[record.image_id for record in images.records],
    )
    return Emergence(
        attention={by: metric.compute() for by, metric in attention.items()},
        box=score(iou_type="bbox"),
        mask=score(iou_type="segm"),
        tokencut=salient.compute(),
        coding_rate=_mean(rates),
        sparsity=_mean(sparsities),
    )


def _mean(of_images: list[torch.Tensor]) -> tuple[float, ...]:
    return tuple(torch.stack(of_images).mean(dim=0).tolist()) if of_images else ()
