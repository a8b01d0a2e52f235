"""The command `ablate`, against effects that are measured by weights with zeros in them."""

import copy
import csv

import numpy as np
import pytest
import torch
from PIL import Image

from crate_interp import Observer, any_resolution, load_backbone
from crate_interp.cli import main
from crate_interp.data import draw_scene, read_image
from crate_interp.runs.journal_file import JournalFile

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, seed in {"a": 5, "b": 6}.items():
        picture = draw_scene(np.random.default_rng(seed), (48, 64)).image
        Image.fromarray(picture).save(folder / f"{name}.png")
    return folder


def ablate(folder, tmp_path, *options):
    command = ["ablate", str(folder), "--size", "24", "--workers", "0", "--device", "cpu"]
    code = main([*command, "--output", str(tmp_path / "out"), *options])
    with np.load(tmp_path / "out" / "ablation.npz") as numbers:
        arrays = dict(numbers)
    with (tmp_path / "out" / "ablation.csv").open() as stream:
        return code, arrays, list(csv.DictReader(stream))


@torch.no_grad()
def test_heads_are_ranked_by_the_drop_of_the_predicted_class(folder, tmp_path, capsys):
    code, arrays, table = ablate(folder, tmp_path, "--model", "demo")
    assert code == 0
    model = load_backbone("demo")
    pixels = Observer(model, 24).pixels([read_image(folder / f"{name}.png") for name in "ab"])
    with any_resolution(model):
        scores = model(pixels)
        classes = scores.argmax(dim=1)
        expected = np.zeros((2, 16))
        for column, (block, head) in enumerate(np.ndindex(4, 4)):
            changed = copy.deepcopy(model)
            weight = changed.blocks[block].attn.proj.weight.data
            weight[:, 32 * head : 32 * head + 32] = 0
            expected[:, column] = (scores - changed(pixels)).gather(1, classes[:, None])[:, 0]
    np.testing.assert_allclose(arrays["effects"], expected, atol=1e-4)
    assert arrays["classes"].tolist() == classes.tolist()
    assert arrays["file_names"].tolist() == ["a.png", "b.png"]
    assert list(zip(arrays["block"], arrays["head"], strict=True)) == list(np.ndindex(4, 4))
    means = [float(row["logit_effect"]) for row in table]
    assert [abs(mean) for mean in means] == sorted((abs(mean) for mean in means), reverse=True)
    best = np.abs(expected.mean(axis=0)).argmax()
    assert (int(table[0]["block"]), int(table[0]["head"])) == divmod(best, 4)
    assert float(table[0]["deviation"]) == pytest.approx(expected[:, best].std(), abs=1e-4)
    assert (tmp_path / "out" / "ablation.pdf").read_bytes().startswith(b"%PDF")
    assert "2 images, 16 units" in capsys.readouterr().out


@pytest.mark.parametrize("effect", ["logit", "mask"])
def test_the_atoms_of_the_largest_estimate_are_measured(folder, tmp_path, effect, capsys):
    options = ["--model", "demo", "--target", "atoms", "--block", "1", "--effect", effect]
    _, arrays, table = ablate(folder, tmp_path, *options, "--measured", "5")
    assert arrays["effects"].shape == (2, 5)
    assert set(arrays["block"]) == {1}
    assert len(table) == 5
    _, everything, _ = ablate(folder, tmp_path, *options, "--measured", "0")
    assert everything["effects"].shape == (2, 512)
    assert "estimate" not in everything
    np.testing.assert_allclose(
        arrays["effects"], everything["effects"][:, arrays["atom"]], atol=1e-5
    )
    if effect == "logit":
        assert "correlation" in capsys.readouterr().out
        largest = np.abs(everything["effects"].mean(axis=0)).argsort()[-20:]
        assert set(arrays["atom"]) <= set(largest)


def test_an_image_repaired_before_a_run_goes_on_has_the_atoms_chosen_anew(
    folder, tmp_path, monkeypatch
):
    options = ["--model", "demo", "--target", "atoms", "--measured", "3"]
    _, whole, _ = ablate(folder, tmp_path / "whole", *options)
    picture = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(b"no image")
    code, alone, _ = ablate(folder, tmp_path / "alone", *options)
    assert code == 1
    assert alone["atom"].tolist() != whole["atom"].tolist()
    append, kept = JournalFile.append, []

    def stop(run_folder, entry):
        append(run_folder, entry)
        kept.append(entry["file_name"])
        if len(kept) == 2:  # the estimates, and then the effects, of the one image
            raise KeyboardInterrupt

    monkeypatch.setattr(JournalFile, "append", stop)
    output = ["--output", str(tmp_path / "again" / "out")]
    command = ["ablate", str(folder), "--size", "24", "--workers", "0", "--device", "cpu"]
    assert main([*command, *output, *options]) == 130
    assert kept == ["a.png", "a.png"]
    (folder / "b.png").write_bytes(picture)
    code, again, _ = ablate(folder, tmp_path / "again", *options)
    assert code == 0
    for name in ("atom", "effects", "estimate"):
        np.testing.assert_array_equal(again[name], whole[name])


def test_a_class_and_a_vit_can_be_asked_for(folder, tmp_path):
    options = ["--model", "demo_vit", "--target", "atoms", "--measured", "3", "--class", "2"]
    _, arrays, _ = ablate(folder, tmp_path, *options)
    assert arrays["classes"].tolist() == [2, 2]


def test_an_image_that_fails_is_named_and_the_others_are_measured(folder, tmp_path, capsys):
    Image.fromarray(np.full((24, 24, 3), 90, np.uint8)).save(folder / "c.png")  # nothing to cut
    (folder / "d.png").write_bytes(b"no image")
    code, arrays, _ = ablate(folder, tmp_path, "--model", "demo", "--effect", "mask")
    assert code == 1
    assert arrays["file_names"].tolist() == ["a.png", "b.png"]
    assert set(arrays["block"]) == {0, 1, 2}
    errors = capsys.readouterr().err
    assert "c.png: MaskCut finds no object" in errors
    assert "d.png" in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "demo", "--block", "4"], "block 4 is out of range: the model has blocks 0 to"),
        (["--model", "demo", "--effect", "mask", "--block", "-1"], "block -1: expected 0 to 2"),
        (["--model", "demo", "--class", "8"], "class 8: expected 0 to 7"),
        (["--model", "demo", "--class", "1", "--effect", "mask"], "--class goes with"),
        (["--model", "demo", "--measured", "-1"], "measured: expected 0 or more"),
        (["--model", "demo", "--size", "3"], "size 3: expected a multiple of the patch size 4"),
        (
            ["--model", "crate_mae_S16", "--weights", "random", "--model-args", '{"depth": 1}'],
            "gives no class scores",
        ),
    ],
)
def test_wrong_options_are_refused(folder, tmp_path, options, message, capsys):
    command = ["ablate", str(folder), "--workers", "0", "--output", str(tmp_path / "out")]
    assert main([*command, *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_is_refused(tmp_path, capsys):
    command = ["ablate", str(tmp_path), "--model", "demo", "--output", str(tmp_path / "out")]
    assert main(command) == 2
    assert "found none" in capsys.readouterr().err
