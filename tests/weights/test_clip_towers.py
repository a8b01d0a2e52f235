"""Image towers of CLIP and SigLIP as backbones, from files of OpenCLIP, and CLIP as a whole."""

import json
import logging

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from crate_interp import CheckpointError, InputError, Observer, load_backbone
from crate_interp.cli import main
from crate_interp.models.clipa import tokenize
from crate_interp.weights import load_clip

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


@pytest.fixture(scope="module", params=[True, False], ids=["quickgelu", "gelu"])
def clip(request, tmp_path_factory):
    """A small CLIP of OpenCLIP's own code, its file, and the name of its image tower."""
    open_clip = pytest.importorskip("open_clip", reason="is the reference")
    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 2, "width": 48, "head_width": 16, "patch_size": 8}
    text = {"context_length": 12, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
    model = open_clip.model.CLIP(20, vision, text, quick_gelu=request.param).eval()
    for parameter in model.parameters():  # biases, which begin at zero, too
        parameter.data += 0.02 * torch.randn_like(parameter)
    path = tmp_path_factory.mktemp("clip") / "open_clip_pytorch_model.bin"
    torch.save(model.state_dict(), path)
    return model, path, f"vit_base_patch32_clip{'_quickgelu' * request.param}_224"


def test_both_towers_of_openclip_give_its_embeddings(clip):
    pytest.importorskip("open_clip", reason="has the tokenizer")
    theirs, path, name = clip
    ours = load_clip(name, path, **SIZES)
    images, prompts = torch.randn(2, 3, 32, 32), ["a photo of a dog", "", "a diagram. " * 20]
    tokens = tokenize(prompts, 12, "ViT-B-32")
    assert tokens.shape == (3, 12)
    with torch.no_grad():
        torch.testing.assert_close(ours.encode_image(images), theirs.encode_image(images))
        torch.testing.assert_close(ours.encode_text(tokens), theirs.encode_text(tokens))
        scores = theirs.get_logits(images, tokens)[0].softmax(dim=1)
        torch.testing.assert_close(ours.classify(images, prompts), scores)
    with pytest.raises(InputError, match="expected a list of one text or more"):
        ours.classify(images, [])


def test_a_clip_of_openclip_is_measured_without_training(clip, tmp_path, capsys):
    theirs, path, name = clip
    for number, label in enumerate(("cat", "dog")):
        (tmp_path / "data" / label).mkdir(parents=True)
        pixels = np.full((32, 32, 3), 200 * number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / label / "a.png")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    command = ["evaluate-classifier", "--model", name, "--weights", str(path), "--data"]
    command += [str(tmp_path / "data"), "--classes", str(tmp_path / "names.txt"), "--workers", "0"]
    command += ["--model-args", json.dumps(SIZES), "--device", "cpu", "--size", "32"]
    assert main([*command, "--output", str(tmp_path / "out.json")]) == 0
    tokens = tokenize(["a photo of a cat.", "a photo of a dog."], 12, "ViT-B-32")
    mean, std = (
        torch.tensor(json.loads((tmp_path / "out.json").read_text())["preparation"][key])
        for key in ("mean", "std")
    )
    right = 0
    for label in range(2):
        image = ((torch.full((3,), 200 * label / 255) - mean) / std)[:, None, None].expand(
            3, 32, 32
        )
        with torch.no_grad():
            right += int(theirs.get_logits(image[None], tokens)[0].argmax()) == label
    assert json.loads((tmp_path / "out.json").read_text())["top1"] == right / 2
    capsys.readouterr()


@pytest.mark.parametrize("missing", ["text_projection", "token_embedding.weight"])
def test_a_file_without_a_text_tower_is_refused(clip, missing, tmp_path):
    _, path, name = clip
    state = torch.load(path, weights_only=True)
    del state[missing]
    torch.save(state, tmp_path / "image.pt")
    with pytest.raises(
        InputError, match=r"expected a CRATE-alpha-CLIPA model, or an|no text tower"
    ):
        load_clip(name, tmp_path / "image.pt", **SIZES)
