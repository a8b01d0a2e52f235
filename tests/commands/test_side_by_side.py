"""The command `side-by-side` from pictures to one figure of the masks of several models."""

import csv

import numpy as np
import pytest
from PIL import Image

import crate_interp.visualization as visualization
from crate_interp.cli import main
from crate_interp.data import read_image
from crate_interp.hooks import Observer
from crate_interp.segmentation import tokencut
from crate_interp.weights import load_backbone

OPTIONS = ["--workers", "0", "--batch-size", "2", "--size", "32"]


@pytest.fixture
def folder(tmp_path):
    """Two pictures of different sizes, and one without anything to find."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, hw in {"a": (40, 30), "b": (32, 64)}.items():
        rgb = rng.integers(0, 60, (*hw, 3), np.uint8)
        rgb[8:24, 8:24] = rng.integers(150, 255, 3)
        Image.fromarray(rgb).save(folder / f"{name}.png")
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / "c.png")
    return folder


@pytest.fixture
def grids(monkeypatch):
    drawn = []

    class Kept(visualization.Grid):
        def __post_init__(self):
            super().__post_init__()
            drawn.append(self)

    monkeypatch.setattr(visualization, "Grid", Kept)
    return drawn


def table_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run(folder, output, *arguments):
    return main(["side-by-side", str(folder), "--output", str(output), *arguments, *OPTIONS])


def test_the_masks_are_those_that_the_library_finds_with_each_model(folder, tmp_path, grids):
    output = tmp_path / "figure.png"
    assert run(folder, output, "--model", "demo,demo_vit", "--untrained") == 0
    rows = table_of(output.with_suffix(".csv"))
    models = {
        "crate_alpha_demo": load_backbone("demo"),
        "vit_demo": load_backbone("demo_vit"),
        "crate_alpha_demo (untrained)": load_backbone("demo", weights="random"),
    }
    assert list(dict.fromkeys(row["model"] for row in rows)) == list(models)
    for name, model in models.items():
        feature = "key" if name == "vit_demo" else "subspace"
        for picture in ("a.png", "b.png"):
            observer, rgb = Observer(model, size=32), read_image(folder / picture)
            activations = observer.activations([rgb], [feature], [-1])
            mask = tokencut(activations.patch_features(feature)[0], (8, 8)).mask.numpy()
            expected = observer.geometry(rgb.shape[:2]).grid_to_original(mask[None]).mean()
            mine = [r for r in rows if (r["model"], r["image"]) == (name, picture)]
            assert [float(row["area"]) for row in mine] == [pytest.approx(expected)]
    (grid,) = grids
    assert list(grid.row_names) == ["image", *models]
    assert [len(row) for row in grid.rows] == [3, 3, 3, 3]
    for name, panels in zip(models, grid.rows[1:], strict=True):
        areas = [float(row["area"]) for row in rows if row["model"] == name]
        assert [panel.caption for panel in panels] == ["" if area else "no mask" for area in areas]
    assert grid.rows[1][2].caption == "no mask"
    np.testing.assert_array_equal(grid.rows[0][0].image, read_image(folder / "a.png"))
    assert read_image(output).std() > 0


def test_an_image_that_fails_is_named_and_not_in_the_figure(folder, tmp_path, grids, capsys):
    (folder / "b.png").write_bytes(b"no picture")
    output = tmp_path / "figure.png"
    assert run(folder, output, "--model", "demo", "--method", "attention") == 1
    assert "b.png" in capsys.readouterr().err
    assert [len(row) for row in grids[0].rows] == [2, 2]


def test_a_file_has_no_untrained_weights(folder, tmp_path, capsys):
    output = tmp_path / "figure.png"
    assert run(folder, output, "--model", "x.safetensors", "--untrained") == 2
    assert "expected the name of a model first, found the weight file" in capsys.readouterr().err


def test_no_image_is_refused(tmp_path, capsys):
    folder = tmp_path / "empty"
    folder.mkdir()
    assert run(folder, tmp_path / "figure.png", "--model", "demo") == 2
    assert str(folder) in capsys.readouterr().err
