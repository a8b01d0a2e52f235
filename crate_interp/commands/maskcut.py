"""The command `maskcut`: a set of images to COCO results, an AP table and overlays."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, fields
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any, TypedDict

from torch import Tensor

from crate_interp.commands.maskcut_files import annotation_file, draw_overlays
from crate_interp.config import MaskCutConfig
from crate_interp.data import (
    ImageRecord,
    ImageSet,
    ResizedImage,
    open_coco,
    open_images,
    results_of,
)
from crate_interp.engine import StageClock, process_images
from crate_interp.evaluation import CocoScores, coco_average_precision, format_table
from crate_interp.evaluation.coco_input import IouType, has_masks, prepare_ground_truth
from crate_interp.runs.inference import (
    batch_size_of,
    check_tokens,
    describe_weights,
    device_of,
    load_model,
    peak_memory_mb,
    precision_of,
    workers_of,
)
from crate_interp.runs.journal import JournalEntry
from crate_interp.runs.number_files import versions
from crate_interp.runs.progress import progress_bar
from crate_interp.runs.resumable import default_output, failure_of, settings_of
from crate_interp.runs.run_folder import RunFolder, open_run_folder
from crate_interp.segmentation import MaskCut, MaskCutResult

__all__ = ["run"]

_logger = logging.getLogger(__name__)

STAGES = ("read", "forward", "cut", "refine", "encode", "write")

# Options that change where a run writes or what it shows, not what it finds.
_PRESENTATION = {
    *("output", "visualize", "strict", "images", "coco_root", "annotations", "weights", "workers"),
    "recursive",
}


class _Rle(TypedDict):
    size: tuple[int, int]
    counts: str


class _Result(TypedDict):
    image_id: int
    category_id: int
    segmentation: _Rle
    bbox: tuple[float, float, float, float]
    score: float


class _Entry(JournalEntry):
    hw: tuple[int, int]
    results: list[_Result]


def run(config: MaskCutConfig) -> int:
    """Run MaskCut over the images, or go on with a stopped run, and print the AP table.

    Returns:
        0, or 1 if an image could not be read.
    """
    images = _open_images(config)
    predictor, weights = _predictor_of(config)
    settings = settings_of(config, predictor.observer, images, weights, _PRESENTATION)
    settings["feature"] = predictor.feature
    output = config.output or default_output("maskcut", config, images)
    with open_run_folder(output, settings, _Entry) as folder:
        started, before = time.perf_counter(), len(folder.finished())
        failed = _process(predictor, images, folder, config)
        processed = time.perf_counter() - started
        journal = folder.finished()
        ids = [record.image_id for record in images.records]
        finished = [journal[image_id] for image_id in ids if image_id in journal]
        results = [result for entry in finished for result in entry["results"]]
        folder.write_json("results.json", results)
        folder.write_json("annotations.json", annotation_file(images, finished))
        scores = _score(images, results)
        summary = {
            "average_precision": {name: asdict(score) for name, score in scores.items()},
            "images": len(finished),
            "masks": len(results),
            "failed": failed,
            "seconds": _seconds(finished),
            "this_time": {
                "images": len(journal) - before,
                "seconds": round(processed, 3),
                "images_per_second": round((len(journal) - before) / processed, 3),
                "peak_memory_mb": peak_memory_mb(predictor.observer.device),
            },
            "weights": weights,
            "settings": settings,
            "versions": versions(),
        }
        folder.write_json("summary.json", summary)
        title = f"MaskCut, {settings['model']} on {images.name}"
        if scores:
            name, score = list(scores.items())[-1]
            title += f": {name} AP50 {100 * score.AP50:.1f}, AP {100 * score.AP:.1f}"
        drawn = draw_overlays(images, finished[: config.visualize], folder.path, title, config)
    _report(output, drawn, scores, summary)
    return 1 if failed else 0


def _open_images(config: MaskCutConfig) -> ImageSet:
    if config.coco is not None:
        images = open_coco(config.coco, config.coco_root)
    else:
        images = open_images(config.images or (), config.annotations, config.recursive)
    if images.annotations is not None:  # what cannot be scored, one wants to know now
        for iou_type in _iou_types(images.annotations):
            prepare_ground_truth(images.annotations, iou_type, class_agnostic=True)
    return images if config.limit is None else images.limit(config.limit)


def _iou_types(annotations: Mapping[str, Any]) -> dict[IouType, str]:
    """What can be scored against a ground truth, and what the summary calls it."""
    return {"bbox": "box", "segm": "mask"} if has_masks(annotations) else {"bbox": "box"}


def _predictor_of(config: MaskCutConfig) -> tuple[MaskCut, dict[str, Any]]:
    """The predictor on its device, and the record of its weights."""
    device = device_of(config.device)
    model, path = load_model(config)
    if _has_tokens_of_high_norm(model):
        _logger.warning(
            "%s has tokens of high norm, on which normalized cuts are known to collapse "
            "(TokenCut's CorLoc on VOC07: 16.2; with DINO: 68.8)",
            config.model,
        )
    options: dict[str, Any] = {
        field.name: getattr(config, field.name)
        for field in fields(MaskCut)
        if field.init and field.name != "model"
    }
    options["precision"] = precision_of(config.precision, device)
    predictor = MaskCut(model.to(device), **options)
    check_tokens(predictor.observer)
    return predictor, describe_weights(path)


def _has_tokens_of_high_norm(model: Any) -> bool:
    """Whether patches without content are used as registers: DINOv2, unless it has registers."""
    cfg = model.pretrained_cfg
    name = f"{cfg.get('architecture')}.{cfg.get('tag')}"
    return "dinov2" in name and not model.num_reg_tokens


def _process(
    predictor: MaskCut, images: ImageSet, folder: RunFolder, config: MaskCutConfig
) -> list[dict[str, Any]]:
    """Cut every image that the journal lacks; return those that failed, with reasons."""
    done = folder.finished()
    failed: list[dict[str, Any]] = []
    outcomes = process_images(
        images.records,
        methodcaller("read_resized", predictor.observer.input_size),
        partial(_forward, predictor),
        partial(_entry_of, predictor),
        batch_size=batch_size_of(config.batch_size, predictor.observer),
        workers=workers_of(config.workers),
        done=done,
    )
    writing = 0.0
    with (
        closing(outcomes),
        progress_bar(
            desc="maskcut", total=len(images), initial=len(done), unit="image"
        ) as progress,
    ):
        for image in outcomes:
            if image.result is not None:
                # An entry cannot hold the seconds of its own writing: those of the one before.
                seconds = {**image.seconds, "write": writing}
                clock = time.perf_counter()
                folder.append({**image.result, "seconds": seconds})
                writing = time.perf_counter() - clock
            elif image.error is not None:
                if config.strict:
                    raise image.error
                entry = failure_of(image.record, image.error)
                failed.append(entry)
                progress.write(f"failed: {entry['reason']}", file=sys.stderr)
            progress.update()
    return failed


def _forward(
    predictor: MaskCut, images: Sequence[ResizedImage], stage: StageClock
) -> Sequence[Tensor | MaskCutResult]:
    """Cuts of the images of a batch, or their features, which threads cut one by one."""
    with stage("forward"):
        if predictor.keep_aspect:  # their grids differ
            return [predictor.features([image.rgb])[0] for image in images]
        features = predictor.features([image.rgb for image in images])
        together = _are_cut_together(features)
    if together:
        with stage("cut"):
            return predictor.cut(features)
    return list(features)


def _are_cut_together(features: Tensor) -> bool:
    """Whether a batch is for a GPU to cut; not one that has a NaN: the others of it are to go on.

    Asking waits for the model, so that the seconds of a stage are its own.
    """
    return features.is_cuda and bool(features.isfinite().all())


def _entry_of(
    predictor: MaskCut,
    record: ImageRecord,
    image: ResizedImage,
    output: Tensor | MaskCutResult,
    stage: StageClock,
) -> dict[str, Any]:
    """The journal's entry of one image, but for its seconds."""
    geometry = predictor.observer.geometry(image.original_hw)
    geometry.refuse_less_than_a_patch(str(record.path))
    if isinstance(output, Tensor):
        with stage("cut"):
            (output,) = predictor.cut(output[None], geometry.grid_hw)
    with stage("refine"):
        instances = predictor.instances(image.rgb, output, image.original_hw, name=str(record.path))
    with stage("encode"):
        return {
            "image_id": record.image_id,
            "file_name": record.file_name,
            "hw": image.original_hw,
            "results": results_of(instances, record.image_id),
        }


def _score(images: ImageSet, results: Sequence[Mapping[str, Any]]) -> dict[str, CocoScores]:
    """AP of boxes and masks; images that could not be read count as images without a mask."""
    if images.annotations is None:
        return {}
    score = partial(
        coco_average_precision,
        images.annotations,
        results,
        image_ids=[record.image_id for record in images.records],
    )
    types = _iou_types(images.annotations).items()
    return {name: score(iou_type=iou_type) for iou_type, name in types}


def _seconds(finished: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Seconds of each stage: of all images together, of one on average, and its share of all.

    Stages overlap, so that they take longer together than the run does.
    """
    total = {stage: sum(entry["seconds"][stage] for entry in finished) for stage in STAGES}
    count, whole = max(1, len(finished)), sum(total.values()) or 1.0
    return {
        "total": {stage: round(value, 3) for stage, value in total.items()},
        "per_image": {stage: round(value / count, 4) for stage, value in total.items()},
        "share": {stage: round(value / whole, 4) for stage, value in total.items()},
    }


def _report(
    output: Path,
    drawn: Sequence[Path],
    scores: Mapping[str, CocoScores],
    summary: Mapping[str, Any],
) -> None:
    if scores:
        print(format_table(scores["box"], scores.get("mask")))
    seconds = ", ".join(f"{k} {v:.3f}" for k, v in summary["seconds"]["per_image"].items())
    print(f"{summary['images']} images, {summary['masks']} masks; seconds an image: {seconds}")
    if summary["failed"]:
        print(f"{len(summary['failed'])} images failed: see `failed` in summary.json")
    print(f"results.json, annotations.json, summary.json and images/ are in {output}")
    if drawn:
        print(f"open {drawn[0]} to see what was found")
