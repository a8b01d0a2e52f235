"""Scores against a ground truth."""

from crate_interp.evaluation.attention import AttentionIoU, AttentionScore
from crate_interp.evaluation.attention_segmentation import (
    AttentionProtocol,
    AttentionSegmentationScore,
    ImageOverlaps,
    attention_segmentation_score,
    candidate_masks,
    image_overlaps,
)
from crate_interp.evaluation.classification import AccuracyScore, TopKAccuracy
from crate_interp.evaluation.coco_ap import CocoScores, coco_average_precision, format_table
from crate_interp.evaluation.coco_input import read_results
from crate_interp.evaluation.confusion import (
    SemanticScore,
    confusion_of,
    match_clusters,
    semantic_score,
)
from crate_interp.evaluation.corloc import CorLoc, CorLocScore
from crate_interp.evaluation.masks import BestMaskIoU, MeanIoU, mask_iou
from crate_interp.evaluation.saliency import (
    ImageSaliency,
    SaliencyScore,
    image_saliency,
    saliency_score,
)

__all__ = [
    "AccuracyScore",
    "AttentionIoU",
    "AttentionProtocol",
    "AttentionScore",
    "AttentionSegmentationScore",
    "BestMaskIoU",
    "CocoScores",
    "CorLoc",
    "CorLocScore",
    "ImageOverlaps",
    "ImageSaliency",
    "MeanIoU",
    "SaliencyScore",
    "SemanticScore",
    "TopKAccuracy",
    "attention_segmentation_score",
    "candidate_masks",
    "coco_average_precision",
    "confusion_of",
    "format_table",
    "image_overlaps",
    "image_saliency",
    "mask_iou",
    "match_clusters",
    "read_results",
    "saliency_score",
    "semantic_score",
]
