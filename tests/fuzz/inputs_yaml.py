"""Recipes, options and their values, and the ways in which they come in."""

import json
import random
import shutil
from pathlib import Path

import yaml

from crate_interp.cli import main
from crate_interp.training import Recipe
from crate_interp.training.recipe_files import read_recipe
from tests.fuzz.damage import Mutator
from tests.fuzz.damage_text import JSON, YAML, mutate_value, text_of
from tests.fuzz.inputs_checkpoints import make as make_checkpoint
from tests.fuzz.inputs_pictures import make as make_pictures

__all__ = [
    "ARGUMENTS",
    "CONFIG_NAMES",
    "RECIPE_NAMES",
    "config",
    "data_args",
    "make",
    "model_args",
    "recipe",
]

RECIPE = {
    "model": "crate_alpha_demo",
    "model_args": {"embed_dim": 24, "depth": 1, "num_heads": 3},
    "data": "scenes",
    "scene_objects": [1, 2],
    "scene_object_size": [0.5, 0.9],
    "image_size": 32,
    "crop_area": [0.5, 1.0],
    "validation_scenes": 4,
    "batch_size": 4,
    "steps": 2,
    "warmup_steps": 1,
    "learning_rate": 1e-3,
    "betas": [0.9, 0.99],
    "auto_augment": "rand-m9-n2",
    "stages": [{"share": 1, "image_size": 16}, {"share": 1.0, "patch_drop": 0.5}],
    "workers": 0,
    "log_every": 1,
    "seed": 3,
}
CONFIG = {
    "model": "crate_alpha_demo",
    "model_args": {"embed_dim": 24, "depth": 1, "num_heads": 3},
    "weights": "random",
    "images": ["images/a.png"],
    "size": 16,
    "batch_size": "auto",
    "tau": 0.2,
    "max_masks": 2,
    "feature": "auto",
    "block": -1,
    "visualize": 1,
    "limit": 1,
    "strict": True,
}
CONFIG_NAMES = ("config", *CONFIG, "model-args", "crate", "no such weight file", "not a checkpoint")
RECIPE_NAMES = ("recipe.yaml", "--set", *RECIPE, "warmup_epochs", "crate")


def make(folder: Path) -> None:
    """Write `recipe.yaml`, `set.yaml`, `config.yaml`, arguments, pictures and a weight file."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE, default_flow_style=None))
    (folder / "set.yaml").write_text("learning_rate: 1e-3\nbatch_size: 2\nmodel_args: {depth: 1}\n")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG, default_flow_style=None))
    (folder / "model_args.json").write_text('{"num_heads": 3, "depth": 2, "img_size": 32}')
    (folder / "data_args.json").write_text('{"class_map": "names.txt"}')
    make_pictures(folder)
    for name in ("0", "1"):
        (folder / "classes" / name).mkdir(parents=True)
        shutil.copy(folder / "images" / "a.png", folder / "classes" / name)
    (folder / "names.txt").write_text("0\n1\n")
    (folder / "names.pkl").write_bytes(b"cos\nsystem\n(Vtouch here\ntR.")
    make_checkpoint("weights.pth.tar")(folder)


def recipe(folder: Path) -> object:
    """Train by the recipe and the changes, if that is a matter of seconds; else only read them."""
    lines = (folder / "set.yaml").read_bytes().decode(errors="replace").splitlines()
    changes = [line.replace(": ", "=", 1) for line in lines]
    found = read_recipe(folder / "recipe.yaml", changes)
    if not _is_short(found):
        return None
    return main(["train", "recipe.yaml", "--output", "run", "--set", *changes])


def _is_short(found: Recipe) -> bool:
    sizes = [part.image_size for part in (found, *found.staged)]
    return (
        (found.steps or 99) <= 4
        and found.batch_size <= 16
        and max(sizes) <= 64
        and found.validation_scenes <= 64
        and (found.workers, found.probe_every, found.compile) == (0, 0, False)
    )


def config(folder: Path) -> int:
    """Cut by a configuration file; where to, what and how large is fixed."""
    fixed = ["--images", "images/a.png", "--output", "run", "--size", "16", "--workers", "0"]
    return main(["maskcut", "--config", "config.yaml", *fixed, "--device", "cpu"])


def model_args(folder: Path) -> int:
    """Convert with sizes that are given as JSON."""
    text = (folder / "model_args.json").read_bytes().decode(errors="surrogateescape")
    arguments = ["--model", "crate_B8", "--model-args", text]
    return main(["convert", "weights.pth.tar", "out.safetensors", *arguments])


def data_args(folder: Path) -> int:
    """Score a classifier on class folders, with arguments of the data that are given as JSON."""
    text = (folder / "data_args.json").read_bytes().decode(errors="surrogateescape")
    sizes = '{"embed_dim": 24, "depth": 1, "num_heads": 3, "num_classes": 2}'
    model = ["--model", "crate_alpha_demo", "--weights", "random", "--model-args", sizes]
    data = ["--data", "classes", "--data-args", text, "--size", "16", "--workers", "0"]
    return main(["evaluate-classifier", *model, *data])


def mutate_arguments(rng: random.Random, content: bytes) -> bytes:
    """Change a JSON text that is an option's value."""
    if rng.random() < 0.2:
        return content.replace(b"names.txt", rng.choice((b"names.pkl", b"../others/secret.json")))
    return text_of(mutate_value(rng, json.loads(content))).encode()


ARGUMENTS: dict[str, Mutator] = {**JSON, "json value": mutate_arguments, **YAML}
