"""Scores against a ground truth; the layer-wise objective; what makes atoms fire."""

from crate_interp.evaluation.ablation import (
    estimate_logit_effects,
    logit_effects,
    mask_effects,
    mask_of,
    written_energy,
)
from crate_interp.evaluation.atlas import Atlas, AtlasBuilder, class_selectivity
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
    objective_sites,
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
    "Atlas",
    "AtlasBuilder",
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
    "IntegratedGradients",
    "LayerObjective",
    "MeanIoU",
    "SaliencyScore",
    "SemanticScore",
    "TopKAccuracy",
    "attended_keys",
    "attention_relevance",
    "attention_segmentation_score",
    "attention_statistics",
    "candidate_masks",
    "check_captum",
    "check_class_token",
    "class_selectivity",
    "coco_average_precision",
    "coding_rate",
    "confusion_of",
    "estimate_logit_effects",
    "format_table",
    "head_agreement",
    "image_overlaps",
    "image_saliency",
    "integrated_gradients",
    "layer_objective",
    "logit_effects",
    "mask_effects",
    "mask_iou",
    "mask_of",
    "match_clusters",
    "measure_emergence",
    "objective_sites",
    "read_results",
    "saliency_score",
    "semantic_score",
    "uniform_distance",
    "written_energy",
]
