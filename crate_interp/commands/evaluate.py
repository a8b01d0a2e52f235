"""Average precision of a COCO results file."""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from crate_interp import data, evaluation
from crate_interp.commands.compared_ap import comparable_ap, kept_matches
from crate_interp.data.built_in import built_in_choices
from crate_interp.errors import InputError, shorten
from crate_interp.options import option
from crate_interp.runs.command import Command

if TYPE_CHECKING:
    from crate_interp.data import CocoFile
    from crate_interp.evaluation import CocoScores, ImageMatches, ResultsFile
    from crate_interp.runs.finished_run import Comparable, FinishedRun
    from crate_interp.runs.run_images import RunImages

__all__ = ["Evaluate"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """Score a COCO results file: AP of boxes and masks.

    Masks are matched whatever their categories, unless `--category-aware` is given.
    """

    group: ClassVar[str] = "score"

    results: Path = option("results JSON as COCO defines it", positional=True)
    coco: str | None = option(
        f"COCO split the results belong to, or a built-in set: {built_in_choices()}", None
    )
    coco_root: Path | None = option("folder of the COCO splits and annotations", None)
    annotations: Path | None = option("a COCO annotation file, instead of --coco", None)
    category_aware: bool = option("match categories, as for a trained detector", False)
    image_ids: list[str] | None = option(
        "score these images only: ids, a file of them (JSON list or text), or `all` (default: the "
        "images of the run that wrote the results, if it lies beside them; else all)",
        None,
        several=str,
    )

    output: Path | None = option("JSON file of the scores, for `compare`", None, presentation=True)

    def __post_init__(self) -> None:
        if (self.coco is None) == (self.annotations is None):
            raise InputError("give either --coco SPLIT or --annotations FILE")

    @classmethod
    def compared(cls, run: FinishedRun) -> Comparable:
        """Give AP, with the matches of each image where categories do not matter."""
        return comparable_ap(run, run.summary.get("matches", {}), f"{run.place}: matches")

    def run(self) -> int:
        """Print the AP table of boxes and masks, and write it as JSON if asked.

        The images are those of `--image-ids`; else those of the run whose folder the results lie
        in; else all of the set.

        Raises:
            InputError: The results or the ground truth are missing or malformed, a result is for an
                image that is not in the set, or results without categories are to be matched by
                them.
        """
        from crate_interp.runs.run_images import find_run, with_ids_of

        ground_truth = data.read_coco(self._annotation_file())
        results = evaluation.read_results(self.results)
        of_run = find_run(self.results)
        if of_run is not None and not of_run.annotated:
            of_run, results = with_ids_of(ground_truth, of_run, results)
        if self.category_aware:
            _check_categories(ground_truth, results, of_run)
        image_ids = self._image_ids(ground_truth, results, of_run)
        match = functools.partial(
            evaluation.image_matches,
            ground_truth,
            results,
            class_agnostic=not self.category_aware,
            image_ids=image_ids,
        )
        matches = {"box": match(iou_type="bbox")}
        boxes_only: str | None = None
        if results.entries and not any("segmentation" in result for result in results.entries):
            boxes_only = str(self.results)
        elif not evaluation.has_masks(ground_truth):
            boxes_only = "the ground truth"
        if not boxes_only:
            matches["mask"] = match(iou_type="segm")
        scores = {
            kind: evaluation.average_precision(records) if records else evaluation.NO_SCORES
            for kind, records in matches.items()
        }
        print(evaluation.format_table(scores["box"], scores.get("mask")))
        if boxes_only:
            print(f"boxes only: {boxes_only} carries no masks")
        if self.output is not None:
            names = {image["id"]: image.get("file_name") for image in ground_truth["images"]}
            scored = sorted(names if image_ids is None else image_ids)
            self._write(scores, matches, [str(names[number]) for number in scored], of_run)
        return 0

    def _write(
        self,
        scores: Mapping[str, CocoScores],
        matches: Mapping[str, Sequence[ImageMatches]],
        names: Sequence[str],
        of_run: RunImages | None,
    ) -> None:
        """Write scores and matches, with the settings of the run that the results are of."""
        from crate_interp.files import checksum_of, read_bytes, read_json_as
        from crate_interp.runs.number_files import write_json

        settings: dict[str, Any] = {"model": str(self.results)}
        if of_run is not None:
            settings = read_json_as(of_run.folder / "settings.json", dict[str, Any])
        truth = self._annotation_file()
        write_json(
            Path(str(self.output)),
            {
                "command": self.command_name(),
                "average_precision": {kind: asdict(score) for kind, score in scores.items()},
                "images": len(names),
                "ground_truth": {
                    "file": str(truth.resolve()),
                    "sha256": checksum_of(read_bytes(truth)),
                },
                "settings": {**settings, "category_aware": self.category_aware},
                "matches": {} if self.category_aware else kept_matches(matches, names),
            },
        )
        print(self.output)

    def _annotation_file(self) -> Path:
        if self.annotations is not None:
            return self.annotations
        return data.coco_annotation_file(str(self.coco), self.coco_root)

    def _image_ids(
        self, truth: CocoFile, results: ResultsFile, of_run: RunImages | None
    ) -> Collection[int] | None:
        """Ids of the images to score, `None` for all; warns where that may be unexpected."""
        known = {image["id"] for image in truth["images"]}
        if self.image_ids == ["all"]:
            return None
        if self.image_ids is not None:
            chosen = _listed_ids(self.image_ids)
            strange = sorted(chosen - known)
            if strange or not chosen:
                others = f"{len(strange)} others, such as {strange[0]}" if strange else "none"
                raise InputError(f"--image-ids: expected images of {truth.path}, found {others}")
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
    from crate_interp.data.coco_files import Id
    from crate_interp.files import checked_as, parse_json_as, read_bytes

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
