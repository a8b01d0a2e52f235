"""Accuracy with the labels of ImageNet-ReaL: several right classes, images without one."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from crate_interp.cli import main

CLASSES = ("n01", "n02", "n03", "n04")
SIZES = {"embed_dim": 32, "depth": 1, "num_heads": 2, "num_classes": 4, "img_size": 32}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`val/CLASS/ILSVRC2012_val_NUMBER.png`, eight pictures of one colour each."""
    root, rng = tmp_path_factory.mktemp("imagenet"), np.random.default_rng(0)
    for number in range(1, 9):
        path = root / "val" / CLASSES[number % 4] / f"ILSVRC2012_val_{number:08}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), tuple(map(int, rng.integers(0, 256, 3)))).save(path)
    return root


@pytest.fixture
def run(folder, tmp_path):
    """Score by some labels; give the exit code and the result."""

    def run(labels, *more, data=folder):
        path, output = tmp_path / "real.json", tmp_path / "accuracy.json"
        path.write_text(labels if isinstance(labels, str) else json.dumps(labels))
        torch.manual_seed(0)
        options = ["--model", "crate_alpha_demo", "--weights", "random", "--data", str(data)]
        sizes = ["--model-args", json.dumps(SIZES), "--batch-size", "3", "--workers", "0"]
        command = ["evaluate-classifier", *options, *sizes, "--device", "cpu"]
        code = main([*command, "--real", str(path), "--output", str(output), *more])
        return code, json.loads(output.read_text()) if output.exists() else None

    return run


def test_any_class_of_an_images_list_is_right_and_images_without_are_left_out(run):
    own = [[number % 4] for number in range(1, 9)]
    _, alone = run(own)
    assert run([[0, 1, 2, 3]] * 8)[1]["top1"] == 1
    right_by_class = [run([[label]] * 8)[1]["top1"] for label in range(4)]
    assert sum(right_by_class) == pytest.approx(1)
    pair = run([[0, 1]] * 8)[1]
    assert pair["top1"] == pytest.approx(right_by_class[0] + right_by_class[1])
    # The first two images alone have a class: by their numbers, whatever folder they are in.
    some = run([[0, 1, 2, 3], [], [2], *[[]] * 5])[1]
    assert some["count"] == 2
    assert some["settings"]["real"] != alone["settings"]["real"]
    assert some["real"]["file"] == "real.json"
    assert run([[0, 1, 2, 3]] * 8, "--limit", "3")[1]["count"] == 3


def test_without_the_option_the_result_does_not_mention_it(folder, tmp_path):
    output = tmp_path / "accuracy.json"
    options = ["--weights", "random", "--model-args", json.dumps(SIZES), "--workers", "0"]
    command = ["evaluate-classifier", "--model", "crate_alpha_demo", "--data", str(folder)]
    assert main([*command, *options, "--output", str(output)]) == 0
    assert "real" not in output.read_text()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("[]", "expected a list of classes for each image, found none"),
        ("", "not a JSON file"),
        ('{"0": [1]}', "expected array, found object"),
        ("[[1], [4]]", "list 2: expected classes 0 to 3, found 4"),
        ("[[], [], [], [], [], [], [], []]", "expected an image that has a class, found none"),
        ("[[1], [1]]", "expected images ILSVRC2012_val_00000001 to ILSVRC2012_val_00000002"),
    ],
)
def test_malformed_and_empty_files_are_refused_by_name(run, labels, words, capsys):
    code, result = run(labels)
    message = capsys.readouterr().err
    assert (code, result) == (2, None)
    assert words in message
    assert "real.json" in message


def test_images_of_other_names_are_refused(run, tmp_path, capsys):
    for name in CLASSES:
        (tmp_path / "other/val" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "other/val" / name / "1.png")
    assert run([[1]] * 8, data=tmp_path / "other")[0] == 2
    assert "other/val/n01/1.png" in capsys.readouterr().err.replace("\\", "/")
