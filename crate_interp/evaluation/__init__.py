"""Scores against a ground truth: one record per image, and one score of all records."""

from crate_interp.evaluation.attention_segmentation import (
    AttentionProtocol,
    AttentionSegmentationScore,
    HeadOverlaps,
    ImageOverlaps,
    attention_segmentation_score,
    candidate_masks,
    head_overlaps,
    image_overlaps,
)
from crate_interp.evaluation.bootstrap import (
    Bootstrap,
    Interval,
    bootstrap_score,
    bootstrap_scores,
    mean_bootstrap,
)
from crate_interp.evaluation.classification import AccuracyScore, accuracy_score, class_ranks
from crate_interp.evaluation.coco_ap import (
    NO_SCORES,
    CocoScores,
    ImageMatches,
    average_precision,
    coco_average_precision,
    format_table,
    image_matches,
    object_overlaps,
    precision_by_recall,
)
from crate_interp.evaluation.coco_input import (
    ResultsFile,
    has_masks,
    object_masks,
    prepare_ground_truth,
    read_results,
)
from crate_interp.evaluation.confusion import (
    ImageConfusion,
    SemanticScore,
    classes_of_clusters,
    image_accuracy,
    image_confusion,
    match_clusters,
    semantic_score,
    total_confusion,
)
from crate_interp.evaluation.corloc import CorLocScore, corloc_hit, corloc_score
from crate_interp.evaluation.detections import (
    ImageDetections,
    bootstrap_average_precision,
    image_detections,
)
from crate_interp.evaluation.masks import MeanIoU, best_overlaps, mask_iou, mean_iou
from crate_interp.evaluation.saliency import (
    ImageSaliency,
    SaliencyScore,
    image_saliency,
    saliency_score,
)
from crate_interp.evaluation.text_loss import TextScore, score_texts

__all__ = [
    "NO_SCORES",
    "AccuracyScore",
    "AttentionProtocol",
    "AttentionSegmentationScore",
    "Bootstrap",
    "CocoScores",
    "CorLocScore",
    "HeadOverlaps",
    "ImageConfusion",
    "ImageDetections",
    "ImageMatches",
    "ImageOverlaps",
    "ImageSaliency",
    "Interval",
    "MeanIoU",
    "ResultsFile",
    "SaliencyScore",
    "SemanticScore",
    "TextScore",
    "accuracy_score",
    "attention_segmentation_score",
    "average_precision",
    "best_overlaps",
    "bootstrap_average_precision",
    "bootstrap_score",
    "bootstrap_scores",
    "candidate_masks",
    "class_ranks",
    "classes_of_clusters",
    "coco_average_precision",
    "corloc_hit",
    "corloc_score",
    "format_table",
    "has_masks",
    "head_overlaps",
    "image_accuracy",
    "image_confusion",
    "image_detections",
    "image_matches",
    "image_overlaps",
    "image_saliency",
    "mask_iou",
    "match_clusters",
    "mean_bootstrap",
    "mean_iou",
    "object_masks",
    "object_overlaps",
    "precision_by_recall",
    "prepare_ground_truth",
    "read_results",
    "saliency_score",
    "score_texts",
    "semantic_score",
    "total_confusion",
]
