"""The command `pca` from pictures to files."""

import numpy as np
import pytest
from PIL import Image

from crate_interp.analysis import joint_pca
from crate_interp.cli import main
from crate_interp.commands.pca import Pca
from crate_interp.data import read_image
from crate_interp.errors import InputError
from crate_interp.hooks import Observer
from crate_interp.weights import load_backbone

OPTIONS = ["--size", "24", "--workers", "0", "--batch-size", "2"]


@pytest.fixture
def folder(tmp_path):
    """Pictures of different proportions with a square each."""
    rng = np.random.default_rng(0)
    for name, hw in {"a": (40, 30), "b": (24, 24), "c": (20, 60)}.items():
        rgb = rng.integers(0, 60, (*hw, 3), np.uint8)
        rgb[5:15, 5:15] = rng.integers(150, 255, 3)
        Image.fromarray(rgb).save(tmp_path / f"{name}.png")
    return tmp_path


def numbers_of(path):
    with np.load(path) as file:
        return dict(file)


@pytest.mark.parametrize(
    ("model", "feature", "options"),
    [
        ("demo", "subspace", []),
        ("demo_vit", "key", ["--block", "1"]),
        ("demo_crate", "codes", ["--feature", "codes", "--foreground", "0.5"]),
        ("demo_vit", "neurons", ["--feature", "neurons", "--foreground", "none"]),
    ],
)
def test_pca_writes_what_the_library_finds(folder, tmp_path, capsys, model, feature, options):
    output = tmp_path / "out" / "figure.png"
    command = ["pca", str(folder), "--model", model, "--output", str(output), *OPTIONS, *options]
    assert main(command) == 0
    numbers = numbers_of(output.with_suffix(".npz"))
    assert list(numbers["file_names"]) == ["a.png", "b.png", "c.png"]
    observer = Observer(load_backbone(model), size=24)
    block = 1 if "--block" in options else -1
    features = []
    for name in numbers["file_names"]:
        found = observer.activations([read_image(folder / name)], [feature], [block])
        features.append(found.patch_features(feature, block)[0].T.numpy())
    foreground = {"0.5": 0.5, "none": "none"}.get(options[-1] if options else "", "auto")
    expected = joint_pca(features, (6, 6), foreground)
    np.testing.assert_allclose(numbers["grey"], expected.grey, atol=1e-4)
    np.testing.assert_array_equal(numbers["foreground"], expected.foreground)
    assert np.isnan(numbers["threshold"]) == (foreground == "none")
    assert f"{feature} of block {1 if block == 1 else 3}; 3 images" in capsys.readouterr().out
    assert read_image(output).std() > 0
    assert output.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_pca_by_block_writes_the_components_of_each(folder, tmp_path, capsys):
    output = tmp_path / "out" / "figure.png"
    command = ["pca", str(folder), "--model", "demo", "--by-block", "--output", str(output)]
    assert main([*command, *OPTIONS]) == 0
    numbers = np.load(output.with_suffix(".npz"))
    images = len(numbers["file_names"])
    assert numbers["grey"].shape == (images, 4, 6, 6)
    assert numbers["rgb"].shape == (images, 4, 6, 6, 3)
    one = tmp_path / "out" / "block.png"
    last = ["pca", str(folder), "--model", "demo", "--foreground", "none", "--output", str(one)]
    assert main([*last, *OPTIONS]) == 0
    expected = np.load(one.with_suffix(".npz"))
    np.testing.assert_array_equal(numbers["grey"][:, -1], expected["grey"])
    np.testing.assert_array_equal(numbers["rgb"][:, -1, ..., 0], expected["rgb"][..., 1])


@pytest.mark.parametrize("option", [("--block", "1"), ("--foreground", "0.5")])
def test_pca_by_block_refuses_what_it_does_not_heed(folder, tmp_path, option, capsys):
    command = ["pca", str(folder), "--model", "demo", "--by-block", *option, *OPTIONS]
    assert main([*command, "--output", str(tmp_path / "figure.png")]) == 2
    assert f"{option[0]}: has no effect with --by-block" in capsys.readouterr().err


def test_pca_twice_gives_the_same_bytes_and_leaves_no_other_file(folder, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for output in (first, second):
        command = ["pca", str(folder), "--model", "demo", "--output", str(output / "figure.png")]
        assert main([*command, *OPTIONS]) == 0
    names = sorted(path.name for path in first.iterdir())
    assert names == ["figure.npz", "figure.pdf", "figure.png"]
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_pca_draws_the_pictures_that_are_left_of_the_first_ones(folder, tmp_path, monkeypatch):
    (folder / "a.png").write_bytes(b"no picture")
    monkeypatch.setattr("crate_interp.commands.pca.SHOWN", 2)
    output = tmp_path / "out" / "figure.png"
    command = ["pca", str(folder), "--model", "demo", "--output", str(output), *OPTIONS]
    assert main(command) == 1
    assert list(numbers_of(output.with_suffix(".npz"))["file_names"]) == ["b.png", "c.png"]


def test_pca_goes_on_without_a_damaged_picture_and_says_so(folder, tmp_path, capsys):
    (folder / "b.png").write_bytes(b"no picture")
    output = tmp_path / "out" / "figure.png"
    command = ["pca", str(folder), "--model", "demo", "--output", str(output), *OPTIONS]
    assert main(command) == 1
    captured = capsys.readouterr()
    assert "b.png" in captured.err
    assert "2 of 2 images" in captured.out
    assert list(numbers_of(output.with_suffix(".npz"))["file_names"]) == ["a.png", "c.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--block", "7"], "block 7 is out of range: the model has blocks 0 to 3"),
        (["--feature", "neurons"], "no site neurons at block -1; it has query"),
        (["--model", "demmo"], "unknown model 'demmo'; nearest names: demo"),
        (["--size", "2"], "size 2: expected a multiple of the patch size 4"),
        (["--output", "figure.pdf"], "figure.pdf: expected a file name that ends in .png"),
        (["--foreground", "1.5"], "foreground: expected auto, none or 0 <= T < 1, found 1.5"),
    ],
)
def test_pca_refuses_before_it_writes(folder, capsys, monkeypatch, options, message):
    monkeypatch.chdir(folder)
    command = ["pca", ".", "--model", "demo", "--output", "figure.png", *OPTIONS, *options]
    assert main(command) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "b.png", "c.png"]


def test_pca_of_an_empty_folder_or_of_damaged_pictures_is_an_error(tmp_path, capsys):
    command = ["pca", str(tmp_path), "--model", "demo", "--output", str(tmp_path / "figure.png")]
    assert main([*command, *OPTIONS]) == 2
    assert "expected image files" in capsys.readouterr().err
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert main([*command, *OPTIONS]) == 2
    assert "none of the 1 images could be read" in capsys.readouterr().err
    with pytest.raises(InputError, match="foreground"):
        Pca(images=[tmp_path], model="demo", output=tmp_path / "a.png", foreground=-1.0)


def test_pca_of_a_picture_smaller_than_a_patch_names_it(tmp_path, capsys):
    Image.fromarray(np.array([[[200, 0, 0], [0, 0, 90]]], np.uint8)).save(tmp_path / "a.png")
    output = str(tmp_path / "figure.png")
    command = ["pca", str(tmp_path / "a.png"), "--model", "demo", "--output", output]
    assert main([*command, *OPTIONS]) == 2
    assert "a.png: 1 x 2 pixels (height, width) are smaller than a patch" in capsys.readouterr().err


def test_pca_whose_shown_images_are_all_damaged_says_so(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("crate_interp.commands.pca.SHOWN", 1)
    (folder / "a.png").write_bytes(b"no picture")
    output = tmp_path / "out" / "figure.png"
    command = ["pca", str(folder), "--model", "demo", "--output", str(output), *OPTIONS]
    assert main(command) == 2
    assert "the first 1 images, which the figure shows, all failed" in capsys.readouterr().err
