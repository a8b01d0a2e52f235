"""Attention segmentation of labelled images: by class, by head, and beside other masks.

Shapes: K heads, h w patch grid, G classes or objects of an image, C classes of the set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from crate_interp.data import VOID, truth_masks
from crate_interp.errors import InputError
from crate_interp.evaluation.masks import overlaps_of
from crate_interp.hooks.argument_checks import check_arguments
from crate_interp.options.choices import KeepBy, Resolution
from crate_interp.options.ranges import Share
from crate_interp.segmentation import attention_masks, principal_component
from crate_interp.structures import ImageGeometry

__all__ = [
    "METHODS",
    "AttentionProtocol",
    "AttentionSegmentationScore",
    "HeadOverlaps",
    "ImageOverlaps",
    "attention_segmentation_score",
    "candidate_masks",
    "head_overlaps",
    "image_overlaps",
]

_OTHERS = {"mean head": "mean_head", "principal component": "principal"}  # keys of a record
METHODS = ("best head", "one head", *_OTHERS)


@dataclass(frozen=True)
class AttentionProtocol:
    """Choices that decide an attention mIoU, beside model and images; the numbers differ a lot.

    Attributes:
        by: `entries` (CRATE papers) or `mass` (DINO), see `attention_masks`.
        keep: Share, see `attention_masks`.
        background: Label that is no class of an image; `None` if all labels count.
        resolution: Masks and truth are compared in the pixels of the original (`full`), or on the
            patch grid (`grid`), where the truth is the label at the centre of each patch: a class
            or object without such a pixel does not count.

    Raises:
        InputError: An argument of another type, or a share outside (0, 1].
    """

    by: KeepBy = "entries"
    keep: Share = 0.6
    background: int | None = 0
    resolution: Resolution = "full"

    def __post_init__(self) -> None:
        check_arguments(self, "by", "keep", "background", "resolution")


class HeadOverlaps(TypedDict):
    """IoU of the attention masks of one image with its classes or objects, in [0, 1].

    Attributes:
        classes: Label of each class or object.
        heads: IoU of the mask of each head with each class or object.
    """

    classes: list[int]
    heads: list[list[float]]


class ImageOverlaps(HeadOverlaps):
    """`HeadOverlaps`, and the masks to compare them with.

    Attributes:
        mean_head: IoU of the mask of the mean of the heads.
        principal: IoU of the mask of the first principal component.
    """

    mean_head: list[float]
    principal: list[float]


@dataclass(frozen=True, eq=False)
class AttentionSegmentationScore:
    """Mean IoU by method: each of `METHODS` has one mask for a class or object.

    `best head` takes the head that covers it best, `one head` the same head everywhere: the one
    of the largest mean. The other two are there if the records have them.

    Attributes:
        mean_iou: Mean over the classes or objects of an image, then over images, in [0, 1].
        by_class: Mean over images and objects of each class; NaN for one that does not occur.
        images_of_class: Number of images that each class occurs in.
        head: Number of the one head, from 0.
        images: Number of images that count: those with a class or object.
    """

    mean_iou: dict[str, float]
    by_class: dict[str, Float[np.ndarray, " C"]]
    images_of_class: Int64[np.ndarray, " C"]
    head: int
    images: int


def candidate_masks(
    cls_attention: Float[Tensor, "K h w"],
    features: Float[Tensor, "D n"],
    protocol: AttentionProtocol,
) -> Bool[np.ndarray, "K+2 h w"]:
    """Make the masks of an image: one per head, the mean head's, the principal component's.

    Args:
        cls_attention: Attention of the class token to the patches.
        features: Features of the patches, row-major.
        protocol: Says which patches the attention masks keep.

    Raises:
        InputError: As `attention_masks` and `principal_component`.
    """
    grid_hw = (cls_attention.shape[1], cls_attention.shape[2])
    rows = torch.cat([cls_attention, cls_attention.mean(dim=0, keepdim=True)]).flatten(1)
    kept = attention_masks(rows, protocol.by, protocol.keep).unflatten(1, grid_hw)
    principal = principal_component(features, grid_hw).mask
    return torch.cat([kept, principal[None]]).cpu().numpy()


def head_overlaps(
    cls_attention: Float[Tensor, "K h w"],
    geometry: ImageGeometry,
    ground_truth: Bool[np.ndarray, "G H W"],
    by: KeepBy = "mass",
    keep: float = 0.6,
) -> HeadOverlaps:
    """Compare the attention masks of an image with its objects, which may overlap.

    Args:
        cls_attention: Attention of the class token to the patches.
        geometry: Geometry of the image.
        ground_truth: Masks of the original image, one per object; all get the label 0.
        by: See `attention_masks`.
        keep: Share, see `attention_masks`.

    Raises:
        InputError: As `attention_masks`; the attention does not lie on the grid; a ground-truth
            mask is empty or of another size.
    """
    grid_hw = tuple(cls_attention.shape[1:])
    if cls_attention.ndim != 3 or grid_hw != geometry.grid_hw:
        raise InputError(
            f"cls_attention: expected shape (K, {geometry.grid_hw[0]}, {geometry.grid_hw[1]}), "
            f"found {tuple(cls_attention.shape)}"
        )
    kept = attention_masks(cls_attention.flatten(1), by, keep).unflatten(1, grid_hw)
    masks = geometry.grid_to_original(kept.cpu().numpy())
    return {
        "classes": [0] * len(ground_truth),
        "heads": overlaps_of(masks, ground_truth).tolist(),
    }


def image_overlaps(
    masks: Bool[np.ndarray, "K+2 h w"],
    geometry: ImageGeometry,
    labels: UInt8[np.ndarray, "H W"],
    objects: UInt8[np.ndarray, "H W"] | None,
    protocol: AttentionProtocol,
) -> ImageOverlaps:
    """Compare the masks of an image with its classes, or with its objects.

    Void pixels count for neither.

    Args:
        masks: As `candidate_masks` makes them.
        geometry: Geometry of the image.
        labels: Class of each pixel of the original image, or `VOID`.
        objects: Object of each pixel, from 1; `None` to compare with classes.
        protocol: Says at what resolution they are compared, and whether background counts.

    Raises:
        InputError: Masks, labels or objects are not of the size that the geometry says.
    """
    if labels.shape != geometry.original_hw:
        raise InputError(f"labels: expected {geometry.original_hw} pixels, found {labels.shape}")
    if protocol.resolution == "grid":
        labels = geometry.original_to_grid(labels)
        objects = None if objects is None else geometry.original_to_grid(objects)
    else:
        masks = geometry.grid_to_original(masks)
    truth, classes = truth_masks(labels, objects, protocol.background)
    *heads, mean_head, principal = overlaps_of(masks & (labels != VOID), truth).tolist()
    return {
        "classes": classes.tolist(),
        "heads": heads,
        "mean_head": mean_head,
        "principal": principal,
    }


def attention_segmentation_score(
    images: Sequence[HeadOverlaps], num_classes: int
) -> AttentionSegmentationScore:
    """Average over classes or objects, and over images.

    Args:
        images: Records of the images; those without a class or object do not count.
        num_classes: Number of classes, C.

    Raises:
        InputError: No image counts, a record's shapes do not agree, or the numbers of heads differ.

    Reference:
        Caron et al., arXiv 2104.14294, section 4.2.2; Yu et al., arXiv 2308.16271, section 3.
    """
    counted = [image for image in images if len(image["classes"])]
    if not counted:
        raise InputError("attention segmentation: expected images with ground truth, found none")
    overlaps = [_masks_of(image) for image in counted]
    num_heads = {len(heads) for heads, _ in overlaps}
    if len(num_heads) > 1 or 0 in num_heads:
        raise InputError(f"attention segmentation: expected one number of heads, found {num_heads}")
    head = int(np.mean([heads.mean(axis=1) for heads, _ in overlaps], axis=0).argmax())
    by_image = [
        {"best head": heads.max(axis=0), "one head": heads[head], **others}
        for heads, others in overlaps
    ]
    classes = np.concatenate([image["classes"] for image in counted])
    objects = np.bincount(classes, minlength=num_classes)
    mean_iou, by_class = {}, {}
    for method in by_image[0]:
        mean_iou[method] = float(np.mean([ious[method].mean() for ious in by_image]))
        weights = np.concatenate([ious[method] for ious in by_image])
        with np.errstate(invalid="ignore"):  # a class without objects: 0 / 0 is NaN
            by_class[method] = np.bincount(classes, weights, num_classes) / objects
    present = np.concatenate([np.unique(image["classes"]) for image in counted])
    images_of_class = np.bincount(present, minlength=num_classes)
    return AttentionSegmentationScore(mean_iou, by_class, images_of_class, head, len(counted))


def _masks_of(
    image: HeadOverlaps,
) -> tuple[Float[np.ndarray, "K G"], dict[str, Float[np.ndarray, " G"]]]:
    """The IoU of the heads' masks, and of the masks of the other methods that a record has."""
    record: Mapping[str, Any] = image
    heads = np.array(image["heads"])
    others = {name: np.array(record[key]) for name, key in _OTHERS.items() if key in record}
    shapes = [(len(image["classes"]),), *(array.shape for array in others.values())]
    if heads.shape != (len(heads), *shapes[0]) or len(set(shapes)) > 1:
        raise InputError(f"overlaps: expected (K, G) and (G,), found {heads.shape} and {shapes}")
    return heads, others
