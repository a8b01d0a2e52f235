"""`subspaces` and `tokens`: their files against what the model itself gives."""

import csv

import numpy as np
import pytest
from PIL import Image

from crate_interp import load_backbone, record
from crate_interp.analysis import subspace_coherence
from crate_interp.cli import main
from crate_interp.data import draw_scene, preprocess


def test_the_table_of_subspaces_has_every_block(tmp_path, capsys):
    figure = tmp_path / "subspaces.png"
    assert main(["subspaces", "--model", "demo", "--output", str(figure)]) == 0
    rows = list(csv.DictReader(figure.with_suffix(".csv").read_text().splitlines()))
    measured = subspace_coherence(load_backbone("demo"))
    assert [float(row["between_heads"]) for row in rows] == [one.between for one in measured]
    assert [float(row["within_heads"]) for row in rows] == [one.within for one in measured]
    assert f"{measured[3].between:.3f}" in capsys.readouterr().out
    with Image.open(figure) as drawn:
        assert drawn.size[0] > 400


def test_a_vit_is_refused_by_subspaces(tmp_path, capsys):
    assert main(["subspaces", "--model", "demo_vit", "--output", str(tmp_path / "x.png")]) == 2
    assert "expected subspaces" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_tokens_are_those_of_the_model(tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    scene = draw_scene(np.random.default_rng(5), (32, 32)).image
    Image.fromarray(scene).save(folder / "a.png")
    figure = tmp_path / "tokens.png"
    command = ["tokens", str(folder), "--model", "demo_crate", "--size", "32", "--workers", "0"]
    assert (
        main([*command, "--device", "cpu", "--precision", "float32", "--output", str(figure)]) == 0
    )
    model = load_backbone("demo_crate")
    mean, std = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
    with record(model, sites=["tokens"], blocks=range(4)) as recorder:
        model(preprocess(scene, (32, 32), mean, std)[None])
    expected = [recorder.activations["tokens", n][0].abs().mean(dim=0).numpy() for n in range(4)]
    numbers = np.load(figure.with_suffix(".npz"))
    np.testing.assert_allclose(numbers["mean_magnitude"][0], expected, rtol=0, atol=1e-5)
    assert numbers["file_names"].tolist() == ["a.png"]
    assert "channels that no token of an image uses" in capsys.readouterr().out


def test_an_empty_folder_is_refused_by_tokens(tmp_path, capsys):
    (tmp_path / "none").mkdir()
    command = [
        "tokens",
        str(tmp_path / "none"),
        "--model",
        "demo",
        "--output",
        str(tmp_path / "x.png"),
    ]
    assert main(command) == 2
    assert "expected image files" in capsys.readouterr().err


@pytest.mark.parametrize("noise", [0.1, 0.4])
def test_noise_follows_from_the_image_and_has_the_deviation_asked_for(noise):
    rgb = np.full((64, 48, 3), 128, np.uint8)
    rgb[:32] = 30
    arguments = rgb, (64, 48), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    scale = np.reshape(arguments[3], (3, 1, 1))
    plain, noisy, again = (preprocess(*arguments, value).numpy() for value in (None, noise, noise))
    assert (noisy == again).all()
    added = (noisy - plain) * scale
    assert float(added.std()) == pytest.approx(noise, rel=0.03)
    assert abs(float(added.mean())) < 0.05 * noise
    assert (preprocess(*arguments, 0.0).numpy() == plain).all()
    twice = (preprocess(*arguments, 2 * noise).numpy() - plain) * scale
    np.testing.assert_allclose(twice, 2 * added, atol=1e-6)
    other = preprocess(rgb + 1, *arguments[1:], noise) - preprocess(rgb + 1, *arguments[1:])
    assert not np.allclose(other.numpy(), noisy - plain)


def test_noise_changes_the_maps_and_is_named(tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(draw_scene(np.random.default_rng(5), (32, 32)).image).save(folder / "a.png")
    maps = []
    for noise in ([], ["--noise", "0.3"]):
        output = tmp_path / f"heads{len(noise)}"
        command = ["attention", str(folder), "--model", "demo", "--size", "32", "--workers", "0"]
        assert main([*command, *noise, "--device", "cpu", "--output", str(output)]) == 0
        maps.append(np.load(output / "a.npz")["maps"])
    assert not np.allclose(*maps, atol=1e-4)
    assert (
        main(["attention", str(folder), "--model", "demo", "--noise", "-1", "--output", "x"]) == 2
    )
    assert "noise: expected 0 or more, found -1" in capsys.readouterr().err
