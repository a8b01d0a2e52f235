"""The pass over images that commands share."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from crate_interp import InputError
from crate_interp.data import read_image
from crate_interp.options import option
from crate_interp.runs.command import ImageFilesCommand, Reading
from crate_interp.runs.inference import load_observer, open_pictures
from crate_interp.runs.options import ImageOptions
from crate_interp.runs.outputs import Arrays, Conclusion


@dataclass(frozen=True, kw_only=True)
class Codes(ImageFilesCommand):
    """Keep the sizes and the codes of images."""

    group: ClassVar[str] = "look inside"
    run_folder: ClassVar[bool] = True

    output: Path = option("run folder", presentation=True)

    def reading(self, run):
        return Reading(["codes"], [-1])

    def measure(self, run, image, output):
        hw = np.array(image.geometry.original_hw)
        return {"hw": hw, "codes": output["codes", -1].numpy()}

    def conclude(self, run):
        keys = ("hw", "codes")
        return Conclusion(
            [Arrays(entry["file_name"], {key: entry[key] for key in keys}) for entry in run.entries]
        )


@pytest.fixture
def folder(tmp_path):
    """Three pictures of different sizes, the second of them damaged."""
    rng = np.random.default_rng(0)
    for name, hw in {"a": (40, 30), "b": (24, 24), "c": (20, 60)}.items():
        Image.fromarray(rng.integers(0, 256, (*hw, 3), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:200])
    return tmp_path


def options_of(images, **options):
    return ImageOptions(images=[images], model="demo", size=24, workers=0, **options)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_image_is_observed_or_named(folder, batch_size, capsys):
    output = folder / "run"
    common = {"model": "demo", "size": 24, "workers": 0, "batch_size": batch_size}
    command = Codes(images=[folder], output=output, **common)
    assert command.run() == 1
    (failed,) = json.loads((output / "summary.json").read_text())["failed"]
    assert "b.png" in failed["reason"]
    assert "b.png" in capsys.readouterr().err
    assert sorted(path.name for path in output.glob("*.npz")) == ["a.png.npz", "c.png.npz"]
    observer = load_observer(command)
    for name, hw in (("a.png", (40, 30)), ("c.png", (20, 60))):
        with np.load(output / f"{name}.npz") as arrays:
            assert tuple(arrays["hw"]) == hw
            codes = torch.from_numpy(arrays["codes"])
        alone = observer.activations([read_image(folder / name)], ["codes"], [-1])
        torch.testing.assert_close(codes, alone["codes", -1])


def test_demo_names_the_scenes_unless_there_is_such_a_folder(folder, monkeypatch):
    @dataclass
    class Opened:
        records: tuple

    monkeypatch.setattr("crate_interp.runs.inference.open_coco", lambda _: Opened((1, 2, 3)))
    monkeypatch.chdir(folder)
    assert open_pictures(options_of(Path("demo"), limit=2)).records == (1, 2)
    (folder / "demo").mkdir()
    (folder / "a.png").rename(folder / "demo" / "a.png")
    assert len(open_pictures(options_of(Path("demo"))).records) == 1


def test_empty_folder_and_bad_options_are_errors(tmp_path):
    with pytest.raises(InputError, match="expected image files"):
        open_pictures(options_of(tmp_path))
    with pytest.raises(InputError, match="size: expected at least 1, found 0"):
        ImageOptions(images=[tmp_path], model="demo", size=0)
