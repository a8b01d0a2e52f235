"""The command `layers` from pictures to curves and numbers."""

import csv
import re

import numpy as np
import pytest
from PIL import Image

import crate_interp.visualization as visualization
from crate_interp.analysis import layer_objective, objective_sites
from crate_interp.cli import main
from crate_interp.data import read_image
from crate_interp.hooks import Observer
from crate_interp.weights import load_backbone

OPTIONS = ["--workers", "0", "--batch-size", "2"]
MODELS = {"demo": "crate_alpha_demo", "demo_crate": "crate_demo", "demo_vit": "vit_demo"}


@pytest.fixture
def folder(tmp_path):
    """Three pictures of different sizes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, hw in {"a": (40, 30), "b": (24, 24), "c": (20, 60)}.items():
        Image.fromarray(rng.integers(0, 256, (*hw, 3), np.uint8)).save(folder / f"{name}.png")
    return folder


def table_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_layers_writes_what_the_library_finds_for_several_models(folder, tmp_path, capsys):
    output = tmp_path / "out" / "figure.png"
    command = ["layers", str(folder), "--model", ",".join(MODELS), "--output", str(output)]
    assert main([*command, "--size", "24", *OPTIONS]) == 0
    rows = table_of(output.with_suffix(".csv"))
    assert len(rows) == 3 * 3 * 4
    for name, model_name in MODELS.items():
        model = load_backbone(name)
        observer = Observer(model, size=24)
        read = ("key", "neurons") if name == "demo_vit" else ("subspace", "codes")
        for picture in ("a.png", "b.png", "c.png"):
            rgb = read_image(folder / picture)
            activations = observer.activations([rgb], objective_sites(model), range(4))
            expected = layer_objective(model, activations)
            mine = [r for r in rows if (r["model"], r["image"]) == (model_name, picture)]
            assert [int(row["block"]) for row in mine] == [0, 1, 2, 3]
            for row, block in zip(mine, range(4), strict=True):
                assert (row["compressed"], row["counted"]) == read
                for quantity in ("coding_rate", "sparsity", "objective"):
                    values = getattr(expected, quantity)
                    if values is None:
                        assert row[quantity] == ""
                    else:
                        found = pytest.approx(float(values[0, block]), rel=1e-4)
                        assert float(row[quantity]) == found
    out = capsys.readouterr().out
    mean = np.mean([float(r["coding_rate"]) for r in rows[:12] if r["block"] == "3"])
    assert "crate_alpha_demo: coding_rate" in out
    assert f"{mean:.4g} in the last" in out
    for name, words in (("crate_alpha", "codes that are not"), ("vit", "neurons above")):
        mine = [r for r in rows if r["model"] == f"{name}_demo"]
        first, last = (
            100 - 100 * np.mean([float(r["sparsity"]) for r in mine if r["block"] == block])
            for block in "03"
        )
        pattern = rf"{name}_demo: {words} zero (.+) % in the first block, (.+) % in the last"
        printed = re.search(pattern, out)
        assert [float(number) for number in printed.groups()] == pytest.approx(
            [first, last], rel=1e-3
        )
    assert read_image(output).std() > 0
    assert output.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_layers_runs_each_model_at_its_own_size_and_one_image_has_no_deviation(folder, tmp_path):
    output = tmp_path / "figure.png"
    command = ["layers", str(folder / "a.png"), "--model", "demo,vit_T16", "--weights", "random"]
    assert main([*command, "--output", str(output), *OPTIONS]) == 0
    rows = table_of(output.with_suffix(".csv"))
    names = {"crate_alpha_demo (untrained)": 4, "vit_tiny_patch16_224 (untrained)": 12}
    for name, blocks in names.items():
        assert len([row for row in rows if row["model"] == name]) == blocks


def test_layers_goes_on_without_a_damaged_picture_and_says_so(folder, tmp_path, capsys):
    (folder / "b.png").write_bytes(b"no picture")
    output = tmp_path / "figure.png"
    command = ["layers", str(folder), "--model", "demo", "--output", str(output), "--size", "24"]
    assert main([*command, *OPTIONS]) == 1
    captured = capsys.readouterr()
    assert "b.png" in captured.err
    assert "figure.csv: 2 images" in captured.out
    assert {row["image"] for row in table_of(tmp_path / "figure.csv")} == {"a.png", "c.png"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "demo,demmo"], "unknown model 'demmo'; nearest names: demo"),
        (["--model", "demo,"], "expected names separated by commas, found 'demo,'"),
        (["--model", "demo,crate_alpha_demo"], "expected each model once, found crate_alpha_demo"),
        (["--model", "demo,resnet10t"], "is a ResNet; expected CRATE"),
        (["--model", "demo,./none.safetensors"], "none.safetensors: no such weight file"),
        (["--model", "demo,demo_vit", "--weights", "a.pth"], "go with one model only"),
        (["--size", "2"], "size 2: expected a multiple of the patch size 4"),
        (["--output", "figure.jpg"], "figure.jpg: expected a file name that ends in .png"),
    ],
)
def test_layers_refuses_before_it_writes(folder, capsys, monkeypatch, options, message):
    monkeypatch.chdir(folder)
    command = ["layers", ".", "--model", "demo", "--output", "figure.png", *OPTIONS, *options]
    assert main(command) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "b.png", "c.png"]


def test_layers_of_an_empty_folder_or_of_damaged_pictures_is_an_error(tmp_path, capsys):
    command = ["layers", str(tmp_path), "--model", "demo", "--output", str(tmp_path / "f.png")]
    assert main([*command, *OPTIONS]) == 2
    assert "expected image files" in capsys.readouterr().err
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert main([*command, *OPTIONS]) == 2
    assert "none of the 1 images could be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "read", "substitutes"),
    [
        ('{"step": "mlp"}', ("subspace", "neurons"), " (neurons above 0)"),
        ('{"attention": "mhsa"}', ("key", "codes"), " (keys)"),
        ('{"attention": "mhsa", "step": "mlp"}', ("key", "neurons"), " (keys; neurons above 0)"),
    ],
)
def test_layers_says_what_it_read_in_place_of_subspaces_and_codes(
    arguments, read, substitutes, folder, tmp_path, monkeypatch
):
    labels = []

    def keep(panels, *rest):
        labels.extend(curve.run for panel in panels for curve in panel.curves)
        return figure(panels, *rest)

    figure = visualization.draw_curves
    monkeypatch.setattr(visualization, "draw_curves", keep)
    output = tmp_path / "figure.png"
    command = ["layers", str(folder), "--model", "demo_crate", "--weights", "random", *OPTIONS]
    command += ["--size", "24", "--format", "png", "--output", str(output)]
    assert main([*command, "--model-args", arguments]) == 0
    assert set(labels) == {f"crate_demo (untrained){substitutes}"}
    rows = table_of(output.with_suffix(".csv"))
    assert {(row["compressed"], row["counted"]) for row in rows} == {read}


def test_layers_draws_non_zeros_and_explains_lambda(folder, tmp_path, monkeypatch):
    seen = {}

    def keep(panels, x_label, note, width):
        seen.update(panels={panel.title: panel.curves for panel in panels}, note=note)
        return figure(panels, x_label, note, width)

    figure = visualization.draw_curves
    monkeypatch.setattr(visualization, "draw_curves", keep)
    output = tmp_path / "figure.png"
    command = ["layers", str(folder), "--model", "demo", "--output", str(output)]
    assert main([*command, "--size", "24", "--format", "png", *OPTIONS]) == 0
    (title,) = (title for title in seen["panels"] if "Sparsity" in title)
    assert "non-zero" in title
    rows = table_of(output.with_suffix(".csv"))
    zeros = [
        np.mean([float(r["sparsity"]) for r in rows if r["block"] == str(b)]) for b in range(4)
    ]
    (curve,) = seen["panels"][title]
    np.testing.assert_allclose(curve.y[:, 0], 100 * (1 - np.array(zeros)), rtol=1e-6)
    assert "λ: what an entry costs" in seen["note"]
    assert "crate_alpha_demo 0.1" in seen["note"]
