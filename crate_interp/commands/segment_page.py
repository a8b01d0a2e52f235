"""Sections of the page of a run that segments images: scores, curves, masks, pictures."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, fields
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crate_interp import data, evaluation, visualization
from crate_interp.commands.scored_images import score_histogram, score_pictures, strip_of

if TYPE_CHECKING:
    from jaxtyping import Bool

    from crate_interp.evaluation import CocoScores, ImageMatches
    from crate_interp.runs.journal import Entry
    from crate_interp.runs.run import Run
    from crate_interp.visualization import Histogram, LineChart, PageTable, Section

__all__ = ["MaskCounts", "count_masks", "segment_sections"]

_SHOWN = 6  # images without ground truth
_MOST_COUNTED = 20  # masks of an image, in a bar of their own
_OF_IMAGE = (
    "The IoU of an image is the mean over its objects, each with the mask that covers it best."
)
_TITLES = {"box": "Boxes", "mask": "Masks"}
_NAMES = {"AR_small": "AR small", "AR_medium": "AR medium", "AR_large": "AR large"}


class MaskCounts(NamedTuple):
    """Numbers and sizes of the masks of a run.

    Attributes:
        by_image: Number of masks of each image.
        shares: Share of its image that each mask covers, in [0, 1].
    """

    by_image: array[int]
    shares: array[float]


def count_masks(entries: Iterable[Entry]) -> MaskCounts:
    """Count the masks of all images in one pass, and measure them."""
    counts = MaskCounts(array("q"), array("d"))
    for entry in entries:
        results, (height, width) = entry["results"], entry["hw"]
        counts.by_image.append(len(results))
        for result in results:
            counts.shares.append(data.area_of(result["segmentation"]) / (height * width))
    return counts


def segment_sections(
    run: Run,
    counts: MaskCounts,
    matches: Mapping[str, Sequence[ImageMatches]],
    scores: Mapping[str, CocoScores],
    published: Mapping[str, Any] | None,
) -> list[Section]:
    """Show what a run found, and how well where there is a ground truth.

    Args:
        run: The run.
        counts: Numbers and sizes of its masks.
        matches: Records of all images in the order of their ids, by `box` and `mask`; empty without
            ground truth.
        scores: AP by the same.
        published: Published numbers by metric, in [0, 1], and their `source`.
    """
    masks = visualization.Section("Masks", _histograms(counts), "masks")
    if not matches:
        shown = [strip_of(run, entry, "", _masks_of) for entry in run.entries[:_SHOWN]]
        return [masks, visualization.Section("First images", shown, "pictures")]
    name, records = list(matches.items())[-1]
    ids = sorted(record.image_id for record in run.images.records)
    overlaps = zip(ids, evaluation.object_overlaps(records), strict=True)
    failed = {entry["image_id"] for entry in run.failed}
    by_image = {
        number: float(np.mean(ious)) for number, ious in overlaps if ious and number not in failed
    }
    curves = [_curves(*of_type) for of_type in matches.items()]
    return [
        visualization.Section("Average precision, %", [_table(scores, published)], "scores"),
        visualization.Section(
            "Precision and recall",
            [visualization.Words(_OF_IMAGE), *curves, score_histogram("IoU", by_image)],
            "curves",
        ),
        masks,
        *score_pictures(run, "IoU", by_image, partial(_masks_and_truth, run, name)),
    ]


def _table(scores: Mapping[str, CocoScores], published: Mapping[str, Any] | None) -> PageTable:
    columns = [field.name for field in fields(next(iter(scores.values())))]
    rows = [
        [name, *("-" if value < 0 else f"{100 * value:.1f}" for value in astuple(score))]
        for name, score in scores.items()
    ]
    measured = len(rows)
    if published is not None:
        for name in scores:
            known = (published.get(f"{name} {column}") for column in columns)
            cells = ("" if value is None else f"{100 * value:.1f}" for value in known)
            rows.append([f"{name}, published ({published['source']})", *cells])
    header = ["", *(_NAMES.get(name, name.removeprefix("AP_")) for name in columns)]
    return visualization.PageTable(header, rows, frozenset(range(measured, len(rows))))


def _curves(name: str, records: Sequence[ImageMatches]) -> LineChart:
    precision = evaluation.precision_by_recall(records)
    lines = [
        ("IoU 0.50", precision[0]),
        ("IoU 0.75", precision[5]),
        ("mean of IoU 0.50 to 0.95", precision.mean(axis=0)),
    ]
    recall = np.linspace(0, 1, precision.shape[1])
    return visualization.LineChart(
        f"{name.capitalize()}es" if name == "box" else "Masks", recall, lines, "recall", "precision"
    )


def _histograms(masks: MaskCounts) -> list[Histogram]:
    """Number of masks of an image, and their sizes."""
    counts = np.array(masks.by_image, np.int64)
    shares = 100 * np.array(masks.shares)
    most = min(int(counts.max(initial=0)), _MOST_COUNTED)
    limits = (-0.5, most + 0.5)
    median = f": median {np.median(shares):.1f} %" if len(shares) else ""
    return [
        visualization.Histogram(
            f"Masks an image: {counts.sum()} in all",
            *(counts.astype(float), limits, most + 1, "masks", "images", True),
        ),
        visualization.Histogram(
            f"Size of a mask{median}",
            *(shares, (0.0, 100.0), 20, "share of the image (%)", "masks"),
        ),
    ]


def _counted(entry: Entry) -> str:
    count = len(entry["results"])
    return f"{count} mask{'s' * (count != 1)}"


def _masks_of(entry: Entry, hw: tuple[int, int]) -> dict[str, Bool[np.ndarray, "M H W"]]:
    return {_counted(entry): data.instances_of(entry["results"], hw).masks}


def _masks_and_truth(
    run: Run, name: str, entry: Entry, hw: tuple[int, int]
) -> dict[str, Bool[np.ndarray, "M H W"]]:
    """Masks of an image, and its objects; a box is drawn where there is no more than one."""
    truth: Any = run.images.annotations
    objects = [
        item
        for item in truth["annotations"]
        if item["image_id"] == entry["image_id"] and not item.get("iscrowd")
    ]
    drawn = np.zeros((len(objects), *hw), dtype=bool)
    for mask, item in zip(drawn, objects, strict=True):
        outline = item["segmentation"] if name == "mask" else [_corners(item["bbox"])]
        mask[:] = data.draw_segmentation(outline, hw)
    words = f"truth: {len(objects)} object{'s' * (len(objects) != 1)}"
    return {**_masks_of(entry, hw), words: drawn}


def _corners(box: Sequence[float]) -> list[float]:
    x, y, width, height = box
    return [x, y, x + width, y, x + width, y + height, x, y + height]
