"""The table of targets; a new one is one entry here, its inputs in `inputs_*.py`."""

from tests.fuzz import inputs_checkpoints as checkpoints
from tests.fuzz import inputs_coco as coco
from tests.fuzz import inputs_labels as labels
from tests.fuzz import inputs_pictures as pictures
from tests.fuzz import inputs_runs as runs
from tests.fuzz import inputs_text as texts
from tests.fuzz import inputs_yaml as options
from tests.fuzz.damage import damage
from tests.fuzz.damage_archives import ARCHIVES, PICKLES, SAFETENSORS, TARS
from tests.fuzz.damage_pictures import PICTURES
from tests.fuzz.damage_tensors import TENSORS
from tests.fuzz.damage_text import JSON, JSON_LINES, LISTS, YAML
from tests.fuzz.frame import Target

__all__ = ["TARGETS"]

GIT = frozenset({"git"})  # tells a training run its commit
TARGETS = (
    Target("images/read", pictures.make, damage(["images/*"], PICTURES), pictures.read, 40),
    Target("images/maskcut", pictures.make, damage(["images/*"], PICTURES), pictures.maskcut, 3),
    Target(
        "images/tar",
        pictures.make_packed,
        damage(["packed-*.tar"], TARS, PICTURES),
        pictures.read_place("packed-*.tar"),
        20,
    ),
    Target(
        "images/list",
        pictures.make_packed,
        pictures.mutate_list,
        pictures.read_place("list.txt"),
        15,
    ),
    Target("coco/annotations", coco.make, damage(["truth.json"], JSON), coco.score, 30),
    Target("coco/results", coco.make, damage(["results.json"], JSON), coco.score, 30),
    Target("coco/evaluate", coco.make, damage(["*.json"], JSON), coco.evaluate, 8),
    Target(
        "coco/split",
        coco.make_split,
        damage(["annotations/*.json"], JSON, names=["val/"]),
        coco.open_split,
        20,
    ),
    Target("coco/images", coco.make, damage(["truth.json"], JSON), coco.maskcut, 3),
    *(
        Target(f"checkpoints/{kind}", checkpoints.make(file), damage([file], *tables), use, 10)
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
        "checkpoints/hub",
        checkpoints.make_of_hub,
        damage(["config.json"], JSON),
        checkpoints.load_of_hub,
        10,
    ),
    Target(
        "checkpoints/recorded",
        checkpoints.make("ours.safetensors"),
        damage(["ours.safetensors"], SAFETENSORS),
        checkpoints.evaluate,
        4,
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
        damage(["voc/ImageSets/*/*.txt"], LISTS),
        labels.read_labels,
        20,
    ),
    Target(
        "labels/ade20k",
        labels.make_ade20k,
        damage(["ade/annotations/*/*.png"], PICTURES),
        labels.read_labels,
        15,
    ),
    Target(
        "labels/ade20k-list",
        labels.make_ade20k,
        damage(["ade/objectInfo150.txt"], LISTS),
        labels.read_labels,
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
        2,
    ),
    Target(
        "labels/semantic",
        labels.make_ade20k,
        damage(["ade/*/*/*.png", "ade/*/*/*.jpg"], PICTURES),
        labels.benchmark("semantic", "ade", "--method", "linear"),
        2,
    ),
    Target(
        "labels/saliency-scores",
        labels.make_saliency,
        damage(["*/*.png", "*/*.jpg"], PICTURES),
        labels.benchmark("saliency", "images", "masks", "--pictures", "0"),
        4,
    ),
    Target(
        "yaml/recipe",
        options.make,
        damage(["recipe.yaml"], YAML, names=options.RECIPE_NAMES),
        options.recipe,
        15,
        GIT,
    ),
    Target(
        "yaml/set",
        options.make,
        damage(["set.yaml"], YAML, names=options.RECIPE_NAMES),
        options.recipe,
        15,
        GIT,
    ),
    Target(
        "yaml/config",
        options.make,
        damage(["config.yaml"], YAML, names=options.CONFIG_NAMES),
        options.config,
        10,
    ),
    Target(
        "yaml/model-args",
        options.make,
        damage(
            ["model_args.json"],
            options.ARGUMENTS,
            names=["model-args", "model_args", "crate", "weights.pth.tar"],
        ),
        options.model_args,
        10,
    ),
    Target(
        "yaml/data-args",
        options.make,
        damage(["data_args.json"], options.ARGUMENTS, names=["data-args", "data_args", "data"]),
        options.data_args,
        4,
    ),
    Target(
        "runs/journal",
        runs.make_maskcut,
        damage(["run/journal.jsonl"], JSON_LINES),
        runs.go_on_maskcut,
        8,
    ),
    Target(
        "runs/settings",
        runs.make_maskcut,
        damage(["run/settings.json"], JSON, names=["run holds"]),
        runs.go_on_maskcut,
        6,
    ),
    Target(
        "runs/evaluate",
        runs.make_results,
        damage(["run/summary.json", "run/annotations.json"], JSON, names=["run: ", "run/"]),
        runs.evaluate,
        6,
    ),
    Target(
        "runs/compare",
        runs.make_compared,
        damage([f"second/{name}.json" for name in ("summary", "matches", "settings")], JSON),
        runs.compare,
        6,
    ),
    Target(
        "runs/voc2012",
        runs.make_voc_run,
        damage(["run/journal.jsonl"], JSON_LINES),
        runs.go_on_voc,
        2,
    ),
    Target(
        "runs/classifier",
        runs.make_semantic,
        damage(["run/classifier.npz"], ARCHIVES),
        runs.go_on_semantic,
        2,
    ),
    Target(
        "runs/classification",
        runs.make_classification,
        damage(["run/probes.npz"], ARCHIVES),
        runs.go_on_classification,
        1,
    ),
    Target(
        "runs/checkpoint",
        runs.make_training,
        damage(["run/checkpoints/*.pt"], ARCHIVES, PICKLES, TENSORS),
        runs.go_on_training,
        4,
        GIT,
    ),
    Target(
        "runs/training",
        runs.make_training,
        damage(["run/metrics.csv", "run/settings.json"], runs.CELLS),
        runs.go_on_training,
        3,
        GIT,
    ),
    Target(
        "runs/probes",
        runs.make_probed,
        damage(["table.csv"], runs.CELLS),
        runs.go_on_probing,
        3,
    ),
    Target(
        "runs/probes-of",
        runs.make_probed,
        damage(["table.json"], JSON, names=["table.csv"]),
        runs.go_on_probing,
        2,
    ),
    Target(
        "runs/export",
        runs.make_training,
        damage(["run/checkpoints/*2.pt"], ARCHIVES, PICKLES, TENSORS),
        runs.export,
        4,
        GIT,
    ),
    Target(
        "runs/curves",
        runs.make_training,
        damage(["run/metrics.csv"], runs.CELLS),
        runs.curves,
        3,
    ),
    Target(
        "runs/curves-of",
        runs.make_training,
        damage(["run/settings.json"], JSON),
        runs.curves,
        2,
    ),
    Target(
        "atlases/index",
        runs.make_atlas,
        damage(["atlas/atlas.npz"], ARCHIVES, runs.ABOUT, names=["atlas: "]),
        runs.atoms,
        5,
    ),
    Target(
        "atlases/thumbnails",
        runs.make_atlas,
        damage(["atlas/thumbnails/*"], PICTURES),
        runs.atoms,
        1,
    ),
    Target(
        "texts/released",
        texts.make_released,
        damage(["text.pt"], ARCHIVES, PICKLES, TENSORS),
        texts.load,
        8,
    ),
    Target(
        "texts/ours",
        texts.make_texts,
        damage(["ours.safetensors"], SAFETENSORS, TENSORS),
        texts.evaluate,
        6,
    ),
    Target("texts/lines", texts.make_texts, damage(["*.jsonl"], JSON_LINES), texts.evaluate, 6),
    Target("texts/tables", texts.make_tables, damage(["rows.*"]), texts.read_tables, 60),
    Target("texts/captions", texts.make_captions, damage(["pairs.csv"]), texts.read_captions, 20),
    Target("texts/pairs", texts.make_captions, damage(["*.tar"], TARS), texts.read_captions, 20),
    Target("texts/vocabulary", texts.make_texts, damage(["words.json"], JSON), texts.evaluate, 6),
)
