"""What a run keeps besides its end: milestones, and the best weights by a probe."""

import csv
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from crate_interp.cli import main
from crate_interp.training import Recipe, train
from crate_interp.training.milestones import list_milestones
from crate_interp.weights import load_backbone

NUMBER = "attention_miou_mass"


@pytest.fixture
def keeping(settings, probed_pictures):
    """A run of 8 updates: milestones after 0, 3, 6, 8, probes after 0, 2, ..., 8."""
    keys = {
        "probe_set": str(probed_pictures),
        "probe_every": 2,
        "keep_best": NUMBER,
        "ema_decay": 0.5,
    }
    keys |= {"milestone_every": 3, "save_every": 4, "learning_rate": 0.01, "ema_decay": 0.5}
    return {**settings, **keys}


class StoppedError(Exception):
    pass


def record_of(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["training"])


def same_weights(first, second):
    first, second = load_file(first), load_file(second)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def probes(folder):
    with (folder / "probes.csv").open(newline="") as file:
        return {int(row["step"]): float(row[NUMBER]) for row in csv.DictReader(file)}


def test_milestones_are_the_evaluated_weights_as_model_files(keeping, tmp_path):
    train(Recipe(**keeping), tmp_path)
    found = list_milestones(tmp_path)
    assert list(found) == [0, 3, 6, 8]
    assert [record_of(path)["steps"] for path in found.values()] == [0, 3, 6, 8]
    assert same_weights(found[8], tmp_path / "model.safetensors")
    assert not same_weights(found[0], found[3])
    saved = torch.load(tmp_path / "checkpoints" / "step-00000008.pt", weights_only=True)
    average = load_backbone(found[8]).state_dict()
    assert all(torch.equal(average[name], value) for name, value in saved["ema"].items())
    (tmp_path / "without").mkdir()
    train(Recipe(**{**keeping, "milestone_every": 0}), tmp_path / "without")
    assert not (tmp_path / "without" / "milestones").exists()
    assert list_milestones(tmp_path / "without") == {}


def test_best_weights_are_those_of_the_largest_number(keeping, tmp_path):
    changes = {"milestone_every": 2, "validation_split": "train", "evaluate_every": 2}
    train(Recipe(**{**keeping, **changes}), tmp_path)
    measured = probes(tmp_path)
    best = max(measured, key=measured.get)  # the first of equal ones
    record = record_of(tmp_path / "best.safetensors")
    assert (record["steps"], record[NUMBER]) == (best, round(measured[best], 4))
    assert ("accuracy" in record) == (best > 0)
    assert same_weights(tmp_path / "best.safetensors", list_milestones(tmp_path)[best])


@pytest.mark.parametrize("last", [1, 3, 7])  # before the first checkpoint, at a milestone, later
def test_resumed_run_keeps_the_same(keeping, tmp_path, last):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    train(Recipe(**keeping), whole)

    def stop(metrics, _):
        if metrics.step == last:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(Recipe(**keeping), parts, stop)
    assert max(list_milestones(parts)) <= last
    assert train(Recipe(**keeping), parts).finished
    assert (parts / "probes.csv").read_bytes() == (whole / "probes.csv").read_bytes()
    for name in ("model.safetensors", "best.safetensors"):
        assert same_weights(parts / name, whole / name)
    first, second = (record_of(folder / "best.safetensors") for folder in (whole, parts))
    assert first | {"seconds": 0} == second | {"seconds": 0}
    kept, again = list_milestones(whole), list_milestones(parts)
    assert kept.keys() == again.keys()
    assert all(same_weights(kept[step], again[step]) for step in kept)


def test_milestones_after_the_checkpoint_are_dropped(keeping, tmp_path):
    def stop(metrics, _):
        if metrics.step == 7:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(Recipe(**keeping), tmp_path, stop)
    assert list(list_milestones(tmp_path)) == [0, 3, 6]
    (tmp_path / "milestones" / "notes.txt").write_text("mine")
    assert train(Recipe(**{**keeping, "milestone_every": 0}), tmp_path).finished  # from 4 on
    assert list(list_milestones(tmp_path)) == [0, 3]
    assert (tmp_path / "milestones" / "notes.txt").exists()


def test_probes_that_decide_are_part_of_the_settings(keeping, tmp_path, capsys):
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(json.dumps({**keeping, "steps": 2}))  # JSON is YAML
    command = ["train", str(recipe), "--output", str(run), "--set"]
    assert main([*command, "milestone_every=1"]) == 0
    assert main([*command, "milestone_every=2"]) == 0
    assert main([*command, "probe_every=1"]) == 2
    assert "probe_every was 2, now 1" in capsys.readouterr().err
    assert main([*command, "keep_best=mask_ap"]) == 2
    assert "keep_best was 'attention_miou_mass', now 'mask_ap'" in capsys.readouterr().err
