"""The command `attention` on pictures drawn here, against the recorder's whole maps."""

import csv
import math

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import crate_interp.visualization as visualization
from crate_interp import Observer, attention_masks, load_backbone
from crate_interp.analysis import attended_keys, attention_statistics, head_agreement
from crate_interp.cli import main
from crate_interp.commands import attention_figures
from crate_interp.models.anatomy import ATTENTIONS

OPTIONS = ["--model", "demo", "--size", "24", "--workers", "0", "--device", "cpu", "--dpi", "30"]
EVERYTHING = ["heads", "semantics", "layers", "rollout", "curves"]
NAMES = ["a", "b", "c"]


@pytest.fixture(autouse=True)
def small_figures(monkeypatch):
    """Figures are drawn at a fraction of their size, for speed."""
    monkeypatch.setattr("crate_interp.commands.attention.PICTURE_HEIGHT", 48)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, hw in zip(NAMES, [(24, 24), (30, 50), (64, 20)], strict=True):
        Image.fromarray(rng.integers(0, 256, (*hw, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


def run(images, output, *more):
    return main(["attention", str(images), *OPTIONS, "--output", str(output), *more])


def recorded(path, model="demo"):
    observer = Observer(load_backbone(model), size=24)
    rgb = np.array(Image.open(path))
    sites, blocks = ["query", "key", "attention"], range(len(observer.model.blocks))
    return observer.activations([rgb], sites, blocks), rgb.shape[:2]


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_numbers_are_those_of_the_recorder(pictures, tmp_path, capsys):
    output = tmp_path / "out"
    assert run(pictures, output, "--figure", *EVERYTHING) == 0
    figures = [f"{name}-{kind}" for name in NAMES for kind in ("heads", "layers")]
    for name in [*figures, "semantics", "rollout", "curves"]:
        assert (output / f"{name}.png").stat().st_size > 1000
        assert (output / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    distance, entropy, keys, rollout_entropy = [], [], [], []
    for name in NAMES:
        activations, _ = recorded(pictures / f"{name}.png")
        found = np.load(output / f"{name}.npz")
        layers = [activations["attention", block][0, :, 0, 1:] for block in range(4)]
        expected = torch.stack(layers).unflatten(2, (6, 6))
        np.testing.assert_allclose(found["layers"], expected, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(found["maps"], expected[-1], rtol=1e-4, atol=1e-7)
        masks = attention_masks(torch.from_numpy(found["maps"]).flatten(1)).unflatten(1, (6, 6))
        assert (found["masks"] == masks.numpy()).all()
        statistics = attention_statistics(activations, (4, 4))
        np.testing.assert_allclose(found["distance"], statistics.distance[0], rtol=1e-4)
        np.testing.assert_allclose(found["entropy"], statistics.entropy[0], rtol=1e-4)
        rollout = statistics.rollout[0, :, 1:].numpy()
        np.testing.assert_allclose(found["rollout"].reshape(4, 36), rollout, rtol=1e-4)
        shares = rollout / rollout.sum(axis=1, keepdims=True)
        rollout_entropy.append(-(shares * np.log(shares)).sum(axis=1))
        np.testing.assert_allclose(found["rollout_entropy"], rollout_entropy[-1], rtol=1e-4)
        distance.append(found["distance"])
        entropy.append(found["entropy"])
        keys.append(attended_keys(layers[-1], activations["key", -1][0, 1:]))
    rows = table(output / "curves.csv")
    assert len(rows) == 16
    for row in rows:
        place = int(row["block"]), int(row["head"])
        for column, values in (("distance_pixels", distance), ("entropy_nats", entropy)):
            of_images = [of_image[place] for of_image in values]
            assert float(row[column]) == pytest.approx(np.mean(of_images))
            assert float(row[f"{column}_std"]) == pytest.approx(np.std(of_images))
        assert 4 * float(row["distance_patches"]) == pytest.approx(float(row["distance_pixels"]))
    rows = table(output / "rollout.csv")
    np.testing.assert_allclose(
        [float(row["entropy_nats"]) for row in rows], np.mean(rollout_entropy, axis=0), rtol=1e-4
    )
    assert float(rows[0]["entropy_nats"]) < math.log(36)
    printed = capsys.readouterr().out
    rows = table(output / "agreement.csv")
    scores = head_agreement(torch.stack(keys)).tolist()
    assert [int(row["head"]) for row in rows] == sorted(range(4), key=lambda head: -scores[head])
    for row in rows:
        score = scores[int(row["head"])]
        assert float(row["agreement"]) == pytest.approx(score, abs=1e-4)
        assert f"head  {row['head']}  {score:6.3f}" in printed


@pytest.mark.parametrize("model", ["demo_crate", "demo_vit"])
def test_query_is_the_patch_at_that_pixel(pictures, tmp_path, model, capsys):
    output = tmp_path / "out"
    y, x = 27, 11
    options = ["--patch", f"{y},{x}", "--model", model, "--block", "1"]
    assert run(pictures, output, *options) == 1
    error = capsys.readouterr().err
    assert "a.png: patch: pixel 27,11 lies outside the image" in error
    assert "expected y from 0 to 23 and x from 0 to 23" in error
    assert not (output / "a.npz").exists()
    for name in ("b", "c"):
        activations, (height, width) = recorded(pictures / f"{name}.png", model)
        row, column = int((y + 0.5) * 24 / height / 4), int((x + 0.5) * 24 / width / 4)
        heads = activations["attention", 1].shape[1]
        expected = activations["attention", 1][0, :, 1 + 6 * row + column, 1:]
        found = np.load(output / f"{name}.npz")["maps"].reshape(heads, 36)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("head", ["mean", "2"])
def test_one_head_or_their_mean(pictures, tmp_path, head):
    output = tmp_path / "out"
    options = ["--head", head, "--threshold-by", "entries", "--threshold", "0.25"]
    assert run(pictures / "b.png", output, "--figure", "heads", "layers", *options) == 0
    activations, _ = recorded(pictures / "b.png")
    maps = torch.stack([activations["attention", block][0, :, 0, 1:] for block in range(4)])
    expected = maps.mean(dim=1) if head == "mean" else maps[:, 2]
    found = np.load(output / "b.npz")
    np.testing.assert_allclose(found["layers"].reshape(4, 36), expected, rtol=1e-4, atol=1e-7)
    assert found["maps"].shape == (1, 6, 6)
    assert found["masks"].sum() == 9


def test_named_heads_need_one_image_and_equal_names_stay_apart(pictures, tmp_path):
    Image.open(pictures / "a.png").save(pictures / "a.jpg")
    output = tmp_path / "out"
    assert run(pictures, output, "--figure", "semantics", "--heads", "3,0", "--limit", "2") == 0
    assert sorted(path.name for path in output.iterdir()) == [
        *("a.jpg.npz", "a.png.npz", "semantics.pdf", "semantics.png")
    ]


FIGURE = """
from dataclasses import dataclass
from typing import Annotated, ClassVar

from crate_interp.commands.attention_figure import FIRST, AttentionFigure, draw_across
from crate_interp.options import Range, check_ranges, option
from crate_interp.runs.outputs import Conclusion

@dataclass(frozen=True, kw_only=True)
class Sharper(AttentionFigure):
    summary: ClassVar[str] = "maps to a power"
    pictures: ClassVar[int] = FIRST
    numbers: ClassVar = ("sharper",)
    files: ClassVar = ("sharper",)

    power: Annotated[float, Range(0, 9)] = option("power of maps", 2)

    def __post_init__(self):
        check_ranges(self)

    def measure(self, image):
        return {"sharper": image.maps_of_heads(image.block) ** self.power}

    def conclude(self, run):
        maps = [entry["sharper"] for entry in run.pictured]
        names = run.reading.head_names(len(maps[0]))
        return Conclusion([draw_across(run, "sharper", maps, names)])
"""
NO_CLASS_TOKEN = '{"class_token": false, "global_pool": "avg"}'


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--block", "4"], "block 4 is out of range: the model has blocks 0 to 3"),
        (["--head", "4"], "head 4 is out of range: the model has heads 0 to 3"),
        (["--semantics-heads", "0,7"], "head 7 is out of range: the model has heads 0 to 3"),
        (
            ["--semantics-heads", "a"],
            "semantics_heads: expected auto or numbers as 0,3,5, found 'a'",
        ),
        (["--patch", "3"], "patch: expected Y,X such as 120,64, found '3'"),
        (["--threshold", "0"], "threshold: expected a share in (0, 1], found 0"),
        (["--size", "2"], "size 2: expected a multiple of the patch size 4"),
        (["--figure", "semantics", "--limit", "1"], "expected two images and two heads or more"),
        (
            ["--model", "vit_demo", "--weights", "random", "--model-args", NO_CLASS_TOKEN],
            "expected a model with a class token, found none; give --patch Y,X",
        ),
    ],
)
def test_wrong_input_is_named(pictures, tmp_path, capsys, options, message):
    assert run(pictures, tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_of_unknown_attention_is_named(pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(ATTENTIONS, timm.layers.Attention)
    output = tmp_path / "out"
    assert run(pictures, output, "--model", "vit_demo", "--weights", "random") == 2
    message = "no attention can be read at block -1; it has tokens_in, tokens"
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_model_without_class_token_has_queries(pictures, tmp_path):
    model = ["--model", "vit_demo", "--weights", "random", "--model-args", NO_CLASS_TOKEN]
    figures = ["--figure", "heads", "rollout", "curves"]
    assert run(pictures, tmp_path / "out", "--query", "5,5", *model, *figures) == 0
    rollout = np.load(tmp_path / "out" / "a.npz")["rollout"]
    np.testing.assert_allclose(rollout.sum(axis=(1, 2)), 1, rtol=1e-5)
    assert (rollout[0].argmax(), rollout[0].max() > 0.5) == (1 * 6 + 1, True)


def test_images_that_cannot_be_used_are_named(pictures, tmp_path, capsys):
    Image.new("RGB", (30, 3)).save(pictures / "b.png")
    (pictures / "c.png").write_bytes(b"no picture")
    assert run(pictures, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "b.png: 3 x 30 pixels (height, width) are smaller than a patch of 4 x 4" in error
    assert "c.png: cannot be read" in error
    assert (tmp_path / "out" / "a-heads.png").exists()
    (pictures / "a.png").unlink()
    assert run(pictures, tmp_path / "none") == 2
    assert "expected an image or more that can be used, found none" in capsys.readouterr().err
    for path in pictures.iterdir():
        path.unlink()
    assert run(pictures, tmp_path / "none") == 2
    assert "pictures: expected image files" in capsys.readouterr().err


def test_rollout_of_chosen_blocks_and_panels_without_words(pictures, tmp_path, monkeypatch, capsys):
    seen = {}

    def keep(images, maps, titles, names, note, width):
        seen.update(maps=maps, names=names, note=note)
        return figure(images, maps, titles, names, note, width)

    figure = visualization.maps_figure
    monkeypatch.setattr(visualization, "maps_figure", keep)
    output = tmp_path / "out"
    options = ["--figure", "heads", "rollout", "--rollout-blocks", "3,0,3"]
    assert run(pictures / "b.png", output, *options) == 0
    assert seen["names"] == ["block 3", "block 0"]
    assert [len(of_image) for of_image in seen["maps"]] == [2]
    assert "crate_alpha_demo" in seen["note"]
    panels = {path.name for path in (output / "b-heads").iterdir()}
    assert panels == {"image.png", *(f"head-{head}.png" for head in range(4))}
    with Image.open(output / "b-heads" / "image.png") as image:
        assert image.size == (80, 48)  # of 50 x 30 pixels, as high as in the figure
    assert run(pictures, output, "--figure", "rollout", "--rollout-blocks", "0,4") == 2
    assert "rollout_blocks: block 4 is out of range" in capsys.readouterr().err
    assert run(pictures, output, "--figure", "rollout", "--rollout-blocks", "first") == 2
    assert "rollout_blocks: expected all or numbers" in capsys.readouterr().err


def test_a_figure_is_one_file(pictures, tmp_path, monkeypatch):
    """Its options, its entry in --figure, what it keeps of an image and what it draws."""
    file = tmp_path / "figures" / "sharper.py"
    file.parent.mkdir()
    file.write_text(FIGURE)
    folders = [*attention_figures.__path__, str(file.parent)]
    monkeypatch.setattr(attention_figures, "__path__", folders)
    monkeypatch.setattr(attention_figures.__spec__, "submodule_search_locations", folders)
    output = tmp_path / "out"
    options = ["--figure", "sharper", "--power", "3", "--format", "png"]
    assert run(pictures, output, *options) == 0
    assert (output / "sharper.png").stat().st_size > 1000
    numbers = np.load(output / "a.npz")
    np.testing.assert_array_equal(numbers["sharper"], numbers["maps"] ** 3)
    assert run(pictures, output, *options[:2], "--power", "-1") == 2
