"""Records of pictures by the package's commands, measured once and kept; for `photographs.py`."""

import contextlib
import hashlib
import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crate_interp import training
from crate_interp.cli import main as crate_interp
from crate_interp.data import decode_mask, open_labelled, read_coco
from crate_interp.errors import InputError
from crate_interp.evaluation import class_ranks, image_matches, mask_iou
from crate_interp.files import write_whole
from crate_interp.models import fast_inference
from crate_interp.runs.journal import JournalEntry
from crate_interp.runs.run_folder import RunFolder
from crate_interp.weights import (
    create_backbone,
    load_backbone,
    resolve_name,
    resolve_weights,
    weights_checksum,
)
from crate_interp.weights.files import read_checkpoint, read_metadata, write_safetensors

TOKENCUT = ("--method", "tokencut")


class Recorder:
    """Measures pictures by the package's commands, once for all; keeps their run folders."""

    def __init__(self, options: Namespace) -> None:
        self.options = options
        self.folder: Path = options.output / "records"

    def of(self, job: str, source: str) -> dict[str, Any]:
        """Records of the pictures of a job, by name of the picture, in their order."""
        options = self.options
        if job == "accuracy":
            return self._ranks(source)
        if job in ("bbox", "segm"):
            return self._matches(job, source)
        if job == "probe":
            halves = [("even", "odd"), ("odd", "even")]
            return dict(sorted(item for half in halves for item in self._probe(source, *half)))
        if job == "cut":
            masks = options.ecssd / "ground_truth_mask"
            entries = self._run(job, source, "saliency", options.ecssd / "images", masks)
            return {name: _as_arrays(entry["methods"]) for name, entry in entries.items()}
        if job == "refined":
            return dict(self._refined(source))
        data, by = (options.ecssd, "mass") if job == "salient" else (options.voc, job)
        return self._run("attention", source, "voc2012", data, "--protocol", by)

    def _refined(self, source: str) -> Iterator[tuple[str, float]]:
        """IoU of TokenCut's mask after the CRF, which may drop it, with the salient object."""
        labelled = open_labelled(self.options.ecssd, "val")
        records = {record.file_name: record for record in labelled.images.records}
        images = ("--images", self.options.ecssd / "images", "--refine", "crf")
        for name, entry in self._run("cut", source, "segment", *TOKENCUT, *images).items():
            truth = labelled.labels_of(records[name], tuple(entry["hw"])) == 1
            masks = [decode_mask(result["segmentation"]) for result in entry["results"]]
            found = np.any(masks, axis=0) if masks else np.zeros_like(truth)
            yield name, float(mask_iou(found[None], truth[None])[0, 0])

    def _probe(self, source: str, split: str, learnt: str) -> Iterator[tuple[str, Any]]:
        data = voc_halves(self.options.voc, self.folder / "voc-halves")
        splits = ("--split", split, "--train-split", learnt)
        entries = self._run("probe", source, "semantic", data, "--method", "linear", *splits)
        yield from entries.items()

    def _matches(self, iou_type: str, source: str) -> dict[str, Any]:
        root, split = self.options.coco, self.options.coco_split
        arguments = ("--coco", split, "--coco-root", root)
        entries = self._run("maskcut", source, "maskcut", *arguments)
        ordered = sorted(entries.values(), key=lambda entry: entry["image_id"])
        results = [result for entry in ordered for result in entry["results"]]
        truth = read_coco(root / "annotations" / f"instances_{split}.json")
        ids = [entry["image_id"] for entry in ordered]
        matches = image_matches(truth, results, iou_type=iou_type, image_ids=ids)
        names = [entry["file_name"] for entry in ordered]
        return dict(zip(names, matches, strict=True))

    def _run(self, group: str, source: str, command: str, *arguments: Any) -> dict[str, Any]:
        """Entries of a command's journal, by file name; run it unless it is done."""
        segments = command in ("maskcut", "segment")
        kind = [command] if segments else ["benchmark", command]
        given = [*kind, *map(str, arguments), "--model", source, "--workers", "0"]
        size = () if self.options.size is None else ("--size", str(self.options.size))
        limit = () if self.options.limit is None else ("--limit", str(self.options.limit))
        given += [*size, *limit, *self.options.settings.get(group, ())]
        key = json.dumps([given, weights_checksum(resolve_weights(source))])
        output = self.folder / f"{command}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
        if not (output / "summary.json").exists():
            pictures = "--visualize" if segments else "--pictures"
            shown = [] if command == "semantic" else [pictures, "0"]
            with contextlib.redirect_stdout(sys.stderr):
                code = crate_interp([*given, *shown, "--output", str(output)])
            if code:
                raise SystemExit(f"crate-interp {' '.join(given)}: exit code {code}")
        entries = RunFolder(output, JournalEntry).journal().finished().values()
        return {entry["file_name"]: entry for entry in sorted(entries, key=_name)}

    def _ranks(self, source: str) -> dict[str, Any]:
        """Rank of the right class of each picture of the class folders."""
        options = self.options
        path = resolve_weights(source)
        size = options.accuracy_size
        key = json.dumps([weights_checksum(path), str(options.folders), size, options.limit])
        kept = self.folder / f"accuracy-{hashlib.sha256(key.encode()).hexdigest()[:12]}.json"
        if not kept.exists():
            ranks = measure_ranks(source, path, options.folders, size, options.limit)
            with write_whole(kept) as file:
                file.write(json.dumps(ranks).encode())
        return {f"{number:08d}": rank for number, rank in enumerate(json.loads(kept.read_text()))}


def _name(entry: Any) -> str:
    return str(entry["file_name"])


def _as_arrays(methods: dict[str, Any]) -> dict[str, Any]:
    return {name: {**found, "f": np.array(found["f"])} for name, found in methods.items()}


def voc_halves(voc: Path, folder: Path) -> Path:
    """A VOC folder whose lists `even` and `odd` are the halves of `val`."""
    lists = folder / "ImageSets" / "Segmentation"
    if not (lists / "odd.txt").exists():
        lists.mkdir(parents=True, exist_ok=True)
        for name in ("JPEGImages", "SegmentationClass"):
            with contextlib.suppress(FileExistsError):
                (folder / name).symlink_to((voc / name).absolute())
        names = (voc / "ImageSets" / "Segmentation" / "val.txt").read_text().split()
        for start, half in enumerate(("even", "odd")):
            (lists / f"{half}.txt").write_text("\n".join(names[start::2]) + "\n")
    return folder


@torch.inference_mode()
def measure_ranks(
    source: str, path: Path, folders: Path, size: int | None, limit: int | None
) -> list[int]:
    """Classes that come before the right one, of pictures evenly spread over the folders."""
    model = load_backbone(source).eval()
    recorded = training.recorded_recipe(path)
    preparation = training.preparation_of(source, model, str(folders), size, recorded)
    side = preparation["input_size"][-1]
    recipe = training.Recipe(
        model=source,
        data=str(folders),
        train_split="validation",
        validation_split="validation",
        num_classes=model.num_classes,
        image_size=side,
        steps=1,
    )
    pictures = training.open_held_out(recipe, recorded)
    if len(pictures.classes) != model.num_classes:
        found = f"{len(pictures.classes)} classes, expected {model.num_classes}, as {source} has"
        raise SystemExit(f"{folders}: found {found}")
    count = min(len(pictures), limit or len(pictures))
    numbers = [number * len(pictures) // count for number in range(count)]
    ranks: list[int] = []
    for items in training.read_prepared(pictures, numbers, preparation, 64, 0):
        for item in items:
            if isinstance(item, InputError):
                raise item
        images, labels = zip(*items, strict=True)
        with fast_inference():
            scores = model(torch.stack(images))
        ranks += class_ranks(scores.float(), torch.tensor(labels))
    return ranks


def write_untrained(path: Path, seed: int, folder: Path) -> Path:
    """A file of the same model, with random weights of a seed."""
    record = read_checkpoint(path).record
    if record is None:
        raise SystemExit(f"{path}: does not say which model it is")
    metadata = read_metadata(path)
    name = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()[:12]
    twin = folder / f"untrained-{name}-{seed}.safetensors"
    if not twin.exists():
        torch.manual_seed(seed)
        sizes = {**record.model_args, "num_classes": record.num_classes}
        model = create_backbone(resolve_name(record.model), **sizes)
        folder.mkdir(parents=True, exist_ok=True)
        write_safetensors(twin, model.state_dict(), metadata)
    return twin
