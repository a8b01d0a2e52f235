"""Scores: COCO AP, mean IoU, CorLoc, accuracy against a ground truth; the layer-wise objective."""

from crate_interp.evaluation.attention import AttentionIoU, AttentionScore
from crate_interp.evaluation.attention_segmentation import (
    AttentionProtocol,
    AttentionSegmentationScore,
    ImageOverlaps,
    attention_segmentation_score,
    candidate_masks,
    image_overlaps,
)
from crate_interp.evaluation.attention_statistics import (
    AttentionStatistics,
    attention_statistics,
    uniform_distance,
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
from crate_interp.evaluation.emergence import Emergence, measure_emergence
from crate_interp.evaluation.head_agreement import attended_keys, head_agreement
from crate_interp.evaluation.layer_objective import (
    LayerObjective,
    coding_rate,
    layer_objective,
)
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
    "AttentionStatistics",
    "BestMaskIoU",
    "CocoScores",
    "CorLoc",
    "CorLocScore",
    "Emergence",
    "ImageOverlaps",
    "ImageSaliency",
    "LayerObjective",
    "MeanIoU",
    "SaliencyScore",
    "SemanticScore",
    "TopKAccuracy",
    "attended_keys",
    "attention_segmentation_score",
    "attention_statistics",
    "candidate_masks",
    "coco_average_precision",
    "coding_rate",
    "confusion_of",
    "format_table",
    "head_agreement",
    "image_overlaps",
    "image_saliency",
    "layer_objective",
    "mask_iou",
    "match_clusters",
    "measure_emergence",
    "read_results",
    "saliency_score",
    "semantic_score",
    "uniform_distance",
]
