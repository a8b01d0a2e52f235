"""Scores against a ground truth; the layer-wise objective; what makes atoms fire."""

from crate_interp.evaluation.atlas import Atlas, AtlasBuilder, class_selectivity
from crate_interp.evaluation.attention import AttentionIoU, AttentionScore
from crate_interp.evaluation.classification import AccuracyScore, TopKAccuracy
from crate_interp.evaluation.coco_ap import CocoScores, coco_average_precision, format_table
from crate_interp.evaluation.coco_input import read_results
from crate_interp.evaluation.corloc import CorLoc, CorLocScore
from crate_interp.evaluation.emergence import Emergence, measure_emergence
from crate_interp.evaluation.layer_objective import (
    LayerObjective,
    coding_rate,
    layer_objective,
)
from crate_interp.evaluation.masks import BestMaskIoU, MeanIoU, mask_iou

__all__ = [
    "AccuracyScore",
    "Atlas",
    "AtlasBuilder",
    "AttentionIoU",
    "AttentionScore",
    "BestMaskIoU",
    "CocoScores",
    "CorLoc",
    "CorLocScore",
    "Emergence",
    "LayerObjective",
    "MeanIoU",
    "TopKAccuracy",
    "class_selectivity",
    "coco_average_precision",
    "coding_rate",
    "format_table",
    "layer_objective",
    "mask_iou",
    "measure_emergence",
    "read_results",
]
