"""Probes measure what the exported weights show, and training goes on as if they had not been."""

import csv
import json
import logging
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file

from crate_interp.cli import main
from crate_interp.data import open_coco
from crate_interp.errors import InputError
from crate_interp.segmentation import MaskCut
from crate_interp.training import Recipe, TrainingState, train
from crate_interp.training.emergence import measure_emergence
from crate_interp.training.metrics import Metrics, MetricsFile
from crate_interp.training.objectives.classification import Classification
from crate_interp.training.trackers import RunLog
from crate_interp.weights import create_backbone, load_backbone, resolve_name


@pytest.fixture
def probing(settings, probed_pictures):
    return {**settings, "probe_every": 3, "probe_set": str(probed_pictures), "save_every": 2}


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class StoppedError(Exception):
    pass


DRAWS = {"drop_path": 0.2, "mixup": 0.2, "color_jitter": 0.3, "crop_area": (0.3, 1.0)}


@pytest.mark.parametrize(
    "changes", [DRAWS, {**DRAWS, "ema_decay": 0.5, "gradient_checkpointing": True}]
)
def test_probes_change_nothing_but_their_file(probing, tmp_path, changes):
    for name, every in (("without", 0), ("with", 3)):
        (tmp_path / name).mkdir()
        train(Recipe(**{**probing, **changes, "probe_every": every}), tmp_path / name)
    plain, probed = (load_file(tmp_path / n / "model.safetensors") for n in ("without", "with"))
    assert plain.keys() == probed.keys()
    assert all(torch.equal(plain[key], probed[key]) for key in plain)
    without, found = (rows(tmp_path / n / "metrics.csv") for n in ("without", "with"))
    assert [row | {"seconds": ""} for row in without] == [row | {"seconds": ""} for row in found]
    assert not (tmp_path / "without" / "probes.csv").exists()
    assert [row["step"] for row in rows(tmp_path / "with" / "probes.csv")] == ["0", "3", "6", "8"]


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_last_probe_is_that_of_the_exported_weights(probing, probed_pictures, tmp_path, ema_decay):
    train(Recipe(**probing, ema_decay=ema_decay, probe_size=64), tmp_path)
    found = rows(tmp_path / "probes.csv")
    predictor = MaskCut(load_backbone(tmp_path / "model.safetensors"), size=64)
    expected = measure_emergence(predictor, open_coco("tiny", probed_pictures.parent)).numbers()
    assert list(found[-1]) == ["step", *expected]
    assert {name: float(found[-1][name]) for name in expected} == expected
    assert found[0]["coding_rate_0"] != found[-1]["coding_rate_0"]


@pytest.mark.parametrize("last", [1, 5])  # before the first checkpoint, and between two
def test_resumed_run_has_the_same_probes(probing, tmp_path, last):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    train(Recipe(**probing), whole)

    def stop(metrics, _):
        if metrics.step == last:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(Recipe(**probing), parts, stop)
    assert train(Recipe(**probing), parts).finished
    assert (parts / "probes.csv").read_bytes() == (whole / "probes.csv").read_bytes()
    assert train(Recipe(**probing), parts).finished  # finished before: nothing to measure
    assert (parts / "probes.csv").read_bytes() == (whole / "probes.csv").read_bytes()


def test_model_without_a_class_token_is_probed_without_attention(probing, tmp_path, caplog):
    sizes = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 8}
    sizes |= {"class_token": False, "global_pool": "avg"}
    model = {"model": "vit_tiny_patch16_224", "model_args": sizes}
    train(Recipe(**{**probing, **model, "steps": 4}), tmp_path)
    assert caplog.text.count("no class token, no attention is measured") == 1
    found = rows(tmp_path / "probes.csv")
    columns = "step,box_ap,box_ap50,mask_ap,mask_ap50,tokencut_iou,coding_rate_0,coding_rate_1"
    assert list(found[0]) == columns.split(",")
    assert [row["step"] for row in found] == ["0", "3", "4"]


def test_pictures_with_nothing_to_cut_are_told_by_their_score_alone(probing, tmp_path, caplog):
    model = create_backbone(resolve_name("vit_demo"), embed_dim=32, depth=1, num_heads=2).train()
    model.blocks[0].attn.qkv.weight.data.zero_()
    model.blocks[0].attn.qkv.bias.data.fill_(1)  # so that all keys are alike
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    state = TrainingState(model, optimizer, torch.amp.GradScaler("cpu", enabled=False), None)
    RunLog(tmp_path, Classification(Recipe(**probing)), state, 8, [], writes=True)
    assert caplog.text == ""
    assert logging.getLogger("crate_interp.segmentation").level == logging.NOTSET
    assert model.training
    (row,) = rows(tmp_path / "probes.csv")
    assert float(row["mask_ap"]) == float(row["tokencut_iou"]) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probe_set": "nowhere/val2017"}, "instances_val2017.json: no such annotation file"),
        ({"probe_size": 30}, "size 30: expected a multiple of the patch size 4"),
    ],
)
def test_probes_that_cannot_be_made_are_refused_at_the_start(probing, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train(Recipe(**{**probing, **changes}), tmp_path)
    assert not (tmp_path / "probes.csv").exists()


def test_pictures_without_objects_are_refused(probing, probed_pictures, tmp_path):
    for name in ("tiny", "annotations"):
        (tmp_path / name).mkdir()
    file = probed_pictures.parent / "annotations" / "instances_tiny.json"
    content = json.loads(file.read_text()) | {"annotations": []}
    (tmp_path / "annotations" / file.name).write_text(json.dumps(content))
    for picture in probed_pictures.iterdir():
        (tmp_path / "tiny" / picture.name).write_bytes(picture.read_bytes())
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match="expected images with ground truth, found none"):
        train(Recipe(**{**probing, "probe_set": str(tmp_path / "tiny")}), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probe_every": -1}, "probe_every: expected 0 or more, found -1"),
        ({"probe_pictures": 0}, "probe_pictures: expected more than 0, found 0"),
        ({"probe_size": 0}, "probe_size: expected more than 0, found 0"),
    ],
)
def test_wrong_probe_keys_are_refused(settings, changes, message):
    with pytest.raises(InputError, match=message):
        Recipe(**settings, **changes)


def test_run_goes_on_with_probes_at_other_steps_but_not_of_other_pictures(
    probing, tmp_path, capsys
):
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(json.dumps({**probing, "steps": 2}))  # JSON is YAML
    command = ["train", str(recipe), "--output", str(run), "--set"]
    assert main([*command, "probe_every=1"]) == 0
    assert main([*command, "probe_every=2"]) == 0
    assert [row["step"] for row in rows(run / "probes.csv")] == ["0", "1", "2"]
    assert main([*command, "probe_pictures=1"]) == 2
    assert "probe_pictures was 32, now 1" in capsys.readouterr().err


def test_metrics_file_drops_later_lines_and_half_lines(tmp_path):
    path = tmp_path / "metrics.csv"
    kept = asdict(Metrics(2, 0.5, 1e-3, 1.0, None, 3.0))
    first = MetricsFile(path, 0)
    assert not path.exists()
    for step in (1, 2, 3):
        first.append({**kept, "step": step})
    whole = path.read_text().splitlines()
    path.write_text("\n".join([*whole, "2,0.5,0."]))
    MetricsFile(path, 2).append({**kept, "step": 3})
    assert path.read_text().splitlines() == whole
    assert rows(path)[1]["accuracy"] == ""
    MetricsFile(path, 0)
    assert not path.exists()


def test_metrics_file_of_other_columns_is_refused(tmp_path):
    path = tmp_path / "probes.csv"
    path.write_text("step,old\n1,2\n")
    with pytest.raises(InputError, match=r"probes\.csv: expected the columns \['step', 'new'\]"):
        MetricsFile(path, 1).append({"step": 2, "new": 3})
    assert path.read_text() == "step,old\n1,2\n"
