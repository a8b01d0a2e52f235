"""Masked-autoencoder pretraining: what is learnt, exported, fine-tuned and refused."""

import csv
import json
import math

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open

from crate_interp.cli import main
from crate_interp.errors import CheckpointError, InputError
from crate_interp.training import Recipe, open_data, train
from crate_interp.training.batches import batches_of, seed_generators
from crate_interp.training.objectives.reconstruction import Reconstruction
from crate_interp.training.stages import Stage
from crate_interp.weights import load_backbone, load_mae

SIZES = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 8}
NORMALISATION = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture
def mae_settings(settings):
    """A recipe of seconds, as keyword arguments."""
    changes = {"model": "crate_mae_base_patch16_224", "model_args": SIZES, "task": "reconstruction"}
    return {**settings, **changes, "validation_split": "train"}


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def tensors_of(path):
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


class StoppedError(Exception):
    pass


def test_loss_falls_and_the_best_is_the_lowest(mae_settings, tmp_path):
    changes = {"steps": 60, "warmup_steps": 5, "learning_rate": 3e-3, "evaluate_every": 20}
    recipe = Recipe(**{**mae_settings, **changes, "normalised_target": False, "clip_norm": 1.0})
    result = train(recipe, tmp_path)
    losses = [float(row["loss"]) for row in rows(tmp_path)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3])
    measured = [row["validation_loss"] for row in rows(tmp_path) if row["validation_loss"]]
    assert len(measured) == 3
    assert float(measured[-1]) == result.validation_loss
    assert float(measured[2]) < float(measured[0])
    assert all(row["accuracy"] == "" for row in rows(tmp_path))
    assert result.accuracy is None
    with safe_open(tmp_path / "best.safetensors", framework="pt") as file:
        record = json.loads(file.metadata()["training"])
    assert record["validation_loss"] == round(min(map(float, measured)), 4)
    assert "accuracy" not in record


@pytest.mark.parametrize("normalised", [False, True])
def test_first_loss_is_that_of_a_loop(mae_settings, tmp_path, normalised):
    recipe = Recipe(**{**mae_settings, "steps": 1, "normalised_target": normalised})
    train(recipe, tmp_path)
    data = open_data(recipe)
    seed_generators(recipe.seed)
    objective = Reconstruction(recipe)
    model = objective.build_model()
    loader = batches_of(recipe, data.training, NORMALISATION, updates=range(1), view=objective.view)
    images, masks = next(loader)
    assert (masks.sum(dim=1) == 12).all()  # of 4 x 4 patches
    with torch.no_grad():
        predicted = model(images, masks).double()
    errors = []
    for image, mask, guess in zip(images.double(), masks, predicted, strict=True):
        for patch in torch.nonzero(mask)[:, 0].tolist():
            row, column = divmod(patch, 4)
            pixels = image[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            target = pixels.permute(1, 2, 0).flatten()
            if normalised:
                target = (target - target.mean()) / math.sqrt(target.var().item() + 1e-6)
            errors.append((guess[patch] - target).square().mean().item())
    assert float(rows(tmp_path)[0]["loss"]) == pytest.approx(np.mean(errors), rel=1e-5)


def test_gradients_are_those_of_float64(mae_settings):
    torch.manual_seed(0)
    recipe = Recipe(**mae_settings)
    objective = Reconstruction(recipe)
    model = objective.build_model()
    exact = objective.build_model().double()
    exact.load_state_dict(model.state_dict())
    images = torch.randn(4, 3, 32, 32)
    masks = torch.stack([objective.view(image, 0, torch.clone)[1] for image in images])
    objective.loss(model, images, masks).backward()
    # By hand: the hidden patches cut by unfold, which has (colour, row, column).
    cut = torch.nn.functional.unfold(images.double(), 8, stride=8).transpose(1, 2)
    target = cut.unflatten(2, (3, 64)).transpose(2, 3).flatten(2)[masks]
    target = (target - target.mean(1, keepdim=True)) / (target.var(1, keepdim=True) + 1e-6).sqrt()
    (exact(images.double(), masks)[masks] - target).square().mean().backward()
    for (key, single), double in zip(model.named_parameters(), exact.parameters(), strict=True):
        if not single.requires_grad:
            assert key == "encoder.pos_embed"
            continue
        scale = double.grad.abs().max()
        assert scale > 0, key
        assert (single.grad - double.grad).abs().max() < 1e-4 * scale, key


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "crop_area": (0.2, 1.0),
            "accumulation": 2,
            "ema_decay": 0.9,
            "drop_path": 0.2,
            "precision": "bfloat16",
            "gradient_checkpointing": True,
            "workers": 1,
        },
    ],
    ids=["plain", "everything"],
)
def test_resume_is_bit_equal(mae_settings, tmp_path, changes):
    recipe = Recipe(**{**mae_settings, "steps": 6, "save_every": 1, "evaluate_every": 2, **changes})
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    train(recipe, whole)

    def stop(metrics, _):
        if metrics.step == 4:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(recipe, parts, stop)
    torch.rand(7)  # what else has drawn in this process does not matter
    assert train(recipe, parts).finished
    for name in ("model.safetensors", "best.safetensors"):
        first, second = tensors_of(whole / name), tensors_of(parts / name)
        assert first.keys() == second.keys()
        assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert [{**row, "seconds": ""} for row in rows(whole)] == [
        {**row, "seconds": ""} for row in rows(parts)
    ]


def test_masks_are_the_same_with_any_number_of_processes(mae_settings):
    recipe = Recipe(**mae_settings)
    pictures = open_data(recipe).training
    objective = Reconstruction(recipe)

    def masks_of(process, updates=range(2)):
        loader = batches_of(recipe, pictures, NORMALISATION, process, updates, objective.view)
        return [masks for _, masks in loader]

    one = masks_of((0, 1))
    assert not torch.equal(one[0], one[1])
    two = zip(masks_of((0, 2)), masks_of((1, 2)), strict=True)
    for whole, halves in zip(one, two, strict=True):
        assert torch.equal(whole, torch.cat(halves))
    first, again = (torch.cat(masks_of((0, 1), None)) for _ in range(2))
    assert torch.equal(first, again)  # the same at every validation


def test_exported_file_has_encoder_and_decoder_and_can_be_fine_tuned(mae_settings, tmp_path):
    (tmp_path / "mae").mkdir()
    train(Recipe(**{**mae_settings, "steps": 2}), tmp_path / "mae")
    path = tmp_path / "mae" / "model.safetensors"
    saved = tensors_of(path)
    mae, encoder = load_mae(path), load_backbone(path)
    assert mae.normalised_target
    assert encoder.num_classes == 0
    assert encoder.patch_embed.img_size == (32, 32)
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, saved[key]), key
        assert torch.equal(value, mae.encoder.state_dict()[key]), key
    for key, value in mae.decoder.state_dict().items():
        assert torch.equal(value, saved[f"decoder.{key}"]), key

    tuning = {"task": "classification", "initial_weights": str(path), "learning_rate": 1e-12}
    (tmp_path / "tuned").mkdir()
    result = train(Recipe(**{**mae_settings, **tuning, "steps": 1}), tmp_path / "tuned")
    assert 0 <= result.accuracy <= 1
    tuned = load_backbone(tmp_path / "tuned" / "model.safetensors")
    assert tuned.num_classes == 8
    for key, value in encoder.state_dict().items():
        assert torch.allclose(tuned.state_dict()[key], value, atol=1e-9), key

    (tmp_path / "longer").mkdir()
    again = {"initial_weights": str(path), "learning_rate": 1e-12, "steps": 1}
    train(Recipe(**{**mae_settings, **again}), tmp_path / "longer")
    for key, value in tensors_of(tmp_path / "longer" / "model.safetensors").items():
        assert torch.allclose(value, saved[key], atol=1e-9), key


def test_pictures_need_no_classes(mae_settings, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        pixels = rng.integers(0, 255, (40, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "run").mkdir()
    changes = {"data": str(folder), "batch_size": 4, "steps": 1, "validation_split": None}
    result = train(Recipe(**{**mae_settings, **changes}), tmp_path / "run")
    assert result.finished
    assert result.validation_loss is None
    (folder / "2.png").write_bytes(b"no picture")
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"2\.png: not a readable image"):
        train(Recipe(**{**mae_settings, **changes}), tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_ratio": 0.0}, "mask_ratio: expected between 0 and 1, found 0.0"),
        ({"mask_ratio": 1.0}, "mask_ratio: expected between 0 and 1, found 1.0"),
        ({"mask_ratio": 0.02}, "mask_ratio: .*some of 16 patches and not all, found 0.02"),
        ({"mask_ratio": 0.98}, "mask_ratio: .*some of 16 patches and not all, found 0.98"),
        ({"mixup": 0.2}, "mixup: is for the task classification"),
        ({"num_classes": 5}, "num_classes: is for the task classification"),
        ({"layer_decay": 0.7}, "layer_decay: is for the task classification"),
        ({"stages": ({"share": 1, "patch_drop": 0.5},)}, "stage 1: patch_drop: is for the task"),
        ({"model": "crate_tiny_patch16_224"}, "expected a CRATE-MAE .*, found a Crate"),
        ({"batch_size": 128}, "64 images are fewer than batch_size 128"),
    ],
)
def test_bad_recipe_is_refused(mae_settings, tmp_path, changes, message):
    if "stages" in changes:
        changes = {"stages": tuple(Stage(**stage) for stage in changes["stages"])}
    with pytest.raises(InputError, match=message):
        train(Recipe(**{**mae_settings, **changes}), tmp_path)


def test_initial_weights_without_a_decoder_are_refused(mae_settings, tmp_path):
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    classifier = {**mae_settings, "task": "classification", "steps": 1}
    train(Recipe(**classifier), tmp_path / "first")
    path = tmp_path / "first" / "model.safetensors"
    with pytest.raises(CheckpointError, match=r"its decoder does not fit: missing: .*mask_token"):
        train(Recipe(**{**mae_settings, "initial_weights": str(path)}), tmp_path / "second")


def test_command_says_the_validation_loss(mae_settings, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**mae_settings, "steps": 1}))
    assert main(["train", str(recipe), "--output", str(tmp_path / "run")]) == 0
    loss = float(rows(tmp_path / "run")[-1]["validation_loss"])
    assert f"1 steps, validation loss {loss:.4f}: " in capsys.readouterr().out
