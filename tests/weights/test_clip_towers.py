"""Image towers of CLIP and SigLIP as backbones, from files of OpenCLIP; what is of text stays."""

import logging

import numpy as np
import pytest
import timm
import torch

from crate_interp import CheckpointError, Observer, load_backbone

SIZES = {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 8, "img_size": 32}
KEYS = (  # timm's names, and those of OpenCLIP's own towers
    ("patch_embed.proj", "conv1"),
    ("blocks.", "transformer.resblocks."),
    ("norm_pre", "ln_pre"),
    ("norm1", "ln_1"),
    ("norm2", "ln_2"),
    ("attn.qkv.", "attn.in_proj_"),
    ("attn.proj", "attn.out_proj"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
)
TEXT = {
    "positional_embedding": torch.zeros(7, 16),
    "token_embedding.weight": torch.zeros(30, 16),
    "transformer.resblocks.0.mlp.c_fc.weight": torch.zeros(64, 16),
    "ln_final.weight": torch.zeros(16),
    "logit_scale": torch.tensor(4.6),
}


def own_tower(state):
    """A tower of OpenCLIP's own code, with the projection to the space of texts."""
    renamed = {
        "visual.class_embedding": state.pop("cls_token")[0, 0],
        "visual.positional_embedding": state.pop("pos_embed")[0],
        "visual.proj": state.pop("head.weight").T.contiguous(),
    }
    del state["head.bias"]
    for key, value in state.items():
        for ours, theirs in KEYS:
            key = key.replace(ours, theirs)
        key = f"ln_post.{key[5:]}" if key.startswith("norm.") else key
        renamed[f"visual.{key}"] = value
    return renamed


def trunk_of_timm(state):
    """A tower of timm within OpenCLIP, as its SigLIP models have."""
    return {f"visual.trunk.{key}": value for key, value in state.items()}


@pytest.mark.parametrize(
    ("name", "layout", "classes"),
    [
        ("vit_base_patch32_clip_224", own_tower, 20),
        ("vit_base_patch32_clip_quickgelu_224", own_tower, 20),
        ("vit_base_patch16_siglip_224", trunk_of_timm, 0),
    ],
)
def test_towers_of_openclip_are_backbones(name, layout, classes, tmp_path, caplog):
    torch.manual_seed(0)
    tower = timm.create_model(name, num_classes=classes, **SIZES).eval()
    if classes:
        tower.head.bias.data.zero_()  # a projection has none
    torch.save(layout(tower.state_dict()) | TEXT, tmp_path / "open_clip.pt")
    with caplog.at_level(logging.WARNING):
        model = load_backbone(name, tmp_path / "open_clip.pt", **SIZES)
    assert model.num_classes == classes
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(model(images), tower(images))
    rgb = np.zeros((24, 40, 3), np.uint8)
    keys = Observer(model, (24, 40)).activations([rgb], ["key"], [-1])
    assert keys.patch_features("key").shape == (1, 48, 15)
    assert keys.num_prefix_tokens == (1 if classes else 0)


def test_a_file_without_an_image_tower_is_refused(tmp_path):
    torch.save(TEXT, tmp_path / "text.pt")
    with pytest.raises(CheckpointError, match=r"text\.pt"):
        load_backbone("vit_base_patch32_clip_224", tmp_path / "text.pt", **SIZES)
