"""Model, loss, optimizer and learning rate are what the recipe asks for."""

import math

import numpy as np
import pytest
import torch
from timm.scheduler import CosineLRScheduler
from torch import nn

from crate_interp.errors import InputError
from crate_interp.training import Recipe, setup
from crate_interp.training.objectives.classification import build_loss, build_mixup
from crate_interp.training.setup import (
    build_model,
    build_optimizer,
    build_schedule,
    updates_of,
)

SIZES = {"embed_dim": 48, "depth": 3, "num_heads": 3, "patch_size": 8}
MODELS = ("crate_alpha_tiny_patch16_224", "crate_tiny_patch16_224", "vit_tiny_patch16_224")


def recipe_of(**changes):
    basis = {"model": MODELS[0], "model_args": SIZES, "image_size": 32, "steps": 20}
    return Recipe(**{**basis, **changes})


@pytest.mark.parametrize(
    ("warmup", "lowest"), [(0, 0.0), (5, 0.0), (5, 1e-5)], ids=["cosine", "warm-up", "floor"]
)
def test_learning_rate_is_timms_and_the_formula(warmup, lowest):
    recipe = recipe_of(learning_rate=1e-3, warmup_steps=warmup, min_learning_rate=lowest)
    model = nn.Linear(2, 2)
    optimizer = build_optimizer(recipe, model)
    updates, steps = updates_of(recipe, 10**6)
    assert (updates, steps) == (20, warmup)
    schedule = build_schedule(recipe, optimizer, updates, steps)
    reference = torch.optim.AdamW(nn.Linear(2, 2).parameters(), lr=1e-3)
    timms = CosineLRScheduler(
        reference, 20, lr_min=lowest, warmup_t=warmup, warmup_lr_init=0.0, t_in_epochs=False
    )
    for step in range(20):
        schedule.step_update(step)
        timms.step_update(step)
        cosine = lowest + (1e-3 - lowest) * (0.5 + 0.5 * math.cos(math.pi * step / 20))
        expected = 1e-3 * step / warmup if step < warmup else cosine
        for group in optimizer.param_groups:
            assert group["lr"] == reference.param_groups[0]["lr"]
            assert math.isclose(group["lr"], expected, rel_tol=1e-9)


def test_length_in_epochs_leaves_out_the_last_smaller_batch():
    recipe = recipe_of(steps=None, epochs=3, warmup_epochs=1, batch_size=10, data="folder")
    assert updates_of(recipe, 39) == (9, 3)


@pytest.mark.parametrize("name", MODELS)
def test_layer_decay_scales_from_the_head_down(name):
    recipe = recipe_of(model=name, layer_decay=0.5, learning_rate=1.0)
    model = build_model(recipe, 10)
    optimizer = build_optimizer(recipe, model)
    build_schedule(recipe, optimizer, 20, 0).step_update(0)
    rates = {
        id(parameter): group["lr"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    by_name = {key: rates[id(value)] for key, value in model.named_parameters()}
    assert by_name["head.weight"] == 1
    blocks = [by_name[f"blocks.{number}.attn.qkv.weight"] for number in range(3)]
    assert blocks[0] < blocks[1] < blocks[2] <= 1
    assert by_name["pos_embed"] < blocks[0]


def test_positions_biases_and_class_token_do_not_decay():
    recipe = recipe_of(weight_decay=0.3)
    model = build_model(recipe, 10)
    optimizer = build_optimizer(recipe, model)
    decays = {
        id(parameter): group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    by_name = {key: decays[id(value)] for key, value in model.named_parameters()}
    assert by_name["blocks.0.mlp.D"] == 0.3
    assert by_name["pos_embed"] == by_name["cls_token"] == by_name["head.bias"] == 0


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_optimizer_takes_the_recipes_values(name):
    recipe = recipe_of(optimizer=name, learning_rate=2e-4, betas=(0.8, 0.9))
    optimizer = build_optimizer(recipe, nn.Linear(2, 2))
    assert type(optimizer).__name__.lower() == name
    assert optimizer.param_groups[0]["lr"] == 2e-4
    assert tuple(optimizer.param_groups[0]["betas"]) == (0.8, 0.9)


def test_mixed_labels_sum_to_one():
    recipe = recipe_of(mixup=0.8, cutmix=1.0, label_smoothing=0.1)
    np.random.seed(0)  # noqa: NPY002
    mixup = build_mixup(recipe, 10)
    _, targets = mixup(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3]))
    assert torch.allclose(targets.sum(dim=1), torch.ones(4))
    assert build_mixup(recipe_of(), 10) is None
    loss = build_loss(recipe)(torch.zeros(4, 10), targets)
    assert math.isclose(loss.item(), math.log(10), rel_tol=1e-6)


def test_empty_epoch_still_has_an_update():
    assert updates_of(recipe_of(steps=None, epochs=0.01, batch_size=10, data="f"), 20) == (1, 0)


def test_initial_weights_are_a_file_a_model_or_its_own_published_ones(tmp_path, monkeypatch):
    first = build_model(recipe_of(), 10)
    path = tmp_path / "first.pth"
    torch.save(first.state_dict(), path)
    asked = []

    def published(name, file=None):
        asked.append((name, file))
        return path

    monkeypatch.setattr(setup, "resolve_weights", published)
    for wanted in ("published", "crate_alpha_L32", str(path)):
        torch.manual_seed(1)
        model = build_model(recipe_of(initial_weights=wanted), 10)
        assert torch.equal(model.head.weight, first.head.weight)
    assert asked == [(MODELS[0], None), ("crate_alpha_L32", None), (MODELS[0], str(path))]


def test_initial_weights_that_are_neither_file_nor_model_are_refused():
    message = r"initial_weights crate_alpha_L31: no such file, and .*L32"
    with pytest.raises(InputError, match=message):
        build_model(recipe_of(initial_weights="crate_alpha_L31"), 10)
