"""The command `probe`, and checkpoints of runs that `convert` exports."""

import csv
import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from crate_interp.cli import main
from crate_interp.data import write_scenes
from crate_interp.training import Recipe, train
from crate_interp.weights import load_backbone

KEYS = {"embed_dim": 32, "depth": 2, "num_heads": 2}


@pytest.fixture(autouse=True)
def small_models(one_thread):
    """All models of these tests are small."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """`set/tiny`, two pictures with masks, and `set/annotations`."""
    folder = tmp_path_factory.mktemp("probe") / "set"
    write_scenes(folder, count=2, seed=5)
    (folder / "demo").rename(folder / "tiny")
    annotations = folder / "annotations" / "instances_demo.json"
    annotations.rename(annotations.with_name("instances_tiny.json"))
    return folder


def recipe_of(data, **changes):
    keys = {"model": "crate_alpha_demo", "model_args": KEYS, "data": "scenes", "image_size": 32}
    keys |= {"batch_size": 8, "steps": 4, "workers": 0, "log_every": 1, "validation_scenes": 16}
    keys |= {"save_every": 1, "keep": 9, "ema_decay": 0.5, "learning_rate": 0.01}
    return {**keys, "crop_area": None, "probe_set": str(data / "tiny"), **changes}


@pytest.fixture(scope="module")
def probed(data, tmp_path_factory):
    """A run of 4 updates with all its checkpoints, probes and milestones."""
    return made(tmp_path_factory.mktemp("runs") / "probed", data, probe_every=1, milestone_every=1)


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory):
    """The same run with its checkpoints alone."""
    return made(tmp_path_factory.mktemp("runs") / "plain", data)


def made(folder, data, **changes):
    folder.parent.mkdir(exist_ok=True)
    recipe = folder.parent / "recipe.yaml"
    recipe.write_text(json.dumps(recipe_of(data, **changes)))  # JSON is YAML
    assert main(["train", str(recipe), "--output", str(folder)]) == 0
    assert "updates of 8 images" in (folder / "report.html").read_text()
    return folder


@pytest.fixture
def run(plain, tmp_path):
    return shutil.copytree(plain, tmp_path / "run")


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def record_of(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["training"])


def set_of(data, *more):
    return ["--set", f"probe_set={data / 'tiny'}", *more]


def test_probes_of_checkpoints_are_those_of_the_training(run, probed, data, capsys):
    assert main(["probe", str(run), *set_of(data)]) == 0
    assert capsys.readouterr().out.startswith("5 updates measured: ")
    assert (run / "probes.csv").read_bytes() == (probed / "probes.csv").read_bytes()
    assert main(["probe", str(run), *set_of(data)]) == 0
    assert capsys.readouterr().out.startswith("0 updates measured: ")
    assert main(["curves", str(run), "--output", str(run.parent / "figure.png")]) == 0


def test_missing_lines_are_filled_in_where_they_belong(probed, data, tmp_path):
    run = shutil.copytree(probed, tmp_path / "run")
    lines = (run / "probes.csv").read_text().splitlines(keepends=True)
    (run / "probes.csv").write_text("".join([*lines[:2], *lines[4:]]))
    shutil.rmtree(run / "checkpoints")  # milestones are enough
    assert main(["probe", str(run)]) == 0
    assert (run / "probes.csv").read_text() == "".join(lines)


def test_a_stopped_command_goes_on(run, data, monkeypatch, capsys):
    from crate_interp.training.probe import Probe

    measure, calls = Probe.measure, []

    def stop(self, backbone):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(self, backbone)

    monkeypatch.setattr(Probe, "measure", stop)
    assert main(["probe", str(run), *set_of(data)]) == 130
    assert [row["step"] for row in rows(run / "probes.csv")] == ["0", "1"]
    assert main(["probe", str(run), *set_of(data, "probe_every=2")]) == 0
    assert [row["step"] for row in rows(run / "probes.csv")] == ["0", "1", "2", "4"]


def test_another_table_leaves_the_run_alone(plain, data, tmp_path):
    before = sorted(path.name for path in plain.iterdir())
    output = tmp_path / "table.csv"
    options = ["--output", str(output), *set_of(data, "probe_every=4", "probe_size=[32, 48]")]
    assert main(["probe", str(plain), *options]) == 0
    assert [row["step"] for row in rows(output)] == ["0", "4"]
    assert "tokencut_iou_48px" in rows(output)[0]
    assert sorted(path.name for path in plain.iterdir()) == before
    assert json.loads((tmp_path / "table.json").read_text())["probe_size"] == [32, 48]


def test_other_probes_are_refused(run, probed, data, tmp_path, capsys):
    assert main(["probe", str(run), *set_of(data, "probe_every=4")]) == 0
    capsys.readouterr()
    for folder, change, message in (
        (run, "probe_size=48", "probe_size was None, now 48"),
        (probed, "probe_pictures=1", "probe_pictures was 32, now 1"),
    ):
        assert main(["probe", str(folder), *set_of(data, change)]) == 2
        assert message in capsys.readouterr().err
    (run / "probes.json").unlink()
    assert main(["probe", str(run), *set_of(data)]) == 2
    assert "expected probes.json beside it" in capsys.readouterr().err


def test_folders_and_keys_that_cannot_be_used_are_refused(run, data, tmp_path, capsys):
    def error_of(*arguments):
        assert main(["probe", *map(str, arguments)]) == 2
        return capsys.readouterr().err

    assert "found no settings.json" in error_of(tmp_path)
    assert "expected a key of the probes" in error_of(run, "--set", "seed=3")
    assert "expected a name ending in .csv" in error_of(run, "--output", tmp_path / "a.txt")
    assert "block" in error_of(run, *set_of(data, "probe_block=7"))
    checkpoint = run / "checkpoints" / "step-00000001.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    assert "not a checkpoint that is whole" in error_of(run, *set_of(data))
    shutil.rmtree(run / "checkpoints")
    assert "expected checkpoints or milestones, found none" in error_of(run, *set_of(data))


@pytest.mark.parametrize("step", [2, 4])
def test_a_checkpoint_becomes_what_the_run_exports(probed, data, tmp_path, step):
    output = tmp_path / "out.safetensors"
    checkpoint = probed / "checkpoints" / f"step-{step:08d}.pt"
    assert main(["convert", str(checkpoint), str(output)]) == 0
    milestone = probed / "milestones" / f"step-{step:08d}.safetensors"
    found, expected = load_file(output), load_file(milestone)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    record, of_milestone = record_of(output), record_of(milestone)
    assert record.pop("checkpoint")["file"] == checkpoint.name
    assert record.pop("moving_average")
    left_out = {"recipe": 0}  # some keys of it do not change the weights, and are not recorded
    assert record | left_out == of_milestone | left_out
    assert ("accuracy" in record) == (step == 4)
    assert load_backbone(output).num_classes == 8


def test_raw_weights_are_those_of_the_model(probed, tmp_path):
    checkpoint, output = probed / "checkpoints" / "step-00000002.pt", tmp_path / "o.safetensors"
    assert main(["convert", str(checkpoint), str(output), "--raw"]) == 0
    saved, found = torch.load(checkpoint, weights_only=True), load_file(output)
    assert all(torch.equal(found[name], value) for name, value in saved["model"].items())
    assert not torch.equal(found["head.weight"], saved["ema"]["head.weight"])
    assert not record_of(output)["moving_average"]


def test_checkpoints_that_begin_with_other_weights_need_them_no_more(data, tmp_path):
    (tmp_path / "first").mkdir()
    train(Recipe(**recipe_of(data, steps=1)), tmp_path / "first")
    initial = tmp_path / "first" / "model.safetensors"
    run = made(tmp_path / "second", data, steps=1, initial_weights=str(initial))
    initial.unlink()
    checkpoint = run / "checkpoints" / "step-00000001.pt"
    assert main(["convert", str(checkpoint), str(tmp_path / "o.safetensors")]) == 0
    recipe = record_of(tmp_path / "o.safetensors")["recipe"]
    assert recipe["initial_weights"] == str(initial)


def test_convert_refuses_options_that_do_not_go_with_its_input(run, tmp_path, capsys):
    checkpoint, output = run / "checkpoints" / "step-00000002.pt", tmp_path / "o.safetensors"

    def error_of(*arguments):
        assert main(["convert", *map(str, arguments)]) == 2
        return capsys.readouterr().err

    assert "--model: not of a checkpoint of a run" in error_of(
        checkpoint, output, "--model", "crate_alpha_demo"
    )
    alone = shutil.copy(checkpoint, tmp_path / checkpoint.name)
    assert "--model: required" in error_of(alone, output)
    assert "--raw: " in error_of(alone, output, "--raw", "--model", "demo")
    checkpoint.write_bytes(b"")
    assert "not a checkpoint that is whole" in error_of(checkpoint, output)
    assert not output.exists()
