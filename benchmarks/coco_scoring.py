"""COCO AP of boxes and masks: ours and pycocotools by hand, side by side in one run.

The set is drawn here, of the size and the make of COCO val2017: 5000 images of 640 x 480 with
36,781 objects, polygons of about 20 points, one in 80 a crowd in uncompressed RLE; three masks an
image of blocks of 8 pixels, as MaskCut makes them, all with score 1.

    python benchmarks/coco_scoring.py
    python benchmarks/coco_scoring.py --images 500 --results-per-image 100
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from crate_interp.data import coco_files, decode_mask
from crate_interp.evaluation import coco_ap, coco_average_precision, coco_input

# What is timed, by the names that it has in COCOeval, in our modules, and in json.
PARTS = {
    "read the files": ("load", "read_json_as"),
    "check and copy": ("check_coco", "prepare_ground_truth", "prepare_results"),
    "polygons to RLE": ("_prepare",),
    "IoU": ("computeIoU",),
    "matching": ("evaluateImg",),
    "accumulate": ("accumulate",),
}
HEIGHT, WIDTH, BLOCK = 480, 640, 8
OBJECTS_AN_IMAGE = 36_781 / 5000  # of val2017, as is what follows
CROWD_SHARE = 446 / 36_781
SECOND_PART_SHARE = 0.06


def draw_polygon(rng: np.random.Generator) -> list[float]:
    """A star-shaped outline; areas have the median and the spread of val2017's."""
    radius = np.clip(22 * np.exp(rng.normal()), 3, 230)
    points = int(np.clip(18 * np.exp(0.6 * rng.normal()), 4, 150))
    angles = np.sort(rng.uniform(0, 2 * np.pi, points))
    radii = radius * rng.uniform(0.6, 1.0, points)
    centre = rng.uniform((0, 0), (WIDTH, HEIGHT))
    outline = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return [round(float(value), 2) for value in outline.clip(0, (WIDTH, HEIGHT)).ravel()]


def draw_annotation(rng: np.random.Generator, number: int, image_id: int) -> dict[str, Any]:
    crowd = rng.random() < CROWD_SHARE
    parts = 8 if crowd else 1 + (rng.random() < SECOND_PART_SHARE)
    polygons = [draw_polygon(rng) for _ in range(parts)]
    rle = coco_mask.merge(coco_mask.frPyObjects(polygons, HEIGHT, WIDTH))
    segmentation: Any = polygons
    if crowd:
        pixels = decode_mask(rle).ravel(order="F").astype(np.int8)
        edges = [0, *np.flatnonzero(np.diff(pixels, prepend=0)).tolist(), pixels.size]
        segmentation = {"size": [HEIGHT, WIDTH], "counts": np.diff(edges).tolist()}
    return {
        "id": number + 1,
        "image_id": image_id,
        "category_id": int(rng.integers(1, 81)),
        "segmentation": segmentation,
        "area": float(coco_mask.area(rle)),
        "bbox": [round(float(value), 2) for value in coco_mask.toBbox(rle)],
        "iscrowd": int(crowd),
    }


def draw_result(rng: np.random.Generator, image_id: int, outline: list[float]) -> dict[str, Any]:
    """A mask on a grid of blocks, near the outline of an object."""
    shifted = (np.array(outline) + rng.normal(0, 2)) / BLOCK
    grid_hw = (HEIGHT // BLOCK, WIDTH // BLOCK)
    (drawn,) = coco_mask.frPyObjects([shifted.tolist()], *grid_hw)
    mask = decode_mask(drawn).repeat(BLOCK, 0).repeat(BLOCK, 1)
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "image_id": image_id,
        "category_id": 1,
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()},
        "bbox": [float(value) for value in coco_mask.toBbox(rle)],
        "score": 1.0,
    }


def write_set(folder: Path, images: int, results_per_image: int) -> tuple[Path, Path]:
    """Write `truth.json` and `results.json`, and return their paths."""
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(images, 1.2))  # few images with many objects
    counts = rng.multinomial(round(images * OBJECTS_AN_IMAGE), shares)
    annotations: list[dict[str, Any]] = []
    results = []
    for image_id, count in enumerate(counts.tolist(), start=1):
        here = [draw_annotation(rng, len(annotations) + k, image_id) for k in range(count)]
        annotations += here
        outlines = [entry["segmentation"][0] for entry in here if not entry["iscrowd"]]
        for number in range(results_per_image):
            outline = outlines[number] if number < len(outlines) else draw_polygon(rng)
            results.append(draw_result(rng, image_id, outline))
    truth = {
        "images": [
            {"id": number, "file_name": f"{number}.jpg", "height": HEIGHT, "width": WIDTH}
            for number in range(1, images + 1)
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": str(number)} for number in range(1, 81)],
    }
    paths = folder / "truth.json", folder / "results.json"
    for path, content in zip(paths, (truth, results), strict=True):
        path.write_text(json.dumps(content))
    return paths


# --- Clocks ----------------------------------------------------------------------------------


class Stopwatch:
    """CPU seconds by part, and wall seconds of the whole; what no part claims is `rest`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside = False  # a part: what it calls belongs to it
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def wrap(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return function(*args, **kwargs)
            self._inside, start = True, time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[part] += time.process_time() - start
                self._inside = False

        return timed

    def stop(self) -> None:
        cpu = time.process_time() - self._cpu
        self.seconds["rest"] = cpu - sum(self.seconds.values())
        self.seconds["end to end"] = cpu
        self.wall = time.perf_counter() - self._wall


@contextmanager
def watched(*owners: Any) -> Iterator[Stopwatch]:
    """Time what belongs to a part, of COCOeval and of `owners`."""
    watch = Stopwatch()
    with ExitStack() as stack:
        for owner in (COCOeval, *owners):
            for part, names in PARTS.items():
                for name in names:
                    if hasattr(owner, name):
                        timed = watch.wrap(part, getattr(owner, name))
                        stack.enter_context(mock.patch.object(owner, name, timed))
        yield watch
    watch.stop()


# --- Both ways -------------------------------------------------------------------------------


def score_by_hand(truth: Path, results: Path) -> tuple[tuple[float, ...], ...]:
    """What the documentation of pycocotools does, every object in one category."""
    with contextlib.redirect_stdout(io.StringIO()):
        expected = COCO(str(truth))
        for annotation in expected.dataset["annotations"]:
            annotation["category_id"] = 1
        expected.dataset["categories"] = [{"id": 1}]
        expected.createIndex()
        found = expected.loadRes(str(results))
        stats = []
        for iou_type in ("bbox", "segm"):
            evaluation = COCOeval(expected, found, iou_type)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            stats.append(tuple(float(value) for value in evaluation.stats))
    return tuple(stats)


def score_by_library(truth: Path, results: Path) -> tuple[tuple[float, ...], ...]:
    """What `crate-interp evaluate` does."""
    annotations, entries = coco_files.read_coco(truth), coco_input.read_results(results)
    boxes = coco_average_precision(annotations, entries, iou_type="bbox")
    masks = coco_average_precision(annotations, entries, iou_type="segm")
    return astuple(boxes), astuple(masks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--results-per-image", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.images < 1 or arguments.results_per_image < 1:
        parser.error("expected at least one image and one result, which pycocotools needs")
    with tempfile.TemporaryDirectory() as folder:
        truth, results = write_set(Path(folder), arguments.images, arguments.results_per_image)
        with watched(coco_ap, coco_input, coco_files) as ours:
            our_scores = score_by_library(truth, results)
        with watched(json) as plain:
            plain_scores = score_by_hand(truth, results)
    print(
        f"{arguments.images} images, {arguments.results_per_image} results each; "
        f"{platform.processor() or platform.machine()}, one thread; "
        f"Python {platform.python_version()}, numpy {np.__version__}, "
        f"pycocotools {version('pycocotools')}\n"
    )
    print("| part | pycocotools, CPU s | ours, CPU s |\n|---|---|---|")
    for part in (*PARTS, "rest", "end to end"):
        print(f"| {part} | {plain.seconds[part]:.2f} | {ours.seconds[part]:.2f} |")
    print(f"\nwall: pycocotools {plain.wall:.0f} s, ours {ours.wall:.0f} s")
    print(f"all 24 numbers equal: {'yes' if our_scores == plain_scores else 'NO'}")


if __name__ == "__main__":
    main()
