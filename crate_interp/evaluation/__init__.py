"""Scores: COCO AP, mean IoU, CorLoc, accuracy against a ground truth; the layer-wise objective."""

from crate_interp.evaluation.attention import AttentionIoU, AttentionScore
from crate_interp.evaluation.attention_statistics import (
    AttentionStatistics,
    attention_statistics,
    uniform_distance,
)
from crate_interp.evaluation.classification import AccuracyScore, TopKAccuracy
from crate_interp.evaluation.coco_ap import CocoScores, coco_average_precision, format_table
from crate_interp.evaluation.coco_input import read_results
from crate_interp.evaluation.corloc import CorLoc, CorLocScore
from crate_interp.evaluation.emergence import Emergence, measure_emergence
from crate_interp.evaluation.head_agreement import attended_keys, head_agreement
from crate_interp.evaluation.layer_objective import (
    LayerObjective,
    coding_rate,
    layer_objective,
)
from crate_interp.evaluation.masks import BestMaskIoU, MeanIoU, mask_iou

__all__ = [
    "AccuracyScore",
    "AttentionIoU",
    "AttentionScore",
    "AttentionStatistics",
    "BestMaskIoU",
    "CocoScores",
    "CorLoc",
    "CorLocScore",
    "Emergence",
    "LayerObjective",
    "MeanIoU",
    "TopKAccuracy",
    "attended_keys",
    "attention_statistics",
    "coco_average_precision",
    "coding_rate",
    "format_table",
    "head_agreement",
    "layer_objective",
    "mask_iou",
    "measure_emergence",
    "read_results",
    "uniform_distance",
]
