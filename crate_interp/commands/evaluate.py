"""`crate-interp evaluate`: score a COCO results file."""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from crate_interp.commands.run_images import RunImages, find_run, with_ids_of
from crate_interp.config import EvaluateConfig
from crate_interp.data import coco_annotation_file, read_coco
from crate_interp.data.coco_files import CocoFile, Id
from crate_interp.errors import InputError, shorten
from crate_interp.evaluation import coco_average_precision, format_table, read_results
from crate_interp.evaluation.coco_input import ResultsFile, has_masks
from crate_interp.files import checked_as, parse_json_as
from crate_interp.files.typed_json import read_bytes

__all__ = ["run"]

_logger = logging.getLogger(__name__)


def run(config: EvaluateConfig) -> int:
    """Print the AP table of boxes and masks, and return the exit code.

    The images are those of `--image-ids`; else those of the run whose folder the results lie in;
    else all of the set.

    Raises:
        InputError: The results or the ground truth are missing or malformed, a result is for an
            image that is not in the set, or results without categories are to be matched by them.
    """
    ground_truth = read_coco(_annotation_file(config))
    results = read_results(config.results)
    of_run = find_run(config.results)
    if of_run is not None and not of_run.annotated:
        of_run, results = with_ids_of(ground_truth, of_run, results)
    if config.category_aware:
        _check_categories(ground_truth, results, of_run)
    image_ids = _image_ids(config, ground_truth, results, of_run)
    score = functools.partial(
        coco_average_precision,
        ground_truth,
        results,
        class_agnostic=not config.category_aware,
        image_ids=image_ids,
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


def _image_ids(
    config: EvaluateConfig, truth: CocoFile, results: ResultsFile, of_run: RunImages | None
) -> Collection[int] | None:
    """Ids of the images to score, `None` for all; warns where these may not be what one expects."""
    known = {image["id"] for image in truth["images"]}
    if config.image_ids == ["all"]:
        return None
    if config.image_ids is not None:
        chosen = _listed_ids(config.image_ids)
        strange = sorted(chosen - known)
        if strange or not chosen:
            found = f"{len(strange)} others, such as {strange[0]}" if strange else "none"
            raise InputError(f"--image-ids: expected images of {truth.path}, found {found}")
        return chosen
    if of_run is not None and known > of_run.names.keys():
        _logger.warning(
            "%s is a run on %d images: scored on these %d of the %d images of %s; "
            "--image-ids all scores on all",
            of_run.folder,
            len(of_run.names),
            len(of_run.names),
            len(known),
            truth.path,
        )
        return of_run.names.keys()
    hit = {result["image_id"] for result in results.entries if _has_id(result)} & known
    if of_run is None and hit and 2 * len(hit) < len(known):
        _logger.warning(
            "%s has results for %d images: scored on all %d images of %s; "
            "--image-ids scores on some of them",
            results.path,
            len(hit),
            len(known),
            truth.path,
        )
    return None


def _listed_ids(words: list[str]) -> set[int]:
    if len(words) == 1 and not _is_number(words[0]):
        content = read_bytes(words[0])
        if content.lstrip().startswith(b"["):
            return set(parse_json_as(content, list[Id], words[0]))
        try:
            words = content.decode("utf-8-sig").split()
        except UnicodeDecodeError:
            raise InputError(f"{words[0]}: expected a list of image ids, found no text") from None
    strange = [word for word in words if not _is_number(word)]
    if strange:
        raise InputError(
            f"--image-ids: expected ids, one file of them, or all, found {shorten(strange[0])}"
        )
    return set(checked_as([int(word) for word in words], list[Id], "--image-ids"))


def _is_number(word: str) -> bool:
    return word.removeprefix("-").isdecimal() and len(word) <= 20


def _has_id(result: Any) -> bool:
    return isinstance(result, Mapping) and type(result.get("image_id")) is int


def _check_categories(truth: CocoFile, results: ResultsFile, of_run: RunImages | None) -> None:
    """Refuse results without categories, which would match the category 1 alone."""
    if of_run is not None:
        raise InputError(
            f"--category-aware: {of_run.folder} is a run of MaskCut, whose masks have no "
            "categories; leave the option out"
        )
    entries = [result for result in results.entries if isinstance(result, Mapping)]
    kinds = {shorten(result.get("category_id")) for result in entries}
    annotated = {annotation["category_id"] for annotation in truth["annotations"]}
    if len(kinds) != 1 or len(annotated) < 2:
        return
    message = (
        f"{results.path}: every result is of category {kinds.pop()}, the ground truth has objects "
        f"of {len(annotated)} categories"
    )
    if all(result.get("score") == 1 for result in entries):  # as MaskCut writes them
        raise InputError(
            f"--category-aware: expected results of categories, found none in {message}; "
            "leave the option out"
        )
    _logger.warning("%s; without --category-aware, categories do not matter", message)
