"""Numbers of the literature, to print beside our own."""

from __future__ import annotations

from typing import NamedTuple

from crate_interp.options.choices import KeepBy

__all__ = [
    "SALIENCY_SOURCE",
    "PublishedSaliency",
    "published_attention_miou",
    "published_maskcut",
    "published_saliency",
    "published_top1",
]

_CRATE = "Yu et al., arXiv 2308.16271: a head a class"
_DINO = "Caron et al., arXiv 2104.14294: Jaccard"

# VOC 2012 val, all 1449 images, percent. Models as `release_of` names them. The supervised ViTs
# of the papers are of their authors' own training.
_ATTENTION_MIOU: dict[KeepBy, tuple[str, dict[str, float]]] = {
    "entries": (
        _CRATE,
        {
            "crate_small_patch8_224": 23.9,
            "crate_base_patch8_224.in21k": 23.6,
            "vit_small_patch8_224": 14.1,
            "vit_base_patch8_224.augreg2_in21k_ft_in1k": 19.2,
            "vit_small_patch8_224.dino": 27.0,
            "vit_base_patch8_224.dino": 27.3,
        },
    ),
    "mass": (
        _DINO,
        {
            "vit_small_patch8_224": 23.7,
            "deit_small_patch16_224.fb_in1k": 27.3,
            "vit_small_patch8_224 (untrained)": 21.8,
            "vit_small_patch8_224.dino": 44.7,
            "vit_small_patch16_224.dino": 45.9,
        },
    ),
}


_VOC_VAL = 1449  # images


class PublishedSaliency(NamedTuple):
    """TokenCut with DINO's ViT-S/16 on a whole set, percent."""

    max_f: float
    iou: float
    accuracy: float


SALIENCY_SOURCE = "Wang et al., arXiv 2202.11539"
_SALIENCY = {
    "ecssd": PublishedSaliency(80.3, 71.2, 91.8),
    "duts": PublishedSaliency(67.2, 57.6, 90.3),
    "omron": PublishedSaliency(60.0, 53.3, 88.0),
}


_ALPHA, _EMERGENCE = "Yang et al., arXiv 2405.20299", "Yu et al., arXiv 2308.16271"
_VAL2017 = 5000  # images
_MASKCUT_METRICS = ("box AP50", "box AP75", "box AP", "mask AP50", "mask AP75", "mask AP")
# MaskCut on COCO val2017 without refinement, percent, in the order of the metrics.
_MASKCUT = {
    "crate_alpha_large_patch8_224.in21k": (_ALPHA, (4.0, 1.7, 2.0, 2.7, 1.1, 1.4)),
    "crate_alpha_base_patch8_224.in21k": (_ALPHA, (3.5, 1.1, 1.5, 2.2, 1.0, 1.1)),
    "crate_base_patch8_224.in21k": (_EMERGENCE, (2.9, 1.0, 1.3, 2.2, 0.7, 1.0)),
    "crate_small_patch8_224": (_EMERGENCE, (2.9, 1.0, 1.1, 1.8, 0.7, 0.8)),
    "vit_base_patch8_224.augreg2_in21k_ft_in1k": (_EMERGENCE, (0.8, 0.2, 0.4, 0.7, 0.5, 0.4)),
    "vit_small_patch8_224": (_EMERGENCE, (0.1, 0.1, 0.0, 0.0, 0.0, 0.0)),
    "vit_small_patch8_224.dino": (_EMERGENCE, (5.0, 2.0, 2.4, 4.0, 1.3, 1.7)),
    "vit_base_patch8_224.dino": (_EMERGENCE, (5.1, 2.3, 2.5, 4.1, 1.3, 1.8)),
}


# Top-1 on ImageNet-1K, percent, by architecture; of CRATE-alpha after fine-tuning.
_TOP1 = {
    "crate_alpha_base_patch32_224": 76.5,
    "crate_alpha_base_patch16_224": 81.2,
    "crate_alpha_base_patch8_224": 83.2,
    "crate_alpha_large_patch32_224": 80.2,
    "crate_alpha_large_patch14_224": 83.9,
    "crate_alpha_large_patch8_224": 85.1,
    "crate_tiny_patch16_224": 66.7,
    "crate_small_patch16_224": 69.2,
    "crate_base_patch16_224": 70.8,
    "crate_large_patch16_224": 71.3,
}


_WHOLE = {"ecssd": 1000, "duts": 5019, "omron": 5168}  # images; of DUTS, the test part


def published_attention_miou(
    model: str | None, protocol: KeepBy, split: str, count: int
) -> tuple[float, str] | None:
    """Find the attention mIoU of a model on VOC 2012 val, in percent, and its source.

    Args:
        model: Name of the model, as `release_of` gives it.
        protocol: Rule for the patches that its masks keep.
        split: Part of VOC 2012 that was measured.
        count: Number of images of it that were measured; the published numbers are those of all.
    """
    if model is None or (split, count) != ("val", _VOC_VAL):
        return None
    source, values = _ATTENTION_MIOU[protocol]
    return (values[model], source) if model in values else None


def published_saliency(model: str | None, images: str, count: int) -> PublishedSaliency | None:
    """Find TokenCut's numbers for a model on the set that a path speaks of.

    Args:
        model: Name of the model, as `release_of` gives it.
        images: Folder of the images; ECSSD, DUTS and DUT-OMRON are known by their names in it.
        count: Number of images of it that were measured; the published numbers are those of all.
    """
    if model != "vit_small_patch16_224.dino":
        return None
    names = (name for name in _SALIENCY if name in images.lower() and count == _WHOLE[name])
    return next((_SALIENCY[name] for name in names), None)


def published_maskcut(
    model: str | None, images: str, count: int
) -> tuple[dict[str, float], str] | None:
    """Find the AP of MaskCut with a model on COCO val2017, in percent by metric, and its source.

    Args:
        model: Name of the model, as `release_of` gives it.
        images: Name of the images.
        count: Number of images that were measured; the published numbers are those of all.
    """
    if model not in _MASKCUT or (images, count) != ("val2017", _VAL2017):
        return None
    source, values = _MASKCUT[model]
    return dict(zip(_MASKCUT_METRICS, values, strict=True)), source


def published_top1(architecture: str) -> float | None:
    """Find the accuracy of a model on ImageNet-1K, in percent.

    Args:
        architecture: Name of the model as timm has it, without a tag.
    """
    return _TOP1.get(architecture)
