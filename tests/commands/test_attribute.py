"""The command `attribute`, against the functions that it draws."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crate_interp import Observer, any_resolution, load_backbone, record
from crate_interp.analysis import attention_relevance
from crate_interp.cli import main
from crate_interp.commands import attribute
from crate_interp.commands.attribute import Attribute
from crate_interp.data import draw_scene, read_image
from crate_interp.runs.class_names import class_names_of, name_class

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, hw in {"a": (48, 64), "b": (30, 30)}.items():
        picture = draw_scene(np.random.default_rng(5), hw).image
        Image.fromarray(picture).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize("model_name", ["demo_crate", "demo_vit"])
def test_maps_are_those_of_the_class(folder, tmp_path, model_name, capsys):
    pytest.importorskip("captum", reason="needs the extra attribution")
    output = tmp_path / "new" / "figure.png"
    (folder / "c.png").write_bytes(b"no image")
    command = ["attribute", str(folder), "--model", model_name, "--output", str(output)]
    options = ["--size", "24", "--stride", "2", "--class", "3", "--steps", "8"]
    assert main([*command, *options, "--workers", "0", "--device", "cpu"]) == 1
    assert "c.png" in capsys.readouterr().err
    with Image.open(output) as figure:
        assert figure.width > 900
    assert output.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    with np.load(output.with_suffix(".npz")) as numbers:
        arrays = dict(numbers)
    assert arrays["file_names"].tolist() == ["a.png", "b.png"]
    assert arrays["classes"].tolist() == [3, 3]
    model = load_backbone(model_name)
    pixels = Observer(model, 24).pixels([read_image(folder / "a.png")])
    with any_resolution(model, 2):
        with torch.no_grad(), record(model, "cls_attention") as recorder:
            scores = model(pixels)
        relevance = attention_relevance(model, pixels, torch.tensor([3]))
    attention = recorder.activations["cls_attention", -1][0, :, 1:].mean(dim=0)
    np.testing.assert_allclose(arrays["attention"][0].ravel(), attention, rtol=1e-4)
    np.testing.assert_allclose(arrays["relevance"][0].ravel(), relevance[0], rtol=1e-3, atol=1e-7)
    assert arrays["relevance"].shape == (2, 11, 11)
    assert arrays["integrated_gradients"].shape == (2, 24, 24)
    assert arrays["probabilities"][0] == pytest.approx(float(scores.softmax(1)[0, 3]), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "demo", "--class", "8"], "class 8: expected 0 to 7"),
        (["--model", "demo", "--steps", "0"], "steps: expected at least 1"),
        (["--model", "demo", "--precision", "float16"], "computed in float32, found float16"),
        (["--model", "demo", "--size", "3"], "size 3: expected a multiple of the patch size 4"),
        (
            ["--model", "crate_mae_S16", "--weights", "random", "--model-args", '{"depth": 1}'],
            "gives no class scores",
        ),
        (
            [
                "--model",
                "vit_demo",
                "--weights",
                "random",
                "--model-args",
                '{"class_token": false, "global_pool": "avg"}',
            ],
            "no class token",
        ),
    ],
)
def test_wrong_options_are_refused(folder, tmp_path, options, message, capsys):
    pytest.importorskip("captum", reason="needs the extra attribution")
    output = tmp_path / "figure.png"
    command = ["attribute", str(folder), "--workers", "0", "--output", str(output)]
    assert main([*command, *options]) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_an_empty_folder_and_another_kind_of_figure_are_refused(tmp_path, capsys):
    pytest.importorskip("captum", reason="needs the extra attribution")
    command = ["attribute", str(tmp_path), "--model", "demo", "--output"]
    assert main([*command, str(tmp_path / "a.png")]) == 2
    assert "found none" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "a.jpg")]) == 2
    assert "ends in .png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (["--model", "demo"], ["striped ball", "checkered block"]),
        (["--model", "demo", "--weights", "random"], None),
    ],
)
def test_classes_are_called_by_the_names_in_the_weights(model, expected):
    weights = Path(model[3]) if len(model) > 2 else None
    config = Attribute(model=model[1], weights=weights, images=[], output=Path("a.png"))
    found = class_names_of(config, 8)
    assert (found and found[:2]) == expected
    assert name_class(1, found) == ("checkered block (class 1)" if expected else "class 1")


def test_a_thousand_classes_are_those_of_imagenet(tmp_path):
    file = tmp_path / "weights.npz"
    file.write_bytes(b"another layout")
    config = Attribute(model="vit_T16", weights=file, images=[], output=Path("a.png"))
    assert name_class(0, class_names_of(config, 1000)) == "tench (class 0)"
    assert class_names_of(config, 77) is None


def test_figure_has_images_in_their_own_proportions_and_names(folder, tmp_path, monkeypatch):
    seen = {}

    def keep(pictures, maps, names, note, width):
        seen.update(pictures=pictures, maps=maps, names=names, note=note)
        return figure(pictures, maps, names, note, width)

    figure = attribute.visualization.attribution_figure
    monkeypatch.setattr(attribute.visualization, "attribution_figure", keep)
    command = ["attribute", str(folder), "--model", "demo", "--size", "24", "--steps", "2"]
    options = ["--workers", "0", "--device", "cpu", "--output", str(tmp_path / "f.png")]
    assert main([*command, *options]) == 0
    for number, name in enumerate("ab"):
        rgb = read_image(folder / f"{name}.png")
        np.testing.assert_array_equal(seen["pictures"][number], rgb)
        assert all(of_kind[number].shape == rgb.shape[:2] for of_kind in seen["maps"].values())
        assert seen["names"][number].startswith(f"{name}.png: ")
        assert "(class " in seen["names"][number]
    assert "crate_alpha_demo" in seen["note"]
