"""DINOv3 and EVA-02 through the command line, against the models' own attention."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from crate_interp.cli import main
from crate_interp.data import read_image
from crate_interp.hooks import Observer
from crate_interp.weights import load_backbone

SIZES = {"depth": 2, "embed_dim": 48, "num_heads": 3, "patch_size": 8}
MODELS = ["vit_small_patch16_dinov3", "eva02_tiny_patch14_224"]


@pytest.fixture
def picture(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 60, (40, 48, 3), np.uint8)
    rgb[8:24, 8:24] = (250, 30, 30)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def run(command, picture, model, output, *options):
    arguments = ["--model", model, "--weights", "random", "--model-args", json.dumps(SIZES)]
    arguments += ["--size", "32", "--workers", "0", "--output", str(output), *options]
    images = ["--images", str(picture)] if command == "maskcut" else [str(picture)]
    return main([command, *images, *arguments])


def own_row(model, pixels):
    """The class token's attention in the last block, as the model multiplies it out itself."""
    attention, maps = model.blocks[-1].attn, []
    attention.fused_attn = False
    attention.attn_drop.register_forward_hook(lambda _, __, output: maps.append(output))
    with torch.no_grad():
        model(pixels)
    return maps[0][0, :, 0, model.num_prefix_tokens :].reshape(3, 4, 4)


@pytest.mark.parametrize("name", MODELS)
def test_attention_is_that_of_the_model_itself(picture, tmp_path, name):
    assert run("attention", picture, name, tmp_path / "out", "--figure", "heads") == 0
    model = load_backbone(name, weights="random", **SIZES)
    expected = own_row(model, Observer(model, size=32).pixels([read_image(picture)]))
    with np.load(tmp_path / "out" / "a.npz") as file:
        np.testing.assert_allclose(file["maps"], expected, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_images_are_cut_and_coloured(picture, tmp_path, name):
    assert run("pca", picture, name, tmp_path / "pca.png") == 0
    with np.load(tmp_path / "pca.npz") as file:
        assert file["grey"].shape[-2:] == (4, 4)
    options = ["--refine", "none", "--stride", "4", "--keep-aspect"]
    assert run("maskcut", picture, name, tmp_path / "cut", *options) == 0
    assert json.loads((tmp_path / "cut" / "results.json").read_text())
