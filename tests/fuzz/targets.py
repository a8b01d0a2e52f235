"""The table of targets; a new one is one entry here, its inputs in `inputs_*.py`."""

from tests.fuzz import inputs_checkpoints as checkpoints
from tests.fuzz import inputs_coco as coco
from tests.fuzz import inputs_labels as labels
from tests.fuzz import inputs_pictures as pictures
from tests.fuzz.damage import damage
from tests.fuzz.damage_archives import ARCHIVES, PICKLES, SAFETENSORS
from tests.fuzz.damage_pictures import PICTURES
from tests.fuzz.damage_tensors import TENSORS
from tests.fuzz.damage_text import JSON
from tests.fuzz.frame import Target

__all__ = ["TARGETS"]

TARGETS = (
    Target("images/read", pictures.make, damage(["images/*"], PICTURES), pictures.read, 40),
    Target("images/maskcut", pictures.make, damage(["images/*"], PICTURES), pictures.maskcut, 6),
    Target("coco/annotations", coco.make, damage(["truth.json"], JSON), coco.score, 30),
    Target("coco/results", coco.make, damage(["results.json"], JSON), coco.score, 30),
    Target("coco/evaluate", coco.make, damage(["*.json"], JSON), coco.evaluate, 8),
    Target(
        "coco/split", coco.make_split, damage(["annotations/*.json"], JSON), coco.open_split, 20
    ),
    Target("coco/images", coco.make, damage(["truth.json"], JSON), coco.maskcut, 6),
    *(
        Target(f"checkpoints/{kind}", checkpoints.make(file), damage([file], *tables), use, 15)
        for kind, file, tables, use in (
            ("npz", "weights.npz", (ARCHIVES, TENSORS), checkpoints.load),
            ("torch", "weights.pth", (ARCHIVES, PICKLES, TENSORS), checkpoints.load),
            ("legacy", "legacy.pth", (PICKLES, TENSORS), checkpoints.load),
            ("ours", "ours.safetensors", (SAFETENSORS, TENSORS), checkpoints.load),
            ("mae", "mae.pth", (TENSORS,), checkpoints.load_whole),
            ("clip", "clip.pth", (TENSORS,), checkpoints.load_whole),
            ("convert", "weights.pth.tar", (ARCHIVES, PICKLES, TENSORS), checkpoints.convert),
            ("convert-ours", "ours.safetensors", (SAFETENSORS, TENSORS), checkpoints.convert),
        )
    ),
    Target(
        "labels/voc",
        labels.make_voc,
        damage(["voc/Segmentation*/*.png"], PICTURES),
        labels.read_labels,
        25,
    ),
    Target(
        "labels/voc-list",
        labels.make_voc,
        damage(["voc/ImageSets/*/*.txt"], labels.LISTS),
        labels.read_labels,
        20,
    ),
    Target(
        "labels/ade20k",
        labels.make_ade20k,
        damage(["ade/annotations/*/*.png", "ade/objectInfo150.txt"], PICTURES, labels.LISTS),
        labels.read_labels,
        20,
    ),
    Target(
        "labels/saliency",
        labels.make_saliency,
        damage(["masks/*.png"], PICTURES),
        labels.read_labels,
        15,
    ),
    Target(
        "labels/voc2012",
        labels.make_voc,
        damage(["voc/*/*.png", "voc/*/*.jpg", "voc/ImageSets/*/*.txt"], PICTURES),
        labels.benchmark("voc2012", "voc", "--pictures", "0"),
        4,
    ),
    Target(
        "labels/semantic",
        labels.make_ade20k,
        damage(["ade/*/*/*.png", "ade/*/*/*.jpg", "ade/objectInfo150.txt"], PICTURES),
        labels.benchmark("semantic", "ade", "--method", "linear"),
        3,
    ),
    Target(
        "labels/saliency-scores",
        labels.make_saliency,
        damage(["*/*.png", "*/*.jpg"], PICTURES),
        labels.benchmark("saliency", "images", "masks", "--pictures", "0"),
        4,
    ),
)
