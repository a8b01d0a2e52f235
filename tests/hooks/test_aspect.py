"""Images that keep their aspect: the size of the input, the grid, and masks in the right place."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from crate_interp import InputError, MaskCut, Observer, load_backbone, maskcut
from crate_interp.cli import main
from crate_interp.data import decode_mask, draw_scene
from crate_interp.structures import InputSize

HWS = ((60, 90), (90, 60), (50, 50), (40, 64), (60, 90))


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(np.random.default_rng(n), hw).image for n, hw in enumerate(HWS)]


@pytest.mark.parametrize(
    ("original_hw", "input_hw"),
    [
        ((480, 640), (480, 640)),
        ((640, 480), (640, 480)),
        ((333, 500), (480, 720)),  # 720.7: the nearest multiple of 8
        ((500, 504), (480, 480)),
        ((500, 505), (480, 488)),
        ((10, 1000), (480, 1920)),
        ((1, 1), (480, 480)),
    ],
)
def test_the_shorter_side_is_the_size_and_the_longer_one_in_whole_patches(original_hw, input_hw):
    size = InputSize((480, 480), (8, 8), keep_aspect=True)
    assert size.of(original_hw) == input_hw
    assert size.of(input_hw) == input_hw
    assert InputSize((480, 480), (8, 8)).of(original_hw) == (480, 480)


def test_each_image_has_the_activations_of_its_own_grid(scenes):
    observer = Observer(load_backbone("demo"), size=32, keep_aspect=True)
    found = observer.each(scenes, ["codes"], [-1])
    assert [one.grid_hw for one in found] == [(8, 12), (12, 8), (8, 8), (8, 13), (8, 12)]
    for one, scene in zip(found, scenes, strict=True):
        alone = observer.activations([scene], ["codes"], [-1])
        assert observer.geometry(scene.shape[:2]).grid_hw == one.grid_hw == alone.grid_hw
        torch.testing.assert_close(one["codes", -1], alone["codes", -1], rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="images: expected one size of input in a batch"):
        observer.activations(scenes, ["codes"], [-1])


def test_a_squashed_batch_is_recorded_as_before(scenes):
    observer = Observer(load_backbone("demo"), size=32)
    batch = observer.activations(scenes, ["codes"], [-1])["codes", -1]
    each = observer.each(scenes, ["codes"], [-1])
    assert torch.equal(torch.cat([one["codes", -1] for one in each]), batch)


def test_an_aspect_goes_with_one_number():
    with pytest.raises(InputError, match="size: expected the shorter side alone with keep_aspect"):
        Observer(load_backbone("demo"), size=(32, 48), keep_aspect=True)
    with pytest.raises(InputError, match="keep_aspect: expected"):
        Observer(load_backbone("demo"), keep_aspect="yes")


def test_masks_lie_on_the_original_image(scenes):
    predictor = MaskCut(load_backbone("demo"), size=32, tau=0.3, keep_aspect=True)
    for scene, instances in zip(scenes, predictor(scenes), strict=True):
        geometry = predictor.observer.geometry(scene.shape[:2])
        cut = maskcut(predictor.features([scene])[0], geometry.grid_hw, tau=0.3).masks.numpy()
        expected = geometry.grid_to_original(cut[cut.any(axis=(1, 2))])
        np.testing.assert_array_equal(instances.masks, expected)


@pytest.fixture(scope="module")
def folder(scenes, tmp_path_factory):
    path = tmp_path_factory.mktemp("scenes")
    for number, scene in enumerate(scenes):
        Image.fromarray(scene).save(path / f"{number}.png")
    return path


def test_the_command_finds_the_masks_of_the_library(scenes, folder, tmp_path):
    options = ["--model", "demo", "--size", "32", "--tau", "0.3", "--precision", "float32"]
    more = ["--keep-aspect", "--images", str(folder), "--batch-size", "3", "--visualize", "0"]
    assert main(["maskcut", *options, *more, "--output", str(tmp_path / "run")]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    predictor = MaskCut(load_backbone("demo"), size=32, tau=0.3, keep_aspect=True)
    expected = [mask for scene in scenes for mask in predictor(scene).masks]
    found = [decode_mask(result["segmentation"]) for result in results]
    assert len(found) == len(expected)
    for mask, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mask, other)
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["keep_aspect"] is True


@pytest.mark.parametrize(
    "command",
    [
        ["layers", "demo", "--output", "layers.png"],
        ["ablate", "demo", "--block", "0", "--effect", "mask", "--output", "ablation"],
        ["benchmark", "voc2012", "demo", "--output", "voc"],
        ["benchmark", "semantic", "demo", "--output", "kmeans"],
        ["benchmark", "semantic", "demo", "--method", "linear", "--output", "linear"],
    ],
)
def test_commands_that_take_each_image_alone(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--model", "demo", "--size", "24", "--limit", "2", "--workers", "0"]
    assert main([*command, *options, "--keep-aspect"]) == 0


@pytest.mark.parametrize("command", ["atlas", "attention", "attribute", "pca"])
def test_commands_of_one_grid_refuse(command, tmp_path, capsys):
    output = ["--output", str(tmp_path / "out.png")]
    assert main([command, "demo", "--model", "demo", *output, "--keep-aspect"]) == 2
    assert "have different patch grids" in capsys.readouterr().err
