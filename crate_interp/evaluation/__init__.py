"""Masks, boxes and classes against a ground truth: COCO AP, mean IoU, CorLoc, accuracy."""

from crate_interp.evaluation.classification import AccuracyScore, TopKAccuracy
from crate_interp.evaluation.coco_ap import CocoScores, coco_average_precision, format_table
from crate_interp.evaluation.coco_input import read_results
from crate_interp.evaluation.corloc import CorLoc, CorLocScore
from crate_interp.evaluation.masks import BestMaskIoU, MeanIoU, mask_iou

__all__ = [
    "AccuracyScore",
    "BestMaskIoU",
    "CocoScores",
    "CorLoc",
    "CorLocScore",
    "MeanIoU",
    "TopKAccuracy",
    "coco_average_precision",
    "format_table",
    "mask_iou",
    "read_results",
]
