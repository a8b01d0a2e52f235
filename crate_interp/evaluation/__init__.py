"""Scores: COCO AP, mean IoU, CorLoc, accuracy against a ground truth; the layer-wise objective."""

from crate_interp.evaluation.ablation import (
    estimate_logit_effects,
    logit_effects,
    mask_effects,
    mask_of,
    written_energy,
)
from crate_interp.evaluation.attention import AttentionIoU, AttentionScore
from crate_interp.evaluation.attribution import (
    IntegratedGradients,
    attention_relevance,
    check_captum,
    check_class_token,
    integrated_gradients,
)
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
    "AttentionIoU",
    "AttentionScore",
    "BestMaskIoU",
    "CocoScores",
    "CorLoc",
    "CorLocScore",
    "Emergence",
    "IntegratedGradients",
    "LayerObjective",
    "MeanIoU",
    "TopKAccuracy",
    "attention_relevance",
    "check_captum",
    "check_class_token",
    "coco_average_precision",
    "coding_rate",
    "estimate_logit_effects",
    "format_table",
    "integrated_gradients",
    "layer_objective",
    "logit_effects",
    "mask_effects",
    "mask_iou",
    "mask_of",
    "measure_emergence",
    "read_results",
    "written_energy",
]
