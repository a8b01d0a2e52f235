"""What all commands that draw have in common: formats, resolution, fonts."""

from dataclasses import fields

import numpy as np
import pytest
from PIL import Image

from crate_interp.cli import COMMANDS, main
from crate_interp.data import draw_scene
from crate_interp.runs.options import FigureOptions

DRAWING = {
    *(
        "maskcut",
        "segment",
        "attention",
        "reconstruct",
        "pca",
        "features",
        "layers",
        "subspaces",
        "tokens",
        "side-by-side",
        "curves",
        "ablate",
        "attribute",
    ),
    *("atlas", "atoms", "benchmark voc2012", "benchmark semantic", "benchmark saliency"),
    "benchmark classification",
}


def kind_of(command):
    kind = COMMANDS[command].load()
    return kind.kind_for([]) if hasattr(kind, "kind_for") else kind


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, hw in (("a", (40, 64)), ("b", (64, 40))):
        scene = draw_scene(np.random.default_rng(5), hw).image
        Image.fromarray(scene).save(folder / f"{name}.png")
    return folder


def pca(photos, output, *options):
    command = ["pca", str(photos), "--model", "demo", "--size", "24", "--workers", "0"]
    return main([*command, "--device", "cpu", "--output", str(output / "figure.png"), *options])


def maskcut(photos, output, *options):
    command = ["maskcut", "--images", str(photos), "--model", "demo", "--size", "24"]
    return main([*command, "--device", "cpu", "--output", str(output), *options])


def test_every_command_that_draws_has_the_options_of_figures():
    having = {name for name in COMMANDS if issubclass(kind_of(name), FigureOptions)}
    assert having == DRAWING


@pytest.mark.parametrize(
    ("formats", "expected"),
    [((), {"png", "pdf"}), (("svg",), {"svg"}), (("pdf", "png", "svg"), {"pdf", "png", "svg"})],
)
def test_formats_that_were_asked_for_are_written(photos, tmp_path, formats, expected, capsys):
    options = ["--format", *formats] if formats else []
    assert pca(photos, tmp_path / "out", *options) == 0
    found = {path.suffix[1:] for path in (tmp_path / "out").iterdir()}
    assert found == expected | {"npz"}
    said = capsys.readouterr().out
    assert all(f"figure.{suffix}" in said for suffix in expected)


def test_dpi_decides_the_pixels(photos, tmp_path):
    sizes = []
    for dpi in (50, 100):
        assert pca(photos, tmp_path, "--dpi", str(dpi)) == 0
        with Image.open(tmp_path / "figure.png") as figure:
            sizes.append(figure.width)
    assert sizes[1] == pytest.approx(2 * sizes[0], abs=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dpi", "0"], "dpi: expected at least 20, found 0"),
        (["--dpi", "100000"], "dpi: expected a number of at most 2400, found 100000"),
    ],
)
def test_wrong_options_are_refused(photos, tmp_path, options, message, capsys):
    assert pca(photos, tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_options_of_figures_may_change_when_a_run_goes_on(photos, tmp_path):
    assert maskcut(photos, tmp_path / "run", "--format", "png") == 0
    assert not (tmp_path / "run" / "images" / "sheet.pdf").exists()
    assert maskcut(photos, tmp_path / "run", "--format", "pdf", "svg", "--dpi", "90") == 0
    assert (tmp_path / "run" / "images" / "sheet.pdf").read_bytes().startswith(b"%PDF")
    assert b"<svg" in (tmp_path / "run" / "images" / "sheet.svg").read_bytes()


def test_width_is_that_of_a_column(photos, tmp_path, capsys):
    for width, inches in (("one-column", 3.35), ("two-columns", 6.9), ("5.5", 5.5)):
        options = ["--width", width, "--format", "png", "--dpi", "100"]
        assert pca(photos, tmp_path, *options) == 0
        with Image.open(tmp_path / "figure.png") as figure:
            assert figure.width == pytest.approx(100 * inches, abs=1)
    assert pca(photos, tmp_path, "--width", "1") == 2
    assert "width: expected at least 2.5" in capsys.readouterr().err


def test_commands_say_image_and_not_picture():
    for command in COMMANDS:
        kind = kind_of(command)
        texts = [kind.__doc__, *(field.metadata["help"] for field in fields(kind))]
        assert not [text for text in texts if "picture" in text.lower()], command
