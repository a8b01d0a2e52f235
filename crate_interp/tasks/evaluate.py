"""`crate-interp evaluate`: score a COCO results file."""

from __future__ import annotations

import functools
from pathlib import Path

from crate_interp.config import EvaluateConfig
from crate_interp.data import coco_annotation_file, read_coco
from crate_interp.errors import InputError
from crate_interp.evaluation import coco_average_precision, format_table, read_results
from crate_interp.evaluation.coco_input import has_masks

__all__ = ["run"]


def run(config: EvaluateConfig) -> int:
    """Print the AP table of boxes and masks over all images of the set, and return the exit code.

    Raises:
        InputError: The results or the ground truth are missing or malformed, or a result is for
            an image that is not in the set.
    """
    ground_truth = read_coco(_annotation_file(config))
    results = read_results(config.results)
    score = functools.partial(
        coco_average_precision,
        ground_truth,
        results,
        class_agnostic=not config.category_aware,
    )
    box = score(iou_type="bbox")
    boxes_only: str | None = None
    if results.entries and not any("segmentation" in result for result in results.entries):
        boxes_only = str(config.results)
    elif not has_masks(ground_truth):
        boxes_only = "the ground truth"
    print(format_table(box, None if boxes_only else score(iou_type="segm")))
    if boxes_only:
        print(f"boxes only: {boxes_only} carries no masks")
    return 0


def _annotation_file(config: EvaluateConfig) -> Path:
    if config.annotations is not None:
        return config.annotations
    if config.coco is None:
        raise InputError("name a COCO split or an annotation file to score against")
    return coco_annotation_file(config.coco, config.coco_root)
