"""Ground truth of images that probes measure: objects of COCO files, or masks of one object.

Shapes: D embed, K heads, h w patch grid, n patches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np
from jaxtyping import Float
from torch import Tensor

from crate_interp.data import ImageRecord, ImageSet, LabelledSet, ResizedImage, results_of
from crate_interp.errors import InputError
from crate_interp.evaluation import (
    AttentionProtocol,
    CocoScores,
    HeadOverlaps,
    ImageSaliency,
    best_overlaps,
    candidate_masks,
    coco_average_precision,
    head_overlaps,
    image_overlaps,
    image_saliency,
    mask_iou,
)
from crate_interp.evaluation.coco_input import object_masks, prepare_ground_truth
from crate_interp.options.choices import KeepBy
from crate_interp.segmentation import MaskCut, principal_component, tokencut
from crate_interp.structures import ImageGeometry

__all__ = ["BlockMeasures", "GroundTruth", "SeenBlock", "ground_truth_of"]

PROTOCOLS: tuple[KeepBy, ...] = ("mass", "entries")


class SeenBlock(NamedTuple):
    """What a block says of an image.

    Attributes:
        predictor: MaskCut of the block.
        record: Record of the image.
        image: The image, resized.
        geometry: Its geometry.
        features: Features of the patches, float32.
        attention: Attention of the class token to the patches; `None` without such a token.
    """

    predictor: MaskCut
    record: ImageRecord
    image: ResizedImage
    geometry: ImageGeometry
    features: Float[Tensor, "D n"]
    attention: Float[Tensor, "K h w"] | None


class BlockMeasures(TypedDict):
    """Measures of a block on one image.

    Attributes:
        attention: IoU of attention masks, by protocol; empty without a class token.
        tokencut: IoU of TokenCut's mask with the salient object; empty if the image does not count.
        saliency: Agreement of TokenCut's mask with a mask of the salient object, if there is one.
        principal: IoU of the principal component's mask with that object, as `tokencut`.
        results: MaskCut's objects, as COCO results.
    """

    attention: Mapping[KeepBy, HeadOverlaps]
    tokencut: list[float]
    saliency: ImageSaliency | None
    principal: list[float]
    results: list[dict[str, Any]]


class GroundTruth(ABC):
    """Objects of the images of a set.

    Attributes:
        images: The images.
    """

    images: ImageSet

    @abstractmethod
    def measure(self, seen: SeenBlock) -> BlockMeasures:
        """Compare what a block says of an image with its objects.

        Raises:
            InputError: The ground truth of the image cannot be read.
        """

    def precision(
        self, measures: Sequence[BlockMeasures]
    ) -> tuple[CocoScores | None, CocoScores | None]:
        """Give the average precision of MaskCut's boxes and masks, where objects are instances."""
        del measures
        return None, None


def ground_truth_of(images: ImageSet | LabelledSet) -> GroundTruth:
    """Give the ground truth of images with masks.

    Args:
        images: Images with COCO annotations, or with a mask of their salient object.

    Raises:
        InputError: There are no annotations, they are malformed, or labels have other classes.
    """
    if isinstance(images, LabelledSet):
        return _SalientObjects(images)
    return _CocoObjects(images)


class _CocoObjects(GroundTruth):
    """Objects of COCO annotations; the largest of an image is its salient one."""

    def __init__(self, images: ImageSet) -> None:
        if images.annotations is None:
            raise InputError(f"{images.name}: expected images with masks, found no annotations")
        self.images = images
        truth = prepare_ground_truth(images.annotations, "segm", class_agnostic=True)
        self._annotations: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for annotation in truth["annotations"]:
            self._annotations[annotation["image_id"]].append(annotation)

    def measure(self, seen: SeenBlock) -> BlockMeasures:
        geometry, image_id = seen.geometry, seen.record.image_id
        objects = object_masks(self._annotations.get(image_id, ()), geometry.original_hw)
        attention: dict[KeepBy, HeadOverlaps] = {}
        if seen.attention is not None:
            attention = {
                by: head_overlaps(seen.attention, geometry, objects, by) for by in PROTOCOLS
            }
        salient = tokencut(seen.features, geometry.grid_hw).mask[None].cpu().numpy()
        largest = objects[objects.sum(axis=(1, 2)).argsort()[-1:]]
        (cut,) = seen.predictor.cut(seen.features[None])
        instances = seen.predictor.instances(seen.image.rgb, cut, geometry.original_hw)
        return {
            "attention": attention,
            "tokencut": best_overlaps(geometry.grid_to_original(salient), largest),
            "saliency": None,
            "principal": [],
            "results": results_of(instances, image_id),
        }

    def precision(self, measures: Sequence[BlockMeasures]) -> tuple[CocoScores, CocoScores]:
        results = [result for of_image in measures for result in of_image["results"]]
        image_ids = [record.image_id for record in self.images.records]
        annotations: Any = self.images.annotations
        box, mask = (
            coco_average_precision(annotations, results, iou_type=kind, image_ids=image_ids)
            for kind in ("bbox", "segm")
        )
        return box, mask


class _SalientObjects(GroundTruth):
    """One mask of the salient object of each image; an empty one counts, as in `saliency`."""

    def __init__(self, labelled: LabelledSet) -> None:
        if len(labelled.classes) != 2 or labelled.background != 0:
            raise InputError(
                f"{labelled.images.name}: expected masks of one salient object, found "
                f"{len(labelled.classes)} classes"
            )
        self.images, self._labelled = labelled.images, labelled

    def measure(self, seen: SeenBlock) -> BlockMeasures:
        geometry = seen.geometry
        labels = self._labelled.labels_of(seen.record, geometry.original_hw)
        truth = labels == 1
        attention: dict[KeepBy, HeadOverlaps] = {}
        if seen.attention is not None:
            for by in PROTOCOLS:
                protocol = AttentionProtocol(by)
                masks = candidate_masks(seen.attention, seen.features, protocol)
                attention[by] = image_overlaps(masks, geometry, labels, None, protocol)
        grids = np.stack([
            cut(seen.features, geometry.grid_hw).mask.cpu().numpy()
            for cut in (tokencut, principal_component)
        ])  # fmt: skip
        salient, principal = geometry.grid_to_original(grids)
        saliency = image_saliency(salient.astype(np.float64), salient, truth)
        return {
            "attention": attention,
            "tokencut": [saliency["iou"]],
            "saliency": saliency,
            "principal": [float(mask_iou(principal[None], truth[None])[0, 0])],
            "results": [],
        }
