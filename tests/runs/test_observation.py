"""The pass over images that commands share."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crate_interp import InputError
from crate_interp.config import ObserveConfig
from crate_interp.runs.observation import load_observer, observe, open_pictures


@pytest.fixture
def folder(tmp_path):
    """Three pictures of different sizes, the second of them damaged."""
    rng = np.random.default_rng(0)
    for name, hw in {"a": (40, 30), "b": (24, 24), "c": (20, 60)}.items():
        Image.fromarray(rng.integers(0, 256, (*hw, 3), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:200])
    return tmp_path


def config_of(images, **options):
    return ObserveConfig(images=[images], model="demo", size=24, workers=0, **options)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_image_is_observed_or_named(folder, batch_size, capsys):
    config = config_of(folder, batch_size=batch_size)
    observer, images = load_observer(config), open_pictures(config)

    def finish(record, image, activations, _):
        return record.file_name, image.original_hw, activations

    found = list(observe(observer, images.records, ["codes"], [-1], finish, config))
    results = [image.result for image in found if image.result is not None]
    assert [(name, hw) for name, hw, _ in results] == [("a.png", (40, 30)), ("c.png", (20, 60))]
    assert "b.png" in str(next(image.error for image in found if image.error))
    assert "b.png" in capsys.readouterr().err
    for (_, _, activations), record in zip(results, images.records[::2], strict=True):
        alone = observer.activations([record.read()], ["codes"], [-1])
        torch.testing.assert_close(activations["codes", -1], alone["codes", -1])


def test_demo_names_the_scenes_unless_there_is_such_a_folder(folder, monkeypatch):
    @dataclass
    class Opened:
        records: tuple

    monkeypatch.setattr("crate_interp.runs.inference.open_coco", lambda _: Opened((1, 2, 3)))
    monkeypatch.chdir(folder)
    assert open_pictures(config_of(Path("demo"), limit=2)).records == (1, 2)
    (folder / "demo").mkdir()
    (folder / "a.png").rename(folder / "demo" / "a.png")
    assert len(open_pictures(config_of(Path("demo"))).records) == 1


def test_empty_folder_and_bad_options_are_errors(tmp_path):
    with pytest.raises(InputError, match="expected image files"):
        open_pictures(config_of(tmp_path))
    with pytest.raises(InputError, match="size: expected at least 1, found 0"):
        ObserveConfig(images=[tmp_path], model="demo", size=0)
