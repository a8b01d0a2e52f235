"""Vision transformers of timm, DINO's too, are loaded with the same checks as our own."""

import logging

import pytest
import timm
import torch

from crate_interp.errors import CheckpointError
from crate_interp.weights.fit import load_checkpoint_into

ALPHA = "crate_alpha_torch_d48_l2_h3_p8_i32_c10.pth"


def make(name, sizes, **arguments):
    return timm.create_model(name, **{**sizes, **arguments}).eval()


@pytest.mark.parametrize("full", [False, True], ids=["backbone", "full"])
def test_dino_loads_into_a_timm_vit(full, sizes, tmp_path, caplog):
    torch.manual_seed(0)
    dino = make("vit_small_patch8_224", sizes, num_classes=0)
    content = dino.state_dict()
    if full:
        content = {f"module.backbone.{key}": value for key, value in content.items()}
        content["module.head.mlp.0.weight"] = torch.zeros(4, 48)
        content["module.head.last_layer.weight_g"] = torch.zeros(4, 1)
        content = {"teacher": content, "student": {}, "epoch": 100, "optimizer": {"state": {}}}
    torch.save(content, tmp_path / "dino.pth")
    model = make("vit_small_patch8_224", sizes, num_classes=4)
    with caplog.at_level(logging.INFO):
        checkpoint = load_checkpoint_into(model, tmp_path / "dino.pth", "follow")
    assert ("head.last_layer.weight_g" in caplog.text) == full
    assert checkpoint.renamed.classes is None
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(model(images), dino(images))
    larger = make("vit_small_patch8_224", {**sizes, "img_size": 48}, num_classes=0)
    load_checkpoint_into(larger, tmp_path / "dino.pth", "refuse")
    dino.set_input_size(img_size=(48, 48))
    images = torch.randn(1, 3, 48, 48)
    torch.testing.assert_close(larger(images), dino(images))


@pytest.mark.parametrize(
    "name", ["vit_small_patch14_reg4_dinov2", "deit_tiny_distilled_patch16_224"]
)
def test_other_vits_of_timm_load_with_the_same_checks(name, sizes, tmp_path):
    torch.manual_seed(0)
    one, other = make(name, sizes, num_classes=6), make(name, sizes, num_classes=4)
    torch.save(one.state_dict(), tmp_path / "vit.pth")
    load_checkpoint_into(other, tmp_path / "vit.pth", "follow")
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(one(images), other(images))
    state = one.state_dict()
    state["blocks.1.attn.qkv.weight"] = torch.zeros(7, 48)
    del state["blocks.0.norm1.bias"]
    state["surprise"] = torch.zeros(1)
    torch.save(state, tmp_path / "vit.pth")
    message = (
        r"blocks\.1\.attn\.qkv\.weight: expected \(144, 48\), found \(7, 48\); "
        r"missing: blocks\.0\.norm1\.bias; unknown: surprise"
    )
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint_into(other, tmp_path / "vit.pth", "follow")


def test_official_file_of_another_family_does_not_fit_a_vit(reference, sizes):
    model = make("vit_small_patch8_224", sizes)
    with pytest.raises(
        CheckpointError, match=r"layers\.0\.0\.fn\.qkv\.weight: expected \(144, 48\)"
    ):
        load_checkpoint_into(model, reference / ALPHA, "follow")
