"""The command `reconstruct`, with the reference model of CRATE-MAE."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import crate_interp.visualization as visualization
from crate_interp.cli import main
from crate_interp.models.masking import draw_mask
from crate_interp.weights import load_mae

NAME = "crate_mae_d48_l2_h3_p8_i32.pth"
SIZES = {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 8, "img_size": 32}
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture
def photos(tmp_path):
    """Two pictures in a folder: one of the model's size, one that is wider than high."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, (height, width) in {"a": (32, 32), "b": (48, 80)}.items():
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def model_options(reference):
    sizes = json.dumps(SIZES)
    return ["--model", "crate_mae_B16", "--weights", str(reference / NAME), "--model-args", sizes]


@pytest.fixture
def drawn(monkeypatch):
    """What the command hands to the figure."""
    seen = {}

    def keep(originals, hidden, predictions, note, *options):
        seen.update(originals=originals, hidden=hidden, predictions=predictions, note=note)
        return figure(originals, hidden, predictions, note, *options)

    figure = visualization.reconstruction_figure
    monkeypatch.setattr(visualization, "reconstruction_figure", keep)
    return seen


def test_figure_shows_what_the_model_predicts(photos, model_options, reference, tmp_path, drawn):
    output = tmp_path / "new" / "figure.png"
    assert main(["reconstruct", str(photos), *model_options, "--output", str(output)]) == 0
    with Image.open(output) as image:
        assert image.width > 700
    assert output.with_suffix(".pdf").read_bytes().startswith(b"%PDF")

    rgb = np.array(Image.open(photos / "a.png"))
    generator = torch.Generator().manual_seed(0)
    mask = draw_mask(16, 0.75, generator)
    pixels = torch.from_numpy((rgb / 255 - MEAN) / STD).float().permute(2, 0, 1)[None]
    with torch.no_grad():
        predicted = load_mae("crate_mae_B16", reference / NAME, **SIZES).reconstruct(
            pixels, mask[None]
        )
    expected = 255 * (predicted[0].permute(1, 2, 0).numpy() * STD + MEAN)
    assert (drawn["originals"][0] == rgb).all()
    assert np.abs(drawn["predictions"][0] - expected.clip(0, 255)).max() <= 0.51
    for row, column in np.ndindex(32, 32):
        assert drawn["hidden"][0][row, column] == mask[row // 8 * 4 + column // 8]
    assert [len(drawn[key]) for key in ("originals", "hidden", "predictions")] == [2, 2, 2]
    assert (drawn["hidden"][0] != drawn["hidden"][1]).any()
    assert "image's own" not in drawn["note"]


def test_built_in_set_is_named(model_options, tmp_path, drawn, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["reconstruct", "photos", *model_options, "--output", "figure.png"]) == 0
    assert "15 images" in capsys.readouterr().out
    assert len(drawn["originals"]) == 15


def test_middle_square_is_taken_and_size_is_free(photos, model_options, tmp_path, drawn, capsys):
    output = str(tmp_path / "figure.png")
    options = ["--size", "48", "--mask-ratio", "0.5", "--normalised-target", "yes"]
    command = ["reconstruct", str(photos / "b.png"), *model_options, "--output", output]
    assert main([*command, *options]) == 0
    rgb = np.array(Image.open(photos / "b.png"))
    assert (drawn["originals"][0] == rgb[:, 16:64]).all()
    assert drawn["hidden"][0].mean() == 0.5
    assert "Mean and deviation of a hidden patch are the image's own" in drawn["note"]
    assert "1 image, 18 of 36 patches hidden, PSNR" in capsys.readouterr().out


def test_same_seed_gives_the_same_figure(photos, model_options, tmp_path):
    pictures = []
    for name, seed in (("one", "0"), ("two", "0"), ("three", "1")):
        output = tmp_path / f"{name}.png"
        options = ["--output", str(output), "--seed", seed]
        assert main(["reconstruct", str(photos), *model_options, *options]) == 0
        pictures.append((output.read_bytes(), output.with_suffix(".pdf").read_bytes()))
    assert pictures[0] == pictures[1]
    assert pictures[0][0] != pictures[2][0]


def unreadable(photos):
    (photos / "b.png").write_bytes(b"no picture")


def tiny(photos):
    Image.new("RGB", (7, 90)).save(photos / "c.png")


def empty(photos):
    for path in photos.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (unreadable, [], "b.png: cannot be read"),
        (empty, [], "photos: expected image files"),
        (tiny, [], "c.png: 90 x 7 pixels (height, width) are smaller than a patch of 8 x 8"),
        (None, ["--output", "figure.jpg"], "figure.jpg: expected a file name that ends in .png"),
        (None, ["--size", "30"], "size: expected a multiple of the patch of 8 pixels, found 30"),
        (None, ["--mask-ratio", "0"], "mask_ratio: expected between 0 and 1, found 0"),
        (None, ["--mask-ratio", "1"], "mask_ratio: expected between 0 and 1, found 1"),
        (None, ["--mask-ratio", "0.01"], "hides some of 16 patches and not all, found 0.01"),
        (None, ["--model", "demo"], "is a CrateAlpha; expected a CRATE-MAE"),
        (None, ["--weights", "none.pth"], "none.pth: no such weight file"),
    ],
)
def test_wrong_input_is_named(
    photos, model_options, tmp_path, capsys, monkeypatch, spoil, options, message
):
    monkeypatch.chdir(tmp_path)
    if spoil:
        spoil(photos)
    if "demo" in options:
        model_options = []
    command = ["reconstruct", str(photos), *model_options, "--output", "figure.png", *options]
    assert main(command) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "figure.png").exists()


def test_wrong_weights_are_named(photos, reference, tmp_path, capsys):
    command = ["reconstruct", str(photos), "--output", str(tmp_path / "figure.png")]
    assert main(command) == 2
    assert "give --model NAME, --weights FILE, or both" in capsys.readouterr().err
    other = reference / "crate_d48_l2_h3_p8_i32_c10.pth.tar"
    sizes = json.dumps(SIZES)
    options = ["--model", "crate_mae_B16", "--weights", str(other), "--model-args", sizes]
    assert main([*command, *options]) == 2
    assert "crate_d48_l2_h3_p8_i32_c10.pth.tar" in capsys.readouterr().err
    assert main([*command, "--weights", str(reference / NAME)]) == 2
    assert f"{NAME}: does not say which model it is" in capsys.readouterr().err
