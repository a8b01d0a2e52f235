"""Attention segmentation of labelled images: by class, by head, and beside other masks.

Shapes: K heads, h w patch grid, G classes or objects of an image, C classes of the set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from crate_interp.config import KeepBy, Resolution
from crate_interp.data import VOID, truth_masks
from crate_interp.errors import InputError
from crate_interp.evaluation.masks import overlaps_of
from crate_interp.hooks.arguments import check_arguments
from crate_interp.options.ranges import Share
from crate_interp.segmentation import attention_masks, principal_component
from crate_interp.structures import ImageGeometry

__all__ = [
    "METHODS",
    "AttentionProtocol",
    "AttentionSegmentationScore",
    "ImageOverlaps",
    "attention_segmentation_score",
    "candidate_masks",
    "image_overlaps",
]

METHODS = ("best head", "one head", "mean head", "principal component")


@dataclass(frozen=True)
class AttentionProtocol:
    """What decides an attention mIoU, beside model and images; the numbers differ a lot.

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


@dataclass(frozen=True, eq=False)
class ImageOverlaps:
    """IoU of the masks of one image with its classes or objects, in [0, 1].

    Attributes:
        classes: Label of each class or object.
        heads: Of the mask of each head.
        mean_head: Of the mask of the mean of the heads.
        principal: Of the mask of the first principal component.

    Raises:
        InputError: The shapes do not agree.
    """

    classes: Int64[np.ndarray, " G"]
    heads: Float[np.ndarray, "K G"]
    mean_head: Float[np.ndarray, " G"]
    principal: Float[np.ndarray, " G"]

    def __post_init__(self) -> None:
        shapes = [array.shape for array in (self.classes, self.mean_head, self.principal)]
        if self.heads.ndim != 2 or {*shapes, self.heads.shape[1:]} != {shapes[0]}:
            raise InputError(
                f"overlaps: expected (K, G) and (G,), found {self.heads.shape} and {shapes}"
            )


@dataclass(frozen=True, eq=False)
class AttentionSegmentationScore:
    """Mean IoU by method: each of `METHODS` has one mask for a class or object.

    `best head` takes the head that covers it best, `one head` the same head everywhere: the one
    of the largest mean.

    Attributes:
        mean_iou: Mean over the classes or objects of an image, then over images.
        by_class: Mean over images and objects of each class; NaN for one that does not occur.
        images_of_class: Images that each class occurs in.
        head: The one head, from 0.
        images: Images that count: those with a class or object.
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
    """Make the masks of an image: one a head, that of the mean head, the principal component's.

    Args:
        cls_attention: Attention of the class token to the patches.
        features: Of the patches, row-major.
        protocol: Which patches the attention masks keep.

    Raises:
        InputError: As `attention_masks` and `principal_component`.
    """
    grid_hw = (cls_attention.shape[1], cls_attention.shape[2])
    rows = torch.cat([cls_attention, cls_attention.mean(dim=0, keepdim=True)]).flatten(1)
    kept = attention_masks(rows, protocol.by, protocol.keep).unflatten(1, grid_hw)
    principal = principal_component(features, grid_hw).mask
    return torch.cat([kept, principal[None]]).cpu().numpy()


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
        geometry: Of the image.
        labels: Class of each pixel of the original image, or `VOID`.
        objects: Object of each pixel, from 1; `None` to compare with classes.
        protocol: At what resolution, and whether background counts.

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
    overlaps = overlaps_of(masks & (labels != VOID), truth)
    return ImageOverlaps(classes, overlaps[:-2], overlaps[-2], overlaps[-1])


def attention_segmentation_score(
    images: Sequence[ImageOverlaps], num_classes: int
) -> AttentionSegmentationScore:
    """Average over classes or objects, and over images.

    Args:
        images: Those without a class or object do not count.
        num_classes: C.

    Raises:
        InputError: No image counts, or their numbers of heads differ.

    Reference:
        Caron et al., arXiv 2104.14294, section 4.2.2; Yu et al., arXiv 2308.16271, section 3.
    """
    counted = [image for image in images if len(image.classes)]
    if not counted:
        raise InputError("attention segmentation: expected images with ground truth, found none")
    heads = {len(image.heads) for image in counted}
    if len(heads) > 1:
        raise InputError(f"attention segmentation: expected one number of heads, found {heads}")
    head = int(np.mean([image.heads.mean(axis=1) for image in counted], axis=0).argmax())
    chosen = [
        dict(
            zip(
                METHODS,
                (image.heads.max(axis=0), image.heads[head], image.mean_head, image.principal),
                strict=True,
            )
        )
        for image in counted
    ]
    classes = np.concatenate([image.classes for image in counted])
    objects = np.bincount(classes, minlength=num_classes)
    by_class = {}
    for method in METHODS:
        weights = np.concatenate([of_image[method] for of_image in chosen])
        with np.errstate(invalid="ignore"):  # a class without objects: 0 / 0 is NaN
            by_class[method] = np.bincount(classes, weights, num_classes) / objects
    present = np.concatenate([np.unique(image.classes) for image in counted])
    return AttentionSegmentationScore(
        {m: float(np.mean([of_image[m].mean() for of_image in chosen])) for m in METHODS},
        by_class,
        np.bincount(present, minlength=num_classes),
        head,
        len(counted),
    )
