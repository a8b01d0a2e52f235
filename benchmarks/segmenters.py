"""All segmenters on the same features, with their own defaults: AP, IoU and seconds, as a table.

    python benchmarks/segmenters.py
    python benchmarks/segmenters.py --sets photos COCO/val2017 ECSSD --model photo --limit 20

A set is built in (`demo` are scenes, `photos` photographs), a split of COCO (ROOT/SPLIT), or a
folder of pictures with masks of their salient object, as ECSSD is. The model sees an image once;
seconds are those of processors for the segmenter and its refinement, without model and files.

- AP, AP50 and AR100 are COCO's, of masks and class-agnostic, with a 95 % interval over images; the
  difference is that of AP to the same masks with scores of 1, paired by images.
- IoU is TokenCut's: of the mask of the highest score (the first of several) with the salient
  object, the largest one of the image; 0 without a mask.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from tqdm import tqdm

from crate_interp.data import (
    ImageRecord,
    annotations_of,
    open_coco,
    open_labelled,
    read_image,
    results_of,
)
from crate_interp.data.built_in import BUILT_IN_SETS
from crate_interp.evaluation import (
    Bootstrap,
    average_precision,
    best_overlaps,
    bootstrap_average_precision,
    image_detections,
    image_matches,
    object_masks,
    prepare_ground_truth,
)
from crate_interp.hooks import Observer
from crate_interp.options.choices import Scores
from crate_interp.segmentation import on_original
from crate_interp.segmentation.segmenter import SEGMENTERS
from crate_interp.structures import Instances
from crate_interp.weights import load_backbone

SCORED = ("maskcut", "one-cut", "promerge", "divide-and-conquer")  # of several masks
REFINED = ("tokencut", "maskcut")
TITLES = (
    *("segmenter", "masks an image", "AP", "difference", "AP50", "AR100", "IoU"),
    "processor s an image",
)


@dataclass
class Row:
    """A segmenter, and what it does on the images of a set."""

    name: str
    title: str
    segmenter: Any  # a segmenter for the model
    refine: Any = "none"
    results: list[dict[str, Any]] = field(default_factory=list)
    ious: list[float] = field(default_factory=list)
    seconds: float = 0.0


def rows_of(model: Any, block: int) -> list[Row]:
    """All segmenters of this package, some with each kind of score, some refined."""
    rows = []
    for name in SEGMENTERS.names():
        kind: Any = SEGMENTERS[name]
        own = kind(block=block).for_model(model)
        if name in SCORED:
            rows += [Row(name, f"{name}, {by}", replace(own, scores=by)) for by in get_args(Scores)]
        else:
            rows.append(Row(name, name, own))
        if name in REFINED:
            rows += [Row(name, f"{name}, {how}", own, how) for how in ("crf", "bilateral")]
    return rows


def images_of(name: str, limit: int | None) -> tuple[dict[str, Any], Sequence[ImageRecord]]:
    """Ground truth and records of the images of a set."""
    path = Path(name)
    built_in = name in BUILT_IN_SETS
    if built_in or (path.parent / "annotations").is_dir():
        images = open_coco(path.name, None if built_in else path.parent).limit(limit)
        return prepare_ground_truth(images.annotations, "segm", True), images.records
    labelled = open_labelled(path, "val").limit(limit)
    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1}]}
    for record in labelled.images.records:
        height, width = read_image(record.path).shape[:2]
        mask = labelled.labels_of(record, (height, width)) == 1
        truth["images"].append({"id": record.image_id, "height": height, "width": width})
        first = 1 + len(truth["annotations"])
        truth["annotations"] += annotations_of(Instances(mask[None]), record.image_id, first)
    return truth, labelled.images.records


def measure(
    rows: list[Row], observer: Observer, truth: dict[str, Any], records: Sequence[ImageRecord]
) -> None:
    """Fill the rows with what their segmenters find in the images."""
    of_image = defaultdict(list)
    for annotation in truth["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    sites = sorted({site for row in rows for site in row.segmenter.sites})
    blocks = sorted({block for row in rows for block in row.segmenter.blocks})
    for number, record in enumerate(tqdm([records[0], *records], mininterval=5)):
        if number == 1:  # the first image was there to import and to warm up
            for row in rows:
                row.results, row.ious, row.seconds = [], [], 0.0
        rgb = read_image(record.path)
        (activations,) = observer.each([rgb], sites, blocks)
        geometry = observer.geometry(rgb.shape[:2])
        objects = object_masks(of_image[record.image_id], geometry.original_hw)
        salient = objects[objects.sum(axis=(1, 2)).argsort()[-1:]]
        for row in rows:
            start = time.process_time()
            on_grid = row.segmenter(activations, geometry)
            instances = on_original(on_grid, geometry, rgb, row.refine, "cpu")
            row.seconds += time.process_time() - start
            row.results += results_of(instances, record.image_id)
            best = np.argsort(-instances.scores, kind="stable")[:1]
            row.ious += best_overlaps(instances.masks[best], salient)


def table_of(
    rows: list[Row], truth: dict[str, Any], image_ids: list[int], resamples: int
) -> Iterator[str]:
    """Lines of the table; numbers in percent."""
    yield f"| {' | '.join(TITLES)} |\n{'|---' * len(TITLES)}|"
    of_ones: dict[str, Bootstrap] = {}
    for row in rows:
        matches = image_matches(truth, row.results, iou_type="segm", image_ids=image_ids)
        scores = average_precision(matches)
        own = bootstrap_average_precision(image_detections(matches), resamples)["AP"]
        ones = of_ones.setdefault(row.name, own)
        is_other = row.refine == "none" and own is not ones
        difference = shown(own - ones, "+") if is_other else ""
        rest = (f"{100 * value:.1f}" for value in (scores.AP50, scores.AR100, np.mean(row.ious)))
        masks, seconds = (value / len(image_ids) for value in (len(row.results), row.seconds))
        cells = (row.title, f"{masks:.1f}", shown(own), difference, *rest, f"{seconds:.3f}")
        yield f"| {' | '.join(cells)} |"


def shown(score: Bootstrap, sign: str = "") -> str:
    """Percent, with the interval."""
    values = (score.score, *score.interval())
    return "{:{sign}.2f} [{:{sign}.2f}, {:{sign}.2f}]".format(
        *(100 * value for value in values), sign=sign
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=["photos"], help="see above")
    parser.add_argument("--model", default="photo")
    parser.add_argument("--block", type=int, default=-2, help="the last one that is read")
    parser.add_argument("--size", type=int, help="side of the model's input (default: its own)")
    parser.add_argument("--limit", type=int, help="first images of each set only")
    parser.add_argument("--resamples", type=int, default=2000, help="of images, for intervals")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.disable(logging.WARNING)  # of images without a mask, of which there are many
    observer = Observer(load_backbone(arguments.model), size=arguments.size)
    for name in arguments.sets:
        truth, records = images_of(name, arguments.limit)
        rows = rows_of(observer.model, arguments.block)
        measure(rows, observer, truth, records)
        print(
            f"\n{Path(name).name}: {len(records)} images; {arguments.model} at {observer.size} px, "
            f"block {arguments.block}; {arguments.threads} threads\n"
        )
        image_ids = [record.image_id for record in records]
        for line in table_of(rows, truth, image_ids, arguments.resamples):
            print(line, flush=True)


if __name__ == "__main__":
    main()
