"""Features without their position and tokens of high norm, against parts of known truth."""

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image

from crate_interp import InputError, Observer, PatchIn, Target, intervene
from crate_interp.cli import main
from crate_interp.hooks.feature_cleaning import (
    fill_in,
    have_high_norm,
    positional_directions,
    without_directions,
)
from crate_interp.segmentation import maskcut_batch

GRID = (10, 12)


def affinity(features):
    unit = F.normalize(features, dim=-1)
    return unit @ unit.transpose(-2, -1)


@pytest.fixture
def scene():
    """An object on a background; beside them, three directions that follow the position."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(32, 32, generator=generator, dtype=torch.float64))[0]
    rows, columns = (
        side.flatten().double()
        for side in torch.meshgrid(*(torch.linspace(-1, 1, n) for n in GRID), indexing="ij")
    )
    position = torch.stack([rows, columns, rows * columns], dim=1) @ basis[:3]
    is_object = torch.zeros(GRID, dtype=torch.bool)
    is_object[5:9, 1:5] = True
    content = torch.where(is_object.flatten()[:, None], basis[3], basis[4])
    noise = 0.02 * torch.randn(120, 27, generator=generator, dtype=torch.float64) @ basis[5:]
    content = content + noise
    return content[None], 3 * position[None], is_object


def test_debiasing_gives_the_affinities_of_the_content(scene):
    content, position, _ = scene
    blank = position + torch.randn(5, 1, 32, generator=torch.Generator().manual_seed(1)).double()
    directions = positional_directions(blank)
    torch.testing.assert_close(directions @ directions.T, torch.eye(3).double())
    biased = content + position
    wrong = (affinity(biased) - affinity(content)).abs().mean()
    left = (affinity(without_directions(biased, directions)) - affinity(content)).abs().mean()
    assert wrong > 0.3
    assert left < 1e-12


def test_debiasing_lets_maskcut_find_the_object(scene):
    content, position, is_object = scene

    def first_mask(features):
        (cut,) = maskcut_batch(features.transpose(1, 2).float(), GRID, 0.15, 1)
        return cut.masks[0].reshape(GRID)

    def iou(mask):
        return float((mask & is_object).sum() / (mask | is_object).sum())

    biased = content + position
    assert iou(first_mask(content)) == 1
    assert iou(first_mask(biased)) < 0.5
    assert iou(first_mask(without_directions(biased, positional_directions(position)))) == 1


def test_features_without_position_stay():
    features = torch.randn(1, 6, 8)
    directions = positional_directions(torch.randn(3, 1, 8).expand(-1, 6, -1))
    assert directions.shape == (0, 8)
    assert torch.equal(without_directions(features, directions), features)


@pytest.mark.parametrize(
    ("blank", "message"),
    [
        (torch.zeros(0, 6, 8), r"expected features \(B, n, D\), found shape \(0, 6, 8\)"),
        (torch.zeros(6, 8), r"expected features \(B, n, D\), found shape \(6, 8\)"),
        (torch.full((1, 6, 8), torch.nan), "expected finite features"),
    ],
)
def test_blank_features_are_checked(blank, message):
    with pytest.raises(InputError, match=message):
        positional_directions(blank)


def test_tokens_of_high_norm_are_filled_in():
    tokens = torch.ones(2, 12, 4)
    tokens[0, [0, 5]] *= 4
    holes = have_high_norm(tokens, 3)
    assert holes[0].nonzero().flatten().tolist() == [0, 5]
    assert not holes[1].any()
    features = torch.arange(12.0)[None, :, None].expand(2, -1, 4)
    filled = fill_in(features, holes, (3, 4))
    assert filled[0, 0, 0] == (1 + 4) / 2  # its other neighbour is a hole, too
    assert filled[0, 5, 0] == (1 + 2 + 4 + 6 + 8 + 9 + 10) / 7
    assert torch.equal(filled[1], features[1])
    assert torch.equal(filled[0, 1:5], features[0, 1:5])


def test_large_holes_are_filled_from_their_border():
    holes = torch.ones(1, 15, dtype=torch.bool)
    features = torch.randn(1, 15, 4)
    assert torch.equal(fill_in(features, holes, (3, 5)), features)
    holes[0, 0] = False
    filled = fill_in(features, holes, (3, 5))
    torch.testing.assert_close(filled, features[:, :1].expand(-1, 15, -1))


@pytest.fixture
def model():
    torch.manual_seed(0)
    sizes = {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 8, "img_size": 64}
    model = timm.create_model("vit_small_patch14_reg4_dinov2", **sizes).eval()
    model.pos_embed.data += torch.linspace(-4, 4, 64)[:, None] * torch.randn(48)
    return model.requires_grad_(False)


def test_observer_takes_the_position_out(model):
    rgb = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    plain, debiased = (Observer(model, (64, 96), debias=debias) for debias in (False, True))
    sites = ["key", "cls_attention"]
    before, after = (one.activations([rgb], sites, [-1]) for one in (plain, debiased))
    assert torch.equal(before["cls_attention", -1], after["cls_attention", -1])
    assert torch.equal(before["key", -1][:, :5], after["key", -1][:, :5])  # class and registers
    (row,) = (torch.linspace(-1, 1, 8).repeat_interleave(12),)

    def share(features):  # of the variance that follows the rows
        centred = features - features.mean(dim=1, keepdim=True)
        along = (centred @ row) / row.norm()
        return float(along.square().sum() / centred.square().sum())

    shares = [share(one.patch_features("key")[0].transpose(0, 1).T) for one in (before, after)]
    assert shares[0] > 0.5
    assert shares[1] < 0.1
    assert repr(debiased).count("debias=True") == 1


def test_interventions_do_not_change_what_is_taken_out(model):
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (2, 64, 96, 3), dtype=np.uint8))
    first, second = (Observer(model, (64, 96), debias=True) for _ in range(2))
    source = second.activations(images, ["tokens"], [0])  # of two images, not of five blank ones
    with intervene(model, {Target("tokens", 0): PatchIn(source)}):
        inside = first.activations(images, ["key"], [-1])
    second.activations(images, ["key"], [-1])
    with intervene(model, {Target("tokens", 0): PatchIn(source)}):
        again = second.activations(images, ["key"], [-1])
    assert torch.equal(inside["key", -1], again["key", -1])
    outside = (one.activations(images, ["key"], [-1])["key", -1] for one in (first, second))
    assert torch.equal(*outside)


def test_class_attention_of_as_many_heads_as_tokens_stays():
    sizes = {"embed_dim": 48, "depth": 1, "num_heads": 3, "patch_size": 8, "img_size": 64}
    model = timm.create_model("vit_tiny_patch16_224", **sizes).eval()
    rgb = np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8)
    plain, cleaned = (
        Observer(model, (8, 16), **options).activations([rgb], ["cls_attention"], [-1])
        for options in ({}, {"debias": True, "norm_filter": 1})
    )
    assert torch.equal(plain["cls_attention", -1], cleaned["cls_attention", -1])


def test_observer_fills_in_tokens_of_high_norm(model):
    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    tokens = Observer(model, 64).activations([rgb], ["tokens", "key"], [-1])
    lengths = tokens.patch_features("tokens")[0].norm(dim=0)
    factor = float(lengths.max() / lengths.median()) - 1e-4
    filled = Observer(model, 64, norm_filter=factor).activations([rgb], ["key"], [-1])
    assert list(filled) == [("key", 1)]
    changed = (filled["key", -1] != tokens["key", -1]).any(dim=-1)[0]
    assert changed.nonzero().flatten().tolist() == [5 + int(lengths.argmax())]
    with pytest.raises(InputError, match="norm_filter"):
        Observer(model, 64, norm_filter=0.5)


def test_commands_have_both_options(tmp_path):
    options = ["--model", "vit_demo", "--weights", "random", "--workers", "0", "--device", "cpu"]
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)).save(images / "a.png")
    written = []
    for number, more in enumerate([[], ["--debias"], ["--norm-filter", "1"]]):
        output = tmp_path / f"{number}.npz"
        run = ["features", str(images), *options, *more, "--size", "96", "--output", str(output)]
        assert main(run) == 0
        written.append(np.load(output)["features"])
    assert not np.allclose(written[0], written[1])
    assert not np.allclose(written[0], written[2])
