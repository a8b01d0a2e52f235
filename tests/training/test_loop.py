"""A run learns, goes on bit-equal after a stop, and refuses what it cannot use."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open

from crate_interp.cli import main
from crate_interp.data.scene_categories import CATEGORIES
from crate_interp.data.scenes import training_batch
from crate_interp.errors import CheckpointError, InputError
from crate_interp.training import Recipe, loop, train
from crate_interp.training.batches import batches_of
from crate_interp.training.data import open_data
from crate_interp.training.stages import Stage
from crate_interp.weights import load_backbone

EVERYTHING = {
    "crop_area": (0.3, 1.0),
    "color_jitter": 0.3,
    "auto_augment": "rand-m9-n2",
    "random_erasing": 0.2,
    "mixup": 0.8,
    "cutmix": 1.0,
    "label_smoothing": 0.1,
    "drop_path": 0.2,
    "ema_decay": 0.9,
    "layer_decay": 0.8,
    "clip_norm": 1.0,
    "accumulation": 2,
    "warmup_steps": 2,
    "validation_split": "train",
    "evaluate_every": 3,
    "save_every": 1,
}


def weights(path):
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def assert_same_weights(first, second):
    first, second = weights(first), weights(second)
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def assert_same_state(first, second):
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert_same_state(value, second[key])
    elif isinstance(first, list | tuple):
        for one, other in zip(first, second, strict=True):
            assert_same_state(one, other)
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    else:
        assert first == second


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("model", ["crate_alpha_demo", "crate_tiny_patch16_224"])
def test_overfits_64_pictures(settings, tmp_path, model):
    sizes = {"embed_dim": 64, "depth": 2, "num_heads": 4, "patch_size": 8}
    recipe = Recipe(
        **{
            **settings,
            "model": model,
            "model_args": sizes,
            "batch_size": 32,
            "steps": 240,
            "warmup_steps": 10,
            "learning_rate": 3e-3,
            "weight_decay": 0.0,
            "clip_norm": 1.0,
            "validation_split": "train",
        }
    )
    result = train(recipe, tmp_path)
    assert result.finished
    assert result.accuracy == 1
    losses = [float(row["loss"]) for row in rows(tmp_path)]
    assert losses[0] > 1.5  # ln 8 = 2.08: nothing is known at the start
    assert losses[-1] < 0.1


@pytest.mark.parametrize(
    "changes",
    [
        {},
        EVERYTHING,
        {**EVERYTHING, "optimizer": "lion", "learning_rate": 1e-4, "precision": "bfloat16"},
        {"data": "scenes", "scene_objects": (1, 1), "workers": 1},
        {
            "data": "scenes",
            "stages": (
                Stage(1, image_size=16, scene_object_size=(0.55, 1.0)),
                Stage(1, patch_drop=0.5),
            ),
        },
    ],
    ids=["plain", "everything", "lion-bfloat16", "scenes", "stages"],
)
def test_resume_at_a_random_step_is_bit_equal(settings, tmp_path, changes):
    recipe = Recipe(**{**settings, "save_every": 1, **changes})
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    train(recipe, whole)
    last = int(np.random.default_rng().integers(2, recipe.steps))

    def stop(metrics, _):
        if metrics.step == last:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(recipe, parts, stop)
    torch.manual_seed(12345)
    torch.rand(7)  # what else has drawn in this process does not matter
    assert train(recipe, parts).finished, f"stopped at {last}"
    assert_same_weights(whole / "model.safetensors", parts / "model.safetensors")
    plain = [{**row, "seconds": ""} for row in rows(whole)]
    assert plain == [{**row, "seconds": ""} for row in rows(parts)]
    names = [f"step-{recipe.steps - 1:08d}.pt", f"step-{recipe.steps:08d}.pt"]
    assert sorted(path.name for path in (parts / "checkpoints").iterdir()) == names
    contents = [torch.load(f / "checkpoints" / names[1], weights_only=True) for f in (whole, parts)]
    assert_same_state(*({**content, "seconds": 0} for content in contents))


def test_pictures_have_the_size_and_objects_of_their_stage(settings):
    stages = (
        Stage(1, image_size=16, scene_object_size=(0.55, 1.0)),
        Stage(3, scene_objects=(3, 3)),
    )
    changes = {"data": "scenes", "accumulation": 2, "scene_objects": (1, 1), "stages": stages}
    recipe = Recipe(**{**settings, **changes})
    normalisation = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    pictures = open_data(recipe).training
    batches = list(batches_of(recipe, pictures, normalisation, updates=range(8)))
    assert [tuple(images.shape) for images, _ in batches] == (
        [(8, 3, 16, 16)] * 4 + [(8, 3, 32, 32)] * 12
    )
    number = 5 * recipe.batch_size  # the first picture of the sixth update
    rng = np.random.default_rng([1, recipe.seed, number])
    expected, _ = training_batch(rng, 1, 32, (3, 3), recipe.scene_object_size)
    assert torch.equal(batches[10][0][0], torch.from_numpy(expected[0]).permute(2, 0, 1) / 255)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["sigterm", "ctrl-c"]
)
def test_stopped_run_is_saved_and_the_same_command_goes_on(settings, tmp_path, number, code):
    recipe = tmp_path / "recipe.yaml"
    content = {**settings, "steps": 60, "drop_path": 0.1, "mixup": 0.2, "workers": 1}
    recipe.write_text(yaml.safe_dump(content))
    parts = tmp_path / "parts"
    command = [sys.executable, "-m", "crate_interp", "train", str(recipe), "--output", str(parts)]
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
    metrics = parts / "metrics.csv"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.read_text().count("\n") > 5):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, number)  # the reading processes get it, too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "the same command goes on" in errors
    saved = list((parts / "checkpoints").glob("*.pt"))
    assert len(saved) == 1
    assert 5 <= int(saved[0].stem.partition("-")[2]) < 60
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    whole = [*command[:-1], str(tmp_path / "whole")]
    done = subprocess.run(whole, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_same_weights(parts / "model.safetensors", tmp_path / "whole" / "model.safetensors")


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_saves_after_the_update_and_a_second_one_does_not_wait(settings, tmp_path, presses):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def press(metrics, _):
        if metrics.step == 3:
            for _ in range(presses):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)  # Python calls its handlers between instructions

    with pytest.raises(KeyboardInterrupt):
        train(Recipe(**settings), tmp_path, press)
    saved = [path.name for path in (tmp_path / "checkpoints").glob("*.pt")]
    assert saved == (["step-00000004.pt"] if presses == 1 else [])
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert train(Recipe(**settings), tmp_path).finished


def test_exported_weights_load_by_path_with_their_record(settings, tmp_path):
    recipe = Recipe(**{**settings, "validation_split": "train", "ema_decay": 0.5})
    result = train(recipe, tmp_path)
    path = tmp_path / "model.safetensors"
    model = load_backbone(path)
    assert model.num_classes == 8
    assert model.patch_embed.img_size == (32, 32)
    for key, value in weights(path).items():
        assert torch.equal(model.state_dict()[key], value), key
    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["training"])
        classes = json.loads(file.metadata()["classes"])
    assert classes == sorted(category.name for category in CATEGORIES)
    assert record["recipe"]["batch_size"] == 16
    assert (record["steps"], record["pictures"]) == (8, 128)
    name = Path(settings["data"]).name
    assert record["recipe"]["data"] == name
    kept = json.loads((tmp_path / "data.json").read_text())
    assert {**record["data"], "data_root": None} == kept
    counts = {name: {"training": 64, "validation": 64}}
    assert (record["data"]["classes"], record["data"]["sources"]) == (8, counts)
    assert record["accuracy"] == round(result.accuracy, 4)
    assert (tmp_path / "best.safetensors").exists()


def test_initial_weights_of_another_number_of_classes_begin_a_new_head(settings, tmp_path):
    (tmp_path / "first").mkdir()
    train(Recipe(**settings), tmp_path / "first")
    first = tmp_path / "first" / "model.safetensors"
    changes = {"initial_weights": str(first), "num_classes": 11, "learning_rate": 1e-12, "steps": 1}
    (tmp_path / "second").mkdir()
    train(Recipe(**{**settings, **changes}), tmp_path / "second")
    before, after = weights(first), weights(tmp_path / "second" / "model.safetensors")
    assert after["head.weight"].shape[0] == 11
    for key in before.keys() - {"head.weight", "head.bias"}:
        assert torch.allclose(before[key], after[key], atol=1e-9), key


def test_accumulation_changes_nothing_but_rounding(settings, tmp_path):
    for parts in (1, 4):
        (tmp_path / str(parts)).mkdir()
        train(Recipe(**{**settings, "accumulation": parts}), tmp_path / str(parts))
    one, four = ([float(row["loss"]) for row in rows(tmp_path / n)] for n in ("1", "4"))
    assert np.allclose(one, four, rtol=1e-3)


def test_gradient_checkpointing_changes_nothing(settings, tmp_path):
    for name, on in (("off", False), ("on", True)):
        (tmp_path / name).mkdir()
        recipe = Recipe(**{**settings, "gradient_checkpointing": on, "drop_path": 0.2})
        train(recipe, tmp_path / name)
    assert_same_weights(tmp_path / "off/model.safetensors", tmp_path / "on/model.safetensors")


def test_compiled_training_has_plain_names_and_the_same_weights(settings, tmp_path, monkeypatch):
    calls = []

    def compile_without_compiler(model):  # traced and differentiated as always, but not built
        calls.append(model)
        return torch_compile(model, backend="aot_eager")

    torch_compile = torch.compile
    monkeypatch.setattr(torch, "compile", compile_without_compiler)
    changes = {"ema_decay": 0.5, "steps": 4}
    for name, on in (("plain", False), ("compiled", True)):
        (tmp_path / name).mkdir()
        train(Recipe(**{**settings, **changes, "compile": on}), tmp_path / name)
    assert len(calls) == 1
    plain, compiled = (
        weights(tmp_path / name / "model.safetensors") for name in ("plain", "compiled")
    )
    assert plain.keys() == compiled.keys()
    for key, value in plain.items():
        assert torch.allclose(value, compiled[key], atol=1e-5), key
    load_backbone(tmp_path / "compiled" / "model.safetensors")


def test_nan_loss_stops_and_keeps_the_last_checkpoint(settings, tmp_path, monkeypatch):
    recipe = Recipe(**{**settings, "save_every": 2, "learning_rate": 0.5})

    def poison(metrics, _):
        if metrics.step == 5:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(recipe, tmp_path, poison)
    path = tmp_path / "checkpoints" / "step-00000004.pt"
    before = path.read_bytes()
    load_latest = loop.load_latest

    def load(folder, state, writes):
        found = load_latest(folder, state, writes)
        state.model.head.weight.data.fill_(float("nan"))
        return found

    monkeypatch.setattr(loop, "load_latest", load)
    with pytest.raises(InputError, match=r"step 4, learning rate 0\.25: the loss is nan"):
        train(recipe, tmp_path)
    assert [file.name for file in sorted(path.parent.iterdir())][-1] == path.name
    assert path.read_bytes() == before


def single_class(folder):
    for other in sorted((folder / "train").iterdir())[1:]:
        shutil.rmtree(other)


def unreadable(folder):
    picture = sorted((folder / "train").glob("*/*.png"))[0]
    picture.write_bytes(b"no picture")
    return picture.name


@pytest.mark.parametrize(
    ("spoil", "changes", "message"),
    [
        (lambda f: shutil.rmtree(f / "train"), {}, "Found 0 images|no images"),
        (lambda f: shutil.rmtree(f), {}, "data .*train: "),
        (single_class, {"batch_size": 2}, "two classes or more"),
        (unreadable, {"batch_size": 64}, r"\.png: not a readable image"),
        (unreadable, {"batch_size": 64, "workers": 1}, r"\.png: not a readable image"),
        (lambda f: None, {"num_classes": 3}, "label . is out of range for 3 classes"),
        (lambda f: None, {"image_size": 30}, "multiple of the patch of 4 pixels, found 30"),
        (lambda f: None, {"batch_size": 128}, "64 images are fewer than batch_size 128"),
        (lambda f: None, {"model": "crate_alpha_dmo"}, "crate_alpha_demo"),
        (lambda f: None, {"model": "resnet18", "model_args": {}}, "resnet18"),
        (lambda f: None, {"warmup_steps": 8}, "warmup_steps: the warm-up of 8 updates"),
        (lambda f: None, {"data": "tfds/x"}, "a stream has no position"),
        (lambda f: None, {"initial_weights": "/no/such.pth"}, "no such weight file"),
        (lambda f: None, {"validation_split": "train", "data": "torch/nothing"}, "nothing"),
    ],
)
def test_bad_input_is_refused(settings, tmp_path, picture_folder, spoil, changes, message):
    folder = tmp_path / "pictures"
    shutil.copytree(picture_folder, folder)
    spoil(folder)
    (tmp_path / "run").mkdir()
    recipe = Recipe(**{**settings, "data": str(folder), **changes})
    with pytest.raises(InputError, match=message):
        train(recipe, tmp_path / "run")


@pytest.mark.skipif(torch.cuda.is_available(), reason="float16 is for GPUs")
def test_float16_is_refused_without_a_gpu(settings, tmp_path):
    with pytest.raises(InputError, match="expected a GPU"):
        train(Recipe(**{**settings, "precision": "float16"}), tmp_path)


def test_unreadable_picture_is_skipped_with_a_warning_if_asked(
    settings, tmp_path, picture_folder, caplog
):
    folder = tmp_path / "pictures"
    shutil.copytree(picture_folder, folder)
    name = unreadable(folder)
    recipe = Recipe(
        **{**settings, "data": str(folder), "on_error": "skip", "batch_size": 64, "steps": 1}
    )
    assert train(recipe, tmp_path).finished
    assert name in caplog.text
    assert "skipped" in caplog.text


def test_validation_of_other_classes_is_refused(settings, tmp_path, picture_folder):
    folder = tmp_path / "pictures"
    shutil.copytree(picture_folder, folder)
    (folder / "validation" / "strange").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(folder / "validation" / "strange" / "0.png")
    recipe = Recipe(**{**settings, "data": str(folder), "validation_split": "validation"})
    with pytest.raises(InputError, match="differ in classes"):
        train(recipe, tmp_path)


def test_full_disk_leaves_the_checkpoint_before(settings, tmp_path, monkeypatch):
    recipe = Recipe(**{**settings, "save_every": 4})

    def full(*_):
        raise OSError(28, "No space left on device")

    def fill(metrics, _):
        if metrics.step == 5:
            monkeypatch.setattr(torch, "save", full)

    with pytest.raises(InputError, match=r"cannot be written: .*No space left"):
        train(recipe, tmp_path, fill)
    left = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert left == ["step-00000004.pt"]
    monkeypatch.undo()
    assert train(recipe, tmp_path).finished


def test_finetuning_recipe_runs_on_a_folder_from_a_trained_file(settings, tmp_path, capsys):
    (tmp_path / "first").mkdir()
    train(Recipe(**settings), tmp_path / "first")  # patches of 4 pixels
    changes = {
        "model": "crate_alpha_demo",
        "model_args": {**settings["model_args"], "patch_size": 8},
        "initial_weights": str(tmp_path / "first" / "model.safetensors"),
        "data": settings["data"],
        "data_args": {},
        "validation_split": "train",
        "num_classes": 8,
        "image_size": 32,
        "batch_size": 16,
        "epochs": 2,
        "workers": 0,
    }
    recipe = Path(__file__).parents[2] / "pipelines" / "finetune_cifar10.yaml"
    changed = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    command = ["train", str(recipe), "--output", str(tmp_path / "second"), "--set", *changed]
    assert main(command) == 0
    assert "8 steps, accuracy" in capsys.readouterr().out
    model = load_backbone(tmp_path / "second" / "model.safetensors")
    assert model.patch_embed.patch_size == (8, 8)
    assert float(rows(tmp_path / "second")[-1]["learning_rate"]) <= 5e-5


def test_damaged_checkpoint_is_named(settings, tmp_path):
    train(Recipe(**settings), tmp_path)
    path = tmp_path / "checkpoints" / "step-00000008.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"step-00000008\.pt: not a checkpoint"):
        train(Recipe(**settings), tmp_path)


def test_command_trains_and_refuses_another_recipe_in_the_same_folder(settings, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(settings))
    command = ["train", str(recipe), "--output", str(tmp_path / "run"), "--set", "steps=3"]
    assert main(command) == 0
    assert "3 steps" in capsys.readouterr().out
    assert main(command) == 0
    assert main([*command, "batch_size=8"]) == 2
    assert "batch_size was 16, now 8" in capsys.readouterr().err
    assert main([*command, "stepps=8"]) == 2
    assert "did you mean 'steps'" in capsys.readouterr().err
