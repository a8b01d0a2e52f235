"""What trained models and their untrained twins see: attention, cuts and accuracy, side by side.

    python benchmarks/rivals.py demo --untrained
    python benchmarks/rivals.py CRATE-alpha=a1.safetensors,a2.safetensors ViT=v1.safetensors

Files joined by commas are seeds of one model: its row is their mean and standard deviation. The
sets are fresh scenes, which neither training nor the demo set holds, and, where --data has them,
pictures of COCO (`coco/`, with `annotations/instances_val2017.json`) and of ECSSD (`ecssd/images`,
`ecssd/ground_truth_mask`). All is measured at one input size and with MaskCut's usual settings
(last block, tau 0.15, 3 masks, no CRF; TokenCut: tau 0.2).
"""

import argparse
import itertools
import json
import logging
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from tqdm import tqdm

from crate_interp.data import (
    ImageRecord,
    ImageSet,
    annotations_of,
    list_images,
    open_coco,
    open_images,
    read_image,
    write_scenes,
)
from crate_interp.errors import InputError
from crate_interp.models import fast_inference
from crate_interp.segmentation import MaskCut
from crate_interp.structures import Instances
from crate_interp.training import read_recipe
from crate_interp.training.batches import batches_of
from crate_interp.training.data import HELD_OUT, Scenes
from crate_interp.training.emergence import Emergence, measure_emergence
from crate_interp.weights import (
    create_backbone,
    load_backbone,
    names_a_file,
    resolve_name,
    resolve_weights,
)
from crate_interp.weights.files import read_checkpoint

FRESH_SEED = 7  # 0 is the demo set's, 1 that of training
SCENES, LABELLED_SCENES = 128, 1024
RECIPE = Path(__file__).parents[1] / "pipelines" / "train_demo.yaml"

COLUMNS = {  # as `Emergence.numbers` calls them
    "attention mass": "attention_miou_mass",
    "mass, one head": "attention_one_head_mass",
    "attention entries": "attention_miou_entries",
    "entries, one head": "attention_one_head_entries",
    "box AP50": "box_ap50",
    "box AP": "box_ap",
    "mask AP50": "mask_ap50",
    "mask AP": "mask_ap",
    "TokenCut IoU": "tokencut_iou",
}
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Measured:
    """One seed of a model: accuracy on labelled scenes, and what was found on each set."""

    accuracy: float | None
    sets: dict[str, Emergence]


# --- Models ----------------------------------------------------------------------------------


def read_rows(texts: list[str]) -> dict[str, list[str]]:
    """Names or files of models by the name of their row."""
    rows: dict[str, list[str]] = {}
    for text in texts:
        name, separator, files = text.partition("=")
        if name in rows:
            raise SystemExit(f"{name}: named twice")
        rows[name] = files.split(",") if separator else [name]
    return rows


def untrained(source: str, seed: int) -> VisionTransformer:
    """The model of a name or file, with random weights."""
    torch.manual_seed(seed)
    if not names_a_file(source):
        return load_backbone(source, pretrained=False)
    record = read_checkpoint(Path(source)).record
    if record is None:
        raise InputError(f"{source}: does not say which model it is")
    arguments = {**record.model_args, "num_classes": record.num_classes}
    return create_backbone(resolve_name(record.model), **arguments).eval()


# --- Sets ------------------------------------------------------------------------------------


def open_sets(scratch: Path, data: Path | None) -> dict[str, ImageSet]:
    write_scenes(scratch / "scenes", SCENES, FRESH_SEED)
    annotations = scratch / "scenes" / "annotations" / "instances_demo.json"
    sets = {"scenes": open_images([scratch / "scenes" / "demo"], annotations)}
    if data is None:
        return sets
    if (data / "coco").is_dir():
        sets["coco"] = open_coco("val2017", data / "coco")
    if (data / "ecssd").is_dir():
        sets["ecssd"] = open_saliency(data / "ecssd")
    for name in {"coco", "ecssd"} - sets.keys():
        print(f"{data / name}: no such folder, left out", file=sys.stderr)
    return sets


def open_saliency(folder: Path) -> ImageSet:
    """Pictures, each with the mask of its salient object, foreground above 127."""
    records, annotations = [], []
    for number, path in enumerate(list_images([folder / "images"]), start=1):
        mask = read_image(folder / "ground_truth_mask" / f"{path.stem}.png")[None, ..., 0] > 127
        hw = (mask.shape[1], mask.shape[2])
        records.append(ImageRecord(number, path.name, path, hw))
        annotations += annotations_of(Instances(mask), number, first_id=number)
    images = [
        {"id": entry.image_id, "file_name": entry.file_name, "height": hw[0], "width": hw[1]}
        for entry in records
        if (hw := entry.hw) is not None
    ]
    truth = {"images": images, "annotations": annotations, "categories": [{"id": 1}]}
    return ImageSet("ecssd", tuple(records), truth)


@lru_cache(maxsize=1)
def labelled_scenes(normalisation: Normalisation) -> list[tuple[Tensor, Tensor]]:
    """Batches of held-out scenes as the demo's training draws them, but of another seed."""
    recipe = replace(read_recipe(RECIPE), seed=FRESH_SEED, workers=0)
    pictures = Scenes(recipe, HELD_OUT, LABELLED_SCENES)
    return list(batches_of(recipe, pictures, normalisation))


# --- Measures --------------------------------------------------------------------------------


def accuracy_of(model: VisionTransformer) -> float | None:
    """Share of held-out scenes labelled right; `None` for a model of other classes."""
    if model.num_classes != len(Scenes.classes):
        return None
    config: Any = model.pretrained_cfg
    scenes = labelled_scenes((tuple(config["mean"]), tuple(config["std"])))
    with torch.inference_mode(), fast_inference():
        right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in scenes)
    return right / sum(len(labels) for _, labels in scenes)


def measure(model: VisionTransformer, sets: dict[str, ImageSet], size: int) -> Measured:
    predictor = MaskCut(model, size=size)
    found = {name: measure_emergence(predictor, images) for name, images in sets.items()}
    return Measured(accuracy_of(model), found)


# --- Tables ----------------------------------------------------------------------------------


def cell(values: list[float | None]) -> str:
    """Percent; with the standard deviation, of several seeds."""
    known = [100 * value for value in values if value is not None]
    if not known:
        return "-"
    spread = f" ± {statistics.stdev(known):.1f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.1f}{spread}"


def table(rows: dict[str, list[Measured]], name: str) -> str:
    """One set: a row a model, a column a metric, all in percent."""
    columns = [*(["accuracy"] if name == "scenes" else []), *COLUMNS]
    lines = ["| model | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for row, runs in rows.items():
        numbers = [run.sets[name].numbers() for run in runs]
        cells = [cell([of_seed.get(key) for of_seed in numbers]) for key in COLUMNS.values()]
        if name == "scenes":
            cells.insert(0, cell([run.accuracy for run in runs]))
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_report(
    path: Path, rows: dict[str, list[Measured]], sets: dict[str, ImageSet], size: int
) -> None:
    """All numbers of all seeds, fractions of 1, as JSON."""
    report = {
        "size": size,
        "pictures": {name: len(images) for name, images in sets.items()},
        "torch": torch.__version__,
        "models": {row: [asdict(run) for run in runs] for row, runs in rows.items()},
    }
    path.write_text(json.dumps(report, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", help="NAME, FILE, or ROW=FILE,FILE,...")
    parser.add_argument("--untrained", action="store_true", help="add each with random weights")
    parser.add_argument("--data", type=Path, help="folder of coco/ and ecssd/")
    parser.add_argument("--size", type=int, default=96, help="side of the input, pixels")
    parser.add_argument("--output", type=Path, help="all numbers, as JSON")
    options = parser.parse_args()
    # An untrained model finds most pictures constant: the table says enough.
    logging.getLogger("crate_interp.segmentation").setLevel(logging.ERROR)
    named = read_rows(options.models)
    for source in itertools.chain(*named.values()):
        resolve_weights(source)  # a file that is not there, one wants to know now
    jobs: dict[str, list[Callable[[], VisionTransformer]]] = {}
    for row, sources in named.items():
        jobs[row] = [lambda source=source: load_backbone(source) for source in sources]
        if options.untrained:
            jobs[f"{row}, untrained"] = [
                lambda source=source, seed=seed: untrained(source, seed)
                for seed, source in enumerate(sources)
            ]
    rows: dict[str, list[Measured]] = {row: [] for row in jobs}
    total = sum(map(len, jobs.values()))
    with tempfile.TemporaryDirectory() as scratch, tqdm(total=total, unit="model") as progress:
        sets = open_sets(Path(scratch), options.data)
        for row, models in jobs.items():
            for model in models:
                rows[row].append(measure(model(), sets, options.size))
                progress.update()
    for name, images in sets.items():
        print(f"\n{name}: {len(images)} pictures at {options.size} px, percent\n")
        print(table(rows, name))
    if options.output is not None:
        write_report(options.output, rows, sets, options.size)


if __name__ == "__main__":
    main()
