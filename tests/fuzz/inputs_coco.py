"""COCO files, and the ways in which they come in."""

import json
import math
from dataclasses import astuple
from pathlib import Path

import numpy as np
from PIL import Image

from crate_interp.cli import main
from crate_interp.data import encode_masks, open_coco
from crate_interp.evaluation import coco_average_precision
from tests.fuzz.frame import Accepted
from tests.fuzz.inputs_pictures import MODEL

__all__ = ["evaluate", "make", "make_split", "maskcut", "open_split", "score"]


def make(folder: Path) -> None:
    """Write `truth.json`, `results.json` and `images/`: polygons, RLE of both kinds, a crowd."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    images, annotations, results = [], [], []
    for number in (1, 2, 3):
        height, width = 30 + number, 40
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(
            folder / "images" / f"{number}.png"
        )
        entry = {"id": number, "file_name": f"{number}.png", "height": height, "width": width}
        images.append(entry | {"license": 3, "coco_url": "http://localhost:9/x.png"})
        x, y, w, h = 5, 4, 12, 9
        mask = np.zeros((1, height, width), bool)
        mask[0, y : y + h, x : x + w] = True
        (rle,) = encode_masks(mask)
        counts = [width * height] if number == 2 else [4, 9, width * height - 13]
        shapes = ([[x, y, x + w, y, x + w, y + h, x, y + h]], rle)
        shapes += ({"size": [height, width], "counts": counts},)
        for shape in shapes:
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": 3, "area": w * h}
                | {"iscrowd": int(shape is shapes[2]), "bbox": [x, y, w, h], "segmentation": shape}
            )
            results.append(
                {"image_id": number, "category_id": 3, "score": 0.9 - len(results) / 20}
                | {"bbox": [x + 1, y, w, h], "segmentation": shape}
            )
    categories = [{"id": 3, "name": "thing", "supercategory": "all"}]
    truth = {"info": {"year": 2017}, "images": images, "annotations": annotations}
    (folder / "truth.json").write_text(json.dumps(truth | {"categories": categories}))
    (folder / "results.json").write_text(json.dumps(results))


def make_split(folder: Path) -> None:
    """The same as a COCO root: `val/`, `annotations/instances_val.json`."""
    make(folder)
    (folder / "annotations").mkdir()
    (folder / "truth.json").rename(folder / "annotations" / "instances_val.json")
    (folder / "images").rename(folder / "val")
    (folder / "results.json").unlink()


def score(folder: Path) -> None:
    """Score in Python, boxes and masks, class-agnostic and not."""
    truth, results = folder / "truth.json", folder / "results.json"
    for iou_type, agnostic in (("segm", True), ("bbox", False)):
        scores = coco_average_precision(truth, results, iou_type=iou_type, class_agnostic=agnostic)
        if any(math.isnan(value) or value > 1 for value in astuple(scores)):
            raise Accepted(f"scores {scores}")


def evaluate(folder: Path) -> int:
    """Score on the command line."""
    return main(["evaluate", "results.json", "--annotations", "truth.json"])


def open_split(folder: Path) -> None:
    """Open as a split, and read each picture."""
    for record in open_coco("val", folder).records:
        record.read()


def maskcut(folder: Path) -> int:
    """Cut and score pictures with annotations."""
    command = ["maskcut", *MODEL, "--images", "images", "--annotations", "truth.json"]
    return main([*command, "--output", "run", "--visualize", "1"])
