"""What a page asks, without a browser: controls, links, pictures, kept passes, and the numbers."""

import csv
import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crate_interp import data
from crate_interp.cli import main
from crate_interp.errors import InputError
from crate_interp.explorer.explorer import Explorer
from crate_interp.explorer.markup import command_line
from crate_interp.explorer.models import Models
from crate_interp.explorer.pictures import Pictures
from crate_interp.explorer.scene import read_shown_atlas
from crate_interp.explorer.selection import Selection
from crate_interp.runs.options import ModelOptions

OPTIONS = ["--workers", "0", "--device", "cpu", "--dpi", "30", "--format", "png"]
SIZE = 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rgb = data.open_coco("photos").records[0].read()
    Image.fromarray(rgb).save(folder / "a.png")
    return folder


@pytest.fixture(scope="module")
def explorer(folder):
    options = [ModelOptions(model=name, device="cpu") for name in ("demo", "demo_vit")]
    return Explorer(Models(options), Pictures([str(folder)]))


@pytest.fixture
def selection(explorer, folder):
    return Selection(f"{folder.name}/a.png", "demo", "heads", size=SIZE)


def look(explorer, selection, view, model="demo", kind="", patch="", **options):
    changed = Selection(
        selection.picture, model, view, kind, size=SIZE, patch=patch, options=options
    )
    ((_, answer),) = explorer.look(explorer.checked(changed))
    return answer


def run(answer, folder, output, monkeypatch):
    """Run the command line of an answer in the folder of the picture."""
    monkeypatch.chdir(folder)
    program, *arguments = shlex.split(command_line(answer))
    assert program == "crate-interp"
    at = arguments.index("--output")
    assert main([*arguments[:at], *arguments[at + 2 :], *OPTIONS, "--output", str(output)]) == 0


@pytest.mark.parametrize(("model", "patch"), [("demo", ""), ("demo_vit", "40,50")])
def test_heads_are_those_of_attention(
    explorer, selection, folder, tmp_path, monkeypatch, model, patch
):
    options = {"block": 2, "threshold": 0.5, "threshold_by": "entries"}
    answer = look(explorer, selection, "heads", model, patch=patch, **options)
    run(answer, folder, tmp_path / "out", monkeypatch)
    with np.load(tmp_path / "out" / "a.npz") as numbers:
        for name in ("maps", "masks"):
            np.testing.assert_array_equal(answer.numbers[name], numbers[name])


def test_components_are_those_of_pca(explorer, selection, folder, tmp_path, monkeypatch):
    answer = look(explorer, selection, "pca", foreground=0.4)
    run(answer, folder, tmp_path / "pca.png", monkeypatch)
    with np.load(tmp_path / "pca.npz") as numbers:
        for name, values in answer.numbers.items():
            np.testing.assert_array_equal(values, numbers[name])


@pytest.mark.parametrize("method", ["maskcut", "attention", "votecut"])
def test_masks_are_those_of_segment(explorer, selection, folder, tmp_path, monkeypatch, method):
    answer = look(explorer, selection, "masks", kind=method)
    run(answer, folder, tmp_path / "run", monkeypatch)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    masks = [data.decode_mask(result["segmentation"]) for result in results]
    assert len(masks) == len(answer.masks)
    for mask, own, score, result in zip(
        masks, answer.masks, answer.numbers["scores"], results, strict=True
    ):
        np.testing.assert_array_equal(mask, own)
        assert result["score"] == score


def test_rates_are_those_of_layers(explorer, selection, folder, tmp_path, monkeypatch):
    answer = look(explorer, selection, "rates")
    run(answer, folder, tmp_path / "layers.png", monkeypatch)
    with (tmp_path / "layers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in ("coding_rate", "sparsity", "objective"):
        assert [float(row[name]) for row in rows] == answer.numbers[name].tolist()


@pytest.mark.parametrize(
    ("target", "effect"), [("heads", "logit"), ("heads", "mask"), ("atoms", "logit")]
)
def test_effects_are_those_of_ablate(
    explorer, selection, folder, tmp_path, monkeypatch, target, effect
):
    options = {"target": target, "effect": effect, "block": 1, "off": "0,2", "measured": 3}
    answer = look(explorer, selection, "switched-off", **options)
    run(answer, folder, tmp_path / "out", monkeypatch)
    with np.load(tmp_path / "out" / "ablation.npz") as numbers:
        np.testing.assert_array_equal(answer.numbers[target[:-1]], numbers[target[:-1]])
        np.testing.assert_allclose(answer.numbers["effects"], numbers["effects"][0], rtol=1e-5)
    assert "Without" in answer.text
    assert len(answer.pictures) == 2


def test_attribution_is_that_of_attribute(explorer, selection, folder, tmp_path, monkeypatch):
    pytest.importorskip("captum", reason="needs the extra attribution")
    answer = look(explorer, selection, "attribution", class_=2, gradients=True, steps=2)
    run(answer, folder, tmp_path / "out.png", monkeypatch)
    with np.load(tmp_path / "out.npz") as numbers:
        for name, values in answer.numbers.items():
            np.testing.assert_allclose(values, numbers[name][0], rtol=1e-4, atol=1e-6)


def test_integrated_gradients_say_that_captum_is_missing(explorer, selection, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    assert "captum" not in look(explorer, selection, "attribution").text
    with pytest.raises(InputError, match=r"crate-interp\[attribution\]"):
        look(explorer, selection, "attribution", gradients=True)


def test_atoms_are_those_of_the_command(explorer, selection, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--model", "demo", "--block", "2", "--size", str(SIZE), "--sheet", "0"]
    assert main(["atlas", str(folder), *options, *OPTIONS[:4], "--output", "atlas"]) == 0
    without = look(explorer, selection, "atoms", block=2, patch="30,40")
    assert "crate-interp atlas FOLDER --model demo --block 2" in without.text
    assert not without.command
    with_atlas = Explorer(explorer.models, explorer.pictures, read_shown_atlas(Path("atlas")))
    answer = look(with_atlas, selection, "atoms", block=2, patch="30,40")
    assert len(answer.pictures) > len(without.pictures)
    assert "The atlas is of block 2" in look(with_atlas, selection, "atoms", block=1).text
    (folder / "atlas").symlink_to(tmp_path / "atlas")
    monkeypatch.chdir(folder)
    arguments = list(answer.command)[:-1]
    assert main([*arguments, str(tmp_path / "atoms.png"), "--dpi", "30", "--device", "cpu"]) == 0
    with (tmp_path / "atoms.csv").open(newline="") as file:
        shares = {int(row["atom"]): float(row["share"]) for row in csv.DictReader(file)}
    assert answer.numbers["share"].tolist() == [shares[atom] for atom in sorted(shares)]
