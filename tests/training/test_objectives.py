"""The loop knows no objective: one that is only in the table trains, goes on and is exported."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import load_file
from torch import nn

from crate_interp.errors import InputError
from crate_interp.training import Recipe, objectives, read_recipe, train
from crate_interp.training.checkpoint_files import read_checkpoint
from crate_interp.training.objective import Objective
from crate_interp.training.objectives import OBJECTIVES, find_objective
from crate_interp.weights import load_backbone


class StoppedError(Exception):
    pass


class Pairs(nn.Module):
    """An encoder, and a running mean of its features that is no weight of it."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        self.register_buffer("centre", torch.zeros(encoder.embed_dim))

    def forward(self, pairs):
        features = self.encoder(pairs.flatten(0, 1))
        if self.training:
            self.centre.lerp_(features.detach().mean(dim=0), 0.1)
        return F.normalize(features - self.centre, dim=-1).unflatten(0, (-1, 2))


class Contrast(Objective):
    """Tell the other view of an image from those of other images."""

    measure = "validation_loss"
    labelled = False

    def build_model(self):
        return Pairs(super().build_model())

    def backbone(self, model):
        return model.encoder

    def view(self, image, label, transform):
        return torch.stack([transform(image), transform(image)]), torch.tensor(label)

    def loss(self, model, images, targets):
        return self.scores(model, images, targets).mean()

    def scores(self, model, images, targets):
        first, second = model(images).float().unbind(dim=1)
        return F.cross_entropy(first @ second.T / 0.1, torch.arange(len(first)), reduction="none")

    def export(self, model):
        _, record = super().export(model)
        return model.encoder.state_dict(), record


@pytest.fixture
def contrast(settings, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "contrast", Contrast)
    changes = {"task": "contrast", "crop_area": (0.3, 1.0), "validation_split": "train"}
    return {**settings, **changes, "save_every": 1, "ema_decay": 0.5, "clip_norm": 1.0}


def test_an_objective_of_the_table_trains_and_goes_on_bit_equal(contrast, tmp_path):
    recipe, whole, parts = Recipe(**contrast), tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    result = train(recipe, whole)
    assert 0 < result.validation_loss < 10
    assert result.accuracy is None

    def stop(metrics, _):
        if metrics.step == 5:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(recipe, parts, stop)
    assert train(recipe, parts).finished
    one, two = (
        read_checkpoint(folder / "checkpoints" / "step-00000008.pt") for folder in (whole, parts)
    )
    assert one["model"]["centre"].abs().max() > 0
    for key, value in one["model"].items():
        assert torch.equal(value, two["model"][key]), key
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, parts))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert "centre" not in first
    assert load_backbone(whole / "model.safetensors").num_classes == 0


def test_each_file_of_the_folder_is_an_objective_under_its_name():
    names = {file.stem for file in Path(objectives.__file__).parent.glob("*.py")} - {"__init__"}
    assert names == OBJECTIVES.keys() >= {"classification", "reconstruction"}
    for name, objective in OBJECTIVES.items():
        assert objective.measure in ("accuracy", "validation_loss")
        assert find_objective(Recipe(model="demo", steps=1, task=name)) is objective


@pytest.mark.parametrize("task", ["naming", ""])
def test_an_unknown_task_is_refused_with_those_there_are(settings, tmp_path, task):
    names = "classification, contrastive, language, reconstruction, segmentation"
    message = f"task: expected {names}, found '{task}'"
    with pytest.raises(InputError, match=message):
        train(Recipe(**settings, task=task), tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"model": "demo", "steps": 1, "task": task}))
    with pytest.raises(InputError, match=f"recipe.yaml: {message}"):
        read_recipe(path)


@pytest.mark.parametrize(
    ("task", "key", "value"),
    [
        ("classification", "mask_ratio", 0.5),
        ("classification", "normalised_target", False),
        ("reconstruction", "cutmix", 1.0),
        ("contrast", "mask_ratio", 0.5),
        ("contrast", "label_smoothing", 0.1),
    ],
)
def test_a_key_of_another_objective_is_refused(contrast, task, key, value):
    with pytest.raises(InputError, match=f"{key}: is for the task .*, found {value}"):
        Recipe(**{**contrast, "task": task, key: value})
