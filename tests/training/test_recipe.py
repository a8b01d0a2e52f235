"""Recipes of the repository are read, and a wrong one is refused with what would be right."""

import dataclasses
from pathlib import Path

import pytest
import torch
import yaml
from timm.data import create_transform

from crate_interp.commands.train import Train
from crate_interp.errors import InputError
from crate_interp.training import Recipe, read_recipe
from crate_interp.training.objectives.classification import build_loss, build_mixup
from crate_interp.training.setup import (
    build_model,
    build_optimizer,
    build_schedule,
    updates_of,
)
from crate_interp.training.stages import Stage
from crate_interp.weights import create_on_meta, resolve_name

PIPELINES = Path(__file__).parents[2] / "pipelines"
RECIPES = sorted(
    file
    for kind in ("train", "finetune", "scale")
    for file in PIPELINES.glob(f"{kind}_*.yaml")
    if not file.stem.startswith("train_text_")  # in test_language.py
)
TINY = {"embed_dim": 24, "depth": 2, "num_heads": 2}


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_recipe_of_the_repository_names_a_model_that_can_be_made(file):
    recipe = read_recipe(file)
    model = create_on_meta(
        resolve_name(recipe.model), img_size=recipe.image_size, **recipe.model_args
    )
    assert model.patch_embed.num_patches > 0


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_recipe_of_the_repository_makes_an_update(file):
    recipe = read_recipe(file)
    sizes = {**recipe.model_args, **TINY}
    recipe = dataclasses.replace(recipe, model_args=sizes, initial_weights=None)
    model = build_model(recipe, 5)
    optimizer = build_optimizer(recipe, model)
    updates, warmup = updates_of(recipe, 10**6)
    assert 0 <= warmup < updates / 5
    schedule = build_schedule(recipe, optimizer, updates, warmup)
    schedule.step_update(warmup)
    highest = max(group["lr"] for group in optimizer.param_groups)
    assert recipe.learning_rate * 0.9 < highest <= recipe.learning_rate
    images, targets = torch.randn(2, 3, recipe.image_size, recipe.image_size), torch.tensor([0, 4])
    mixup = build_mixup(recipe, 5)
    if mixup is not None:
        images, targets = mixup(images, targets)
    before = model.head.weight.detach().clone()
    build_loss(recipe)(model(images), targets).backward()
    optimizer.step()
    assert (model.head.weight - before).abs().max() > 0


def test_every_recipe_of_the_papers_is_there():
    names = {file.stem for file in RECIPES}
    wanted = {"train_crate_in1k", "train_crate_in21k", "train_crate_alpha_in21k", "train_vit_in1k"}
    wanted |= {f"finetune_{data}" for data in ("crate_alpha_in1k", "cifar10", "cifar100")}
    wanted |= {"finetune_flowers", "finetune_pets", "train_caltech101", "train_demo"}
    assert names >= wanted | {"scale_crate_alpha_L14", "scale_crate_alpha_L8"}


def test_steps_of_the_scaling_differ_in_what_they_must():
    paths = (PIPELINES / f"scale_crate_alpha_{name}.yaml" for name in ("L14", "L8"))
    first, second = (yaml.safe_load(path.read_text()) for path in paths)
    differing = {key for key in first if first[key] != second[key]}
    assert differing == {"model", "initial_weights", "drop_path"}
    finetuning = yaml.safe_load((PIPELINES / "finetune_crate_alpha_in1k.yaml").read_text())
    differing = {key for key in first if first[key] != finetuning[key]}
    assert differing == {"model", "initial_weights"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "train_crate_in1k",
            {"optimizer": "lion", "learning_rate": 2e-4, "weight_decay": 0.05, "epochs": 200},
        ),
        (
            "train_vit_in1k",
            {"optimizer": "lion", "learning_rate": 2e-4, "weight_decay": 0.05, "epochs": 200},
        ),
        (
            "train_crate_alpha_in21k",
            {"learning_rate": 8e-4, "betas": (0.9, 0.95), "weight_decay": 0.1, "epochs": 91},
        ),
        (
            "finetune_crate_alpha_in1k",
            {"learning_rate": 1.6e-4, "auto_augment": "rand-m9-n2-inc1", "label_smoothing": 0.1},
        ),
        (
            "train_crate_in21k",
            {"optimizer": "lion", "learning_rate": 9.6e-5, "weight_decay": 0.05, "epochs": 90},
        ),
        *(
            (
                f"finetune_{data}",
                {"optimizer": "adamw", "learning_rate": 5e-5, "batch_size": 256},
            )
            for data in ("cifar10", "cifar100", "flowers", "pets")
        ),
        ("finetune_crate_in1k", {"optimizer": "adamw", "learning_rate": 5e-5, "batch_size": 128}),
        (
            "train_crate_in1k_book",
            {"optimizer": "lion", "learning_rate": 2.4e-4, "weight_decay": 0.5, "epochs": 150},
        ),
        (
            "pretrain_crate_mae_book",
            {"learning_rate": 16 * 3e-5, "weight_decay": 0.1, "epochs": 800, "warmup_epochs": 40},
        ),
        ("scale_crate_alpha_L8", {"drop_path": 0.1, "learning_rate": 1.6e-4, "batch_size": 4096}),
    ],
)
def test_recipe_has_the_published_values(name, expected):
    recipe = read_recipe(PIPELINES / f"{name}.yaml")
    assert {key: getattr(recipe, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("release", "differing"),
    [
        (
            "train_crate_in1k",
            {"batch_size", "epochs", "warmup_epochs", "learning_rate", "weight_decay"}
            | {"evaluate_every", "save_every"},
        ),
        ("pretrain_crate_mae", {"learning_rate", "weight_decay", "auto_augment"}),
    ],
)
def test_recipes_of_the_book_differ_from_those_of_the_release_in_its_values(release, differing):
    first, second = (read_recipe(PIPELINES / f"{release}{end}.yaml") for end in ("", "_book"))
    keys = {key for key in vars(first) if getattr(first, key) != getattr(second, key)}
    assert keys - {"staged"} == differing


def test_baseline_differs_from_crate_in_its_model_only():
    crate = yaml.safe_load((PIPELINES / "train_crate_in1k.yaml").read_text())
    vit = yaml.safe_load((PIPELINES / "train_vit_in1k.yaml").read_text())
    assert crate.pop("model") != vit.pop("model")
    assert crate == vit


def test_changes_replace_keys_and_keep_types(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("model: demo\nsteps: 5\n")
    recipe = read_recipe(file, ["learning_rate=1e-4", "steps=7", "scene_objects=[1, 2]"])
    assert (recipe.learning_rate, recipe.steps, recipe.scene_objects) == (1e-4, 7, (1, 2))


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("", [], "expected a mapping"),
        ("- 1", [], "expected a mapping"),
        ("model: [", [], "not YAML"),
        ("model: demo\nsteps: 5\nsteps: 6", [], "the key 'steps' occurs twice"),
        ("steps: 5", [], "no key 'model'"),
        ("model: demo\nsteps: 5\nlerning_rate: 1", [], "did you mean 'learning_rate'"),
        ("model: demo\nsteps: 5\nqqq: 1", [], "unknown key 'qqq'$"),
        ("model: demo\nsteps: many", [], "steps"),
        ("model: demo\nsteps: 5\noptimizer: sgdd", [], "optimizer"),
        ("model: demo", [], "either epochs or steps"),
        ("model: demo\nsteps: 5\nepochs: 1", [], "either epochs or steps"),
        ("model: demo\nepochs: 1", [], "scenes are endless"),
        ("model: demo\nsteps: 5", ["batch_size=0"], "batch_size: expected more than 0"),
        ("model: demo\nsteps: 5", ["accumulation=3"], "expected a multiple of accumulation"),
        ("model: demo\nsteps: 5", ["ema_decay=2"], "ema_decay: expected 0 to 1"),
        ("model: demo\nsteps: 5", ["steps"], "expected key=value"),
        ("model: demo\nsteps: 5\nstages: 3", [], "stages"),
        ("model: demo\nsteps: 5\nstages: [3]", [], "stage 1: expected a mapping"),
        ("model: demo\nsteps: 5\nstages: [{image_size: 32}]", [], "share"),
        ("model: demo\nsteps: 5\nstages: [{share: 0}]", [], "stage 1: share: expected more"),
        ("model: demo\nsteps: 5\nimage_size: 8", [], "recipe.yaml: image_size: .* 16 of scenes"),
        (
            "model: demo\nsteps: 5\nimage_size: 24",
            [],
            "recipe.yaml: scene_object_size: .*found 0.3",
        ),
        (
            "model: demo\nsteps: 5\nstages: [{share: 1, scene_object_size: [0.5, 1.9]}]",
            [],
            "recipe.yaml: stage 1: scene_object_size: .*found 0.5, 1.9",
        ),
        (
            "model: demo\nsteps: 5\nstages: [{share: 1}, {share: 1, imge_size: 8}]",
            [],
            "stage 2: unknown key 'imge_size'; did you mean 'image_size'",
        ),
        (
            "model: demo\nsteps: 5\nstages: [{share: 1, patch_drop: 2}]",
            [],
            "stage 1: patch_drop: expected 0 to 1",
        ),
        ("model: demo\nsteps: 5", ["steps=["], "not YAML"),
    ],
)
def test_wrong_recipe_is_refused(tmp_path, text, changes, message):
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        read_recipe(file, changes)


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("model: demo\nsteps: !!timestamp x", [], "recipe.yaml: line 2: .*tag"),
        ("model: demo\nsteps: !!float x", [], "recipe.yaml: line 2: .*tag"),
        ("model: demo\nsteps: 2024-01-01", [], "recipe.yaml: steps: expected a whole number"),
        ("model: demo\nsteps: 5\nmodel_args: &a {b: *a}", [], "recipe.yaml: .*alias"),
        ("model: demo\nsteps: 5\ndata_args: null", [], "data_args: expected a mapping, found None"),
        ("model: null\nsteps: 5", [], "model: expected a text, found None"),
        ("model: demo\nsteps: 5\nflip: '0.5'", [], "flip: expected a number, found '0.5'"),
        ("model: demo\nsteps: 5\nflip: .nan", [], "recipe.yaml: flip: expected 0 to 1, found nan"),
        ("model: demo\nsteps: 5\nclip_norm: .inf", [], "clip_norm: .*inf"),
        ("model: demo\nsteps: 5\nbetas: [0.9]", [], "betas: expected a list of 2"),
        ("model: demo\nsteps: 5\ncompile: 1", [], "compile: expected true or false"),
        ("model: demo\nsteps: 5\nimage_size: 1000000000", [], "image_size: .*at most 16384"),
        ("model: demo\nsteps: 5\nbatch_size: 1000000000000", [], "batch_size: .*at most"),
        ("model: demo\nsteps: 5", ["steps=!!python/name:os.system"], "^--set 'steps=.*tag"),
        ("model: demo\nsteps: 5", ["steps=2024-01-01"], "^--set steps: expected a whole number"),
        ("model: demo\nsteps: 5", ["data_args=&a [*a]"], "^--set 'data_args.*alias"),
        (
            "model: demo\nsteps: 5",
            ["stepps=5"],
            "^--set unknown key 'stepps'; did you mean 'steps'",
        ),
        ("model: demo\nsteps: 5\nmodel_args: {img_size: 8}", [], "give the key image_size"),
        ("model: demo\nsteps: 5\nauto_augment: rand-m9-n1000000000", [], "auto_augment: expected"),
        ("model: demo\nsteps: 5\nauto_augment: augmix-w3-d100000000", [], "auto_augment: expected"),
        ("model: demo\nsteps: 5\nauto_augment: randx", [], "auto_augment: expected"),
        ("model: demo\nsteps: 5", ["x" * 9999], "^--set 'xxx"),
    ],
)
def test_hostile_recipe_is_refused_in_one_line(tmp_path, text, changes, message):
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as refused:
        read_recipe(file, changes)
    assert len(str(refused.value)) <= 500
    assert str(refused.value).isprintable()


def test_missing_recipe_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(tmp_path / "none.yaml")


def test_recipe_is_whole_by_default():
    assert Recipe(model="demo", steps=1).data == "scenes"


def test_stages_divide_the_updates_by_their_shares():
    stages = (Stage(5, image_size=32), Stage(2, patch_drop=0.5), Stage(8, scene_objects=(2, 2)))
    recipe = Recipe(model="demo", steps=3000, image_size=96, stages=stages)
    found = [recipe.at(step, 3000) for step in (0, 999, 1000, 1399, 1400, 2999)]
    assert [part.image_size for part in found] == [32, 32, 96, 96, 96, 96]
    assert [part.patch_drop for part in found] == [0, 0, 0.5, 0.5, 0, 0]
    assert [part.scene_objects for part in found] == [(1, 3)] * 4 + [(2, 2)] * 2
    assert Recipe(model="demo", steps=1).at(0, 1).stages == ()


@pytest.mark.parametrize("changes", [["image_size=16384"], ["batch_size=1000000", "steps=9"]])
def test_a_batch_that_the_memory_does_not_hold_is_refused(tmp_path, changes, monkeypatch):
    monkeypatch.setattr("crate_interp.models.usable_memory", lambda: 24 * 10**9)
    config = Train(Path("train_demo"), tmp_path / "run", changes)
    with pytest.raises(InputError, match=r"batch_size, image_size: .*24.0 GB, found .* images"):
        config.run()
    assert not (tmp_path / "run").exists()


POLICIES = ["original", "v0r", "3a", "rand", "rand-m9-n2-inc1", "rand-m9-mstd0.5-p0.5-tweights"]


@pytest.mark.parametrize("policy", [*POLICIES, "rand-m0-n1-mmax10-t3a", "augmix-m5-w3-d2-a1-b1"])
def test_a_policy_that_passes_is_one_of_timm(policy):
    recipe = Recipe(model="demo", steps=5, auto_augment=policy)
    assert create_transform(32, is_training=True, auto_augment=recipe.auto_augment)
