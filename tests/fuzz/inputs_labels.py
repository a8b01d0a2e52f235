"""Label maps and the lists beside them: VOC, ADE20K, salient objects."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from crate_interp.cli import main
from crate_interp.data import open_labelled, open_saliency
from tests.fuzz.frame import Accepted
from tests.fuzz.inputs_pictures import MODEL

__all__ = ["benchmark", "make_ade20k", "make_saliency", "make_voc", "read_labels"]

HW = (24, 32)


def _write(folder: Path, name: str, labels: np.ndarray, suffix: str = ".jpg") -> None:
    """A picture, and its map under the two names that the layouts have."""
    pictures, maps = (folder / place for place in name.split("|"))
    pictures.parent.mkdir(parents=True, exist_ok=True)
    maps.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    if not pictures.with_suffix(suffix).exists():
        noise = rng.integers(0, 256, (*HW, 3), np.uint8)
        Image.fromarray(noise).save(pictures.with_suffix(suffix))
    Image.fromarray(labels).save(maps.with_suffix(".png"))


def _labels(high: int) -> np.ndarray:
    labels = np.zeros(HW, np.uint8)
    labels[4:14, 5:20], labels[15:20, 3:9], labels[0] = 1, high, 255
    return labels


def make_voc(folder: Path) -> None:
    """Write a VOC folder of three pictures to `voc/`."""
    names = [f"2007_{number}" for number in range(3)]
    for name in names:
        _write(folder / "voc", f"JPEGImages/{name}|SegmentationClass/{name}", _labels(15))
        _write(folder / "voc", f"JPEGImages/{name}|SegmentationObject/{name}", _labels(2))
    lists = folder / "voc" / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("\n".join(names[:2]) + "\n")
    (lists / "train.txt").write_text("\n".join(names[2:]) + "\n")


def make_ade20k(folder: Path) -> None:
    """Write an ADE20K folder of three pictures to `ade/`."""
    for number, split in enumerate(("training", "validation", "validation")):
        name = f"ADE_{number}"
        _write(folder / "ade", f"images/{split}/{name}|annotations/{split}/{name}", _labels(150))
    rows = [f"{n}\t0.1\t9\t9\tclass {n}, kind {n}" for n in range(1, 151)]
    (folder / "ade" / "objectInfo150.txt").write_text("\n".join(["Idx\tName", *rows]))


def make_saliency(folder: Path) -> None:
    """Write pictures and masks of salient objects."""
    for name in ("a", "b"):
        _write(folder, f"images/{name}|masks/{name}", 255 * (_labels(2) == 1).astype(np.uint8))


def read_labels(folder: Path) -> None:
    """Open every set that is there, and read all its maps."""
    if (folder / "masks").is_dir():
        sets = [open_saliency(folder / "images", folder / "masks")]
    else:
        root = next(folder.iterdir())
        sets = [open_labelled(root, split) for split in ("val", "train")]
    for data in sets:
        for record in data.images.records:
            rgb = record.read()
            maps = [data.labels_of(record, rgb.shape[:2])]
            if data.read_objects:
                maps.append(data.objects_of(record, rgb.shape[:2]))
            if any(found.shape != HW or found.dtype != np.uint8 for found in maps):
                raise Accepted(f"{record.path}: maps of {[found.shape for found in maps]}")


def benchmark(*arguments: str) -> Callable[[Path], int]:
    """Make a target's `use`: a benchmark's command."""

    def run(folder: Path) -> int:
        return main(["benchmark", *arguments, *MODEL, "--output", "run"])

    return run
