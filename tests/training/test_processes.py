"""Several processes train what one does, whole or sharded, whoever started them."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import accelerate
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from crate_interp.data import write_scenes
from crate_interp.errors import InputError
from crate_interp.training import Recipe, train
from crate_interp.training.milestones import list_milestones
from crate_interp.weights import load_backbone

ROOT = Path(__file__).parents[2]
RANDOM = {
    "crop_area": (0.3, 1.0),
    "mixup": 0.8,
    "drop_path": 0.2,
    "ema_decay": 0.9,
    "layer_decay": 0.8,
    "clip_norm": 1.0,
    "accumulation": 2,
    "validation_split": "train",
    "evaluate_every": 3,
    "save_every": 1,
}


def launch(command):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return subprocess.run(
        [sys.executable, "-m", *command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


@pytest.fixture(scope="module")
def runs(picture_folder, tmp_path_factory):
    """Folders of runs of two processes, by name; all of one launch."""
    root = tmp_path_factory.mktemp("runs")
    basis = {
        "model": "crate_alpha_demo",
        "model_args": {"embed_dim": 32, "depth": 2, "num_heads": 2},
        "data": str(picture_folder),
        "validation_split": None,
        "image_size": 32,
        "crop_area": None,
        "batch_size": 16,
        "steps": 8,
        "workers": 0,
        "log_every": 1,
    }
    scenes = root / "scenes"
    write_scenes(scenes, 1, 5)
    (scenes / "demo").rename(scenes / "tiny")
    annotations = scenes / "annotations" / "instances_demo.json"
    annotations.rename(annotations.with_name("instances_tiny.json"))
    kept = {"probe_every": 4, "probe_set": str(scenes / "tiny"), "keep_best": "tokencut_iou"}
    kept |= {"milestone_every": 4, "ema_decay": 0.9}
    fsdp = {"sharding": "fsdp"}
    cases = [
        ("plain", {}, None),
        ("plain-fsdp", {**fsdp, "save_every": 4}, None),
        ("random", RANDOM, None),
        ("random-fsdp", {**RANDOM, **fsdp}, None),
        ("lion", {"optimizer": "lion", "precision": "bfloat16"}, None),
        ("lion-fsdp", {"optimizer": "lion", "precision": "bfloat16", **fsdp}, None),
        ("kept", kept, None),
        ("kept-fsdp", {**kept, **fsdp}, None),
        ("stopped", RANDOM, 4),
        ("stopped-fsdp", {**RANDOM, **fsdp}, 4),
        ("stopped-fsdp", {**RANDOM, **fsdp}, None),
        ("continued", RANDOM, 5),
        ("continued", RANDOM, None),
    ]
    content = []
    for name, changes, stop in cases:
        (root / name).mkdir(exist_ok=True)
        content.append({"folder": str(root / name), "settings": {**basis, **changes}, "stop": stop})
    (root / "cases.json").write_text(json.dumps(content))
    script = [str(Path(__file__).with_name("run_cases.py")), str(root / "cases.json")]
    done = launch(["torch.distributed.run", "--standalone", "--nproc_per_node=2", *script])
    assert done.returncode == 0, done.stderr
    return root


def losses(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def assert_close_weights(first, second, tolerance):
    first, second = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.allclose(value, second[key], rtol=0, atol=tolerance), key


def results(folder):
    return [json.loads((folder / f"result-{rank}.json").read_text()) for rank in (0, 1)]


def test_two_processes_train_what_one_does(runs, settings, tmp_path):
    train(Recipe(**settings), tmp_path)
    for name in ("plain", "plain-fsdp"):
        assert np.allclose(losses(runs / name), losses(tmp_path), rtol=1e-6)
        # AdamW's first steps are the sign of the gradient, be it as small as rounding errors are.
        assert_close_weights(runs / name, tmp_path, 1e-4)


def test_two_processes_keep_milestones_and_the_best_by_a_probe(runs):
    for name in ("kept", "kept-fsdp"):
        found = list_milestones(runs / name)
        assert list(found) == [0, 4, 8]
        assert load_file(found[8]).keys() == load_file(runs / name / "best.safetensors").keys()
    first, second = (list_milestones(runs / name)[4] for name in ("kept", "kept-fsdp"))
    first, second = load_file(first), load_file(second)
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)
    best = [load_file(runs / name / "best.safetensors") for name in ("kept", "kept-fsdp")]
    assert all(torch.allclose(best[0][name], best[1][name], atol=1e-6) for name in best[0])


@pytest.mark.parametrize("name", ["plain", "random", "lion"])
def test_sharded_training_is_that_of_whole_weights(runs, name):
    whole, sharded = runs / name, runs / f"{name}-fsdp"
    assert_close_weights(whole, sharded, 1e-6)
    assert np.allclose(losses(whole), losses(sharded), rtol=1e-6)
    assert [found["accuracy"] for found in results(whole)] == [
        found["accuracy"] for found in results(sharded)
    ]


def test_sharding_leaves_each_process_its_part(runs):
    shares = np.array([result["shares"] for result in results(runs / "random-fsdp")])
    assert shares.shape == (2, 2)  # of the model and of its average
    assert np.allclose(shares.sum(axis=0), 1)
    assert np.allclose(shares, 0.5, atol=0.05)  # a tensor of one row is one process's
    assert results(runs / "random")[0]["shares"] == []


def test_sigterm_to_one_process_stops_all_at_one_step(runs):
    first, second = results(runs / "stopped")
    assert first["step"] == second["step"] in (4, 5)  # the signal comes when it comes
    assert not first["finished"]
    assert not second["finished"]
    saved = [path.name for path in (runs / "stopped" / "checkpoints").iterdir()]
    assert f"step-{first['step']:08d}.pt" in saved


@pytest.mark.parametrize(
    ("whole", "parts"), [("random", "continued"), ("random-fsdp", "stopped-fsdp")]
)
def test_run_of_two_processes_goes_on_bit_equal(runs, whole, parts):
    assert_close_weights(runs / whole, runs / parts, 0)
    steps = [result["step"] for result in results(runs / parts)]
    assert steps == [8, 8]


def test_sharded_run_goes_on_in_one_process(runs, settings, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(runs / "plain-fsdp" / "checkpoints" / "step-00000004.pt", tmp_path / "checkpoints")
    assert train(Recipe(**settings), tmp_path).finished
    assert np.allclose(losses(runs / "plain-fsdp")[4:], losses(tmp_path), rtol=1e-6)
    assert_close_weights(runs / "plain-fsdp", tmp_path, 1e-4)
    assert load_backbone(runs / "plain-fsdp" / "model.safetensors").num_classes == 8


def test_accelerate_launch_trains_what_torchrun_does(runs, settings, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(settings))
    output = tmp_path / "run"
    command = ["-m", "crate_interp", "train", str(recipe), "--output", str(output)]
    # On CPUs alone, accelerate would leave the starting of several processes to MPI.
    processes = ["--multi_gpu", "--num_processes=2", "--num_machines=1", "--dynamo_backend=no"]
    launcher = ["accelerate.commands.launch", *processes, "--mixed_precision=bf16"]
    done = launch([*launcher, *command])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("8 steps") == 1  # of the main process
    assert_close_weights(runs / "plain", output, 0)


def test_sharding_by_the_launcher_is_refused(settings, tmp_path, monkeypatch):
    class Sharding:
        distributed_type = accelerate.DistributedType.FSDP

        def __init__(self, **_):
            pass

    monkeypatch.setattr(accelerate, "Accelerator", Sharding)
    with pytest.raises(InputError, match="sharding: fsdp"):
        train(Recipe(**settings), tmp_path)


def test_one_process_has_nothing_to_shard(settings, tmp_path):
    (tmp_path / "whole").mkdir()
    train(Recipe(**settings), tmp_path / "whole")
    (tmp_path / "sharded").mkdir()
    train(Recipe(**{**settings, "sharding": "fsdp"}), tmp_path / "sharded")
    assert_close_weights(tmp_path / "whole", tmp_path / "sharded", 0)
