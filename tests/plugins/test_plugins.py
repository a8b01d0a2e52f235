"""The page of plug-ins: every example on it is made a package, installed, and run."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
SOURCES = re.findall(r"```python\n(.*?)```", PAGE, re.S)
ENTRIES = {  # group, entry point, and what its source on the page defines
    "segmenters": ("norm", "NormSegmenter"),
    "commands": ("lengths", "Lengths"),
    "layouts": ("layers", "LAYOUT"),
    "exports": ("boxes", "BoxLines"),
    "datasets": ("beside", "DATASET"),
}
SIZE = ["--size", "24", "--workers", "0"]


def wheel_of(folder, group, name, source, value):
    """Write a wheel of one file, as a build of the page's pyproject.toml would."""
    package = f"crate_interp_{name}"
    path = folder / f"{package}-0.1-py3-none-any.whl"
    about = f"{package}-0.1.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{package}.py", source)
        wheel.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1\n"
        )
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        entry = f"[crate_interp.{group}]\n{name} = {package}:{value}\n"
        wheel.writestr(f"{about}/entry_points.txt", entry)
        wheel.writestr(f"{about}/RECORD", "")
    return path


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that pip has installed the five packages of the page into."""
    folder = tmp_path_factory.mktemp("plugins")
    wheels = []
    for group, (name, value) in ENTRIES.items():
        (source,) = [s for s in SOURCES if re.search(rf"^(class )?{value}\b", s, re.M)]
        wheels.append(wheel_of(folder, group, name, source, value))
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--target", folder / "site", *wheels], check=True, capture_output=True)
    return folder / "site"


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        rgb = rng.integers(0, 60, (30, 40, 3), np.uint8)
        rgb[5:20, 5:20] = 200
        Image.fromarray(rgb).save(folder / f"{name}.jpg")
        Image.fromarray((rgb[..., 0] > 150).astype(np.uint8)).save(folder / f"{name}.png")
    return folder


def run(site, *arguments, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "crate_interp", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": f"{site}{os.pathsep}{Path(__file__).parents[2]}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


def test_a_segmenter_is_listed_with_its_options_and_finds_masks(installed, pictures, tmp_path):
    listed = run(installed, "segment", "--method", "norm", "--help").stdout
    assert "--share" in listed
    assert "norm" in run(installed, "segment", "--help").stdout
    output = tmp_path / "run"
    given = ["--images", pictures / "a.jpg", "--model", "demo", "--output", output, *SIZE]
    run(installed, "segment", "--method", "norm", "--share", "0.25", *given)
    results = json.loads((output / "results.json").read_text())
    assert len(results) == 1
    assert 0 < results[0]["score"] <= 1
    settings = json.loads((output / "settings.json").read_text())
    assert (settings["method"], settings["share"]) == ("norm", 0.25)


def test_a_command_is_listed_and_runs_in_the_frame(installed, pictures, tmp_path):
    assert "Measure the mean length" in run(installed, "--help").stdout
    output = tmp_path / "out"
    images = [pictures / "a.jpg", pictures / "b.jpg"]
    run(installed, "lengths", *images, "--model", "demo", "--output", output, *SIZE)
    assert len((output / "lengths.csv").read_text().splitlines()) == 3
    assert json.loads((output / "lengths.json").read_text())["weights"]["sha256"]


def test_a_layout_loads(installed, pictures, tmp_path):
    sizes = {"img_size": 32, "embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 4}
    model = timm.create_model("vit_tiny_patch16_224", **sizes)
    tensors = {key.replace("blocks.", "layer."): value for key, value in model.state_dict().items()}
    save_file(tensors, tmp_path / "layers.safetensors")
    given = ["--weights", tmp_path / "layers.safetensors", "--model-args", json.dumps(sizes)]
    output = tmp_path / "out.safetensors"
    command = ["convert", tmp_path / "layers.safetensors", output, "--model", "vit_T16"]
    run(installed, *command, *given[2:])
    assert output.stat().st_size > 1000


def test_an_export_format_writes_its_files(installed, pictures, tmp_path):
    output = tmp_path / "run"
    given = ["--images", pictures / "a.jpg", "--model", "demo", "--output", output, *SIZE]
    run(installed, "maskcut", *given, "--export", "boxes", "coco", "--visualize", "0")
    boxes = (output / "boxes" / "1.txt").read_text().splitlines()
    assert len(boxes) == len(json.loads((output / "results.json").read_text()))
    assert (output / "annotations.json").is_file()


def test_a_labelled_data_set_is_recognised(installed, pictures, tmp_path):
    (pictures / "CLASSES").write_text("background thing other")
    output = tmp_path / "run"
    run(installed, "benchmark", "voc2012", pictures, "--model", "demo", "--output", output, *SIZE)
    assert json.loads((output / "summary.json").read_text())["images"] == 2


@pytest.mark.parametrize(
    ("group", "source", "arguments", "message"),
    [
        ("segmenters", "import nothing_of_this_name", ["segment", "--method", "bad"], "cannot be"),
        (
            "segmenters",
            "THING = 3",
            ["segment", "--method", "bad"],
            "expected a Segmenter, found 3",
        ),
        ("commands", "THING = str", ["bad"], "expected a Command"),
        ("commands", "THING = (", ["bad"], "cannot be imported"),
        ("exports", "THING = 3", ["maskcut", "--export", "bad"], "expected a Export"),
    ],
)
def test_a_broken_package_is_named_in_one_line(tmp_path, group, source, arguments, message):
    wheel = wheel_of(tmp_path, group, "bad", source, "THING")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    options = ["--images", "x.png", "--model", "demo"] if arguments[0] != "bad" else []
    done = run(tmp_path / "site", *arguments, *options, code=2)
    (line,) = done.stderr.splitlines()
    assert "crate_interp_bad" in line
    assert message in line
    assert "bad" in run(tmp_path / "site", "segment", "--help").stdout or group != "segmenters"
    run(tmp_path / "site", "--help")  # a broken package spoils nothing else


@pytest.mark.parametrize(("group", "name"), [("segmenters", "maskcut"), ("commands", "pca")])
def test_a_name_that_is_taken_stays_ours_and_is_told_of(tmp_path, group, name):
    with zipfile.ZipFile(wheel_of(tmp_path, group, name, "THING = 3", "THING")) as archive:
        archive.extractall(tmp_path / "site")
    done = run(tmp_path / "site", "segment", "--help")
    assert f"crate_interp.{group} {name} of crate_interp_{name} is not used" in done.stderr


def test_a_command_with_plain_fields_and_no_group_runs(tmp_path):
    source = """
from dataclasses import dataclass

from crate_interp.runs import Command


@dataclass(frozen=True, kw_only=True)
class THING(Command):
    \"\"\"Say a word.\"\"\"

    word: str = "hello"

    def run(self):
        print(self.word)
        return 0
"""
    wheel = wheel_of(tmp_path, "commands", "bad", source, "THING")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    assert "Say a word." in run(tmp_path / "site", "--help").stdout
    assert "--word" in run(tmp_path / "site", "bad", "--help").stdout
    assert run(tmp_path / "site", "bad", "--word", "bye").stdout == "bye\n"
