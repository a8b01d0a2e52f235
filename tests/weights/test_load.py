"""`load_backbone`: every official layout by name, our own files by path, random weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from crate_interp.errors import CheckpointError, InputError
from crate_interp.weights import (
    ModelRecord,
    create_backbone,
    create_on_meta,
    load,
    load_backbone,
    read_checkpoint,
    resolve_name,
    resolve_weights,
    write_safetensors,
)

SIZES = {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 8, "img_size": 32}
JAX = "crate_alpha_jax_d48_l2_h3_p8_i32_c10.npz"
TORCH = "crate_alpha_torch_d48_l2_h3_p8_i32_c10.pth"
CRATE = "crate_d48_l2_h3_p8_i32_c10.pth.tar"
CLASSIFIERS = [
    ("crate_alpha_B8", JAX),
    ("crate_alpha_large_patch14_224.in21k", TORCH),
    ("crate_S16", CRATE),
    ("crate_base_patch8_224", CRATE),
]
MEAN, STD = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)


def expected(reference: Path, file: str) -> tuple[torch.Tensor, torch.Tensor]:
    stem = file.partition(".")[0]
    with np.load(reference / f"{stem}_io.npz") as arrays:
        if "input_nhwc" in arrays:
            pixels = torch.from_numpy(arrays["input_nhwc"]).permute(0, 3, 1, 2).contiguous()
        else:
            pixels = torch.from_numpy(arrays["input_nchw"])
        return pixels, torch.from_numpy(arrays["logits"])


def write_own(path: Path, model: VisionTransformer, name: str, **model_args) -> None:
    record = ModelRecord(name, model_args, model.num_classes, MEAN, STD)
    write_safetensors(path, model.state_dict(), record.to_metadata())


@pytest.mark.parametrize(("name", "file"), CLASSIFIERS)
def test_load_backbone_reproduces_the_reference_logits(reference, name, file):
    model = load_backbone(name, weights=reference / file, num_classes=10, **SIZES)
    pixels, logits = expected(reference, file)
    assert not model.training
    with torch.inference_mode():
        torch.testing.assert_close(model(pixels), logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("name", "file"), CLASSIFIERS)
def test_load_backbone_takes_the_files_own_classes(reference, name, file):
    model = load_backbone(name, weights=str(reference / file), **SIZES)
    assert model.num_classes == model.pretrained_cfg["num_classes"] == 10
    assert model.head.out_features == 10


@pytest.mark.parametrize(
    ("name", "file", "key"),
    [
        (
            "crate_mae_base_patch16_224",
            "crate_mae_d48_l2_h3_p8_i32.pth",
            "blocks.0.layers.0.0.fn.qkv.weight",
        ),
        (
            "crate_alpha_CLIPA_L14",
            "crate_alpha_clipa_d48_l2_h3_p8_i32_text_d48_l2_h2.pth",
            "visual.transformer.resblocks.0.attn.in_proj_weight",
        ),
    ],
)
def test_load_backbone_loads_encoders_without_classes(reference, name, file, key):
    model = load_backbone(name, weights=reference / file, **SIZES)
    projection = read_checkpoint(reference / file).state_dict[key][:48]
    assert torch.equal(model.blocks[0].attn.qkv.weight, projection)


def test_load_backbone_without_classes_drops_the_head(reference):
    model = load_backbone("crate_alpha_B8", weights=reference / JAX, num_classes=0, **SIZES)
    pixels, _ = expected(reference, JAX)
    with torch.inference_mode():
        assert model(pixels).shape == (len(pixels), 48)


def test_load_backbone_refuses_other_classes_than_the_files(reference):
    with pytest.raises(CheckpointError, match=f"{JAX}.*expected 12 classes, found 10"):
        load_backbone("crate_alpha_B8", weights=reference / JAX, num_classes=12, **SIZES)


def test_load_backbone_takes_any_resolution(reference):
    model = load_backbone("crate_alpha_B8", weights=reference / TORCH, **SIZES)
    with torch.inference_mode():
        assert model(torch.randn(1, 3, 40, 72)).shape == (1, 10)


def test_load_backbone_loads_our_own_file_by_its_path_alone(reference, tmp_path):
    name = "crate_alpha_base_patch8_224.in1k"
    model = load_backbone(name, weights=reference / TORCH, **SIZES)
    path = tmp_path / "own.safetensors"
    write_own(path, model, name, **SIZES)
    for given in (path, str(path)):
        again = load_backbone(given)
        assert again.state_dict().keys() == model.state_dict().keys()
        for key, value in model.state_dict().items():
            assert torch.equal(again.state_dict()[key], value), key
        config = timm.data.resolve_model_data_config(again)
        assert (config["mean"], config["std"]) == (MEAN, STD)
    assert load_backbone(path, num_classes=0).num_classes == 0
    assert load_backbone("crate_alpha_B8", weights=path).num_classes == 10  # sizes from the file


def test_load_backbone_loads_a_timm_vit_as_timm_does(tmp_path):
    sizes = {**SIZES, "num_classes": 7}
    theirs = timm.create_model("vit_tiny_patch16_224", **sizes).eval()
    torch.save({"model": theirs.state_dict()}, tmp_path / "vit.pth")
    ours = load_backbone("vit_T16", weights=tmp_path / "vit.pth", **SIZES)
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(ours(pixels), theirs(pixels))


def test_load_backbone_loads_dinos_training_checkpoint(tmp_path):
    theirs = timm.create_model("vit_small_patch8_224.dino", **SIZES).eval()
    teacher = {f"backbone.{key}": value for key, value in theirs.state_dict().items()}
    teacher["head.mlp.0.weight"] = torch.zeros(4, 48)
    torch.save({"teacher": teacher, "epoch": 99}, tmp_path / "dino.pth")
    ours = load_backbone("dino_vits8", weights=tmp_path / "dino.pth", **SIZES)
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(ours(pixels), theirs(pixels))


def test_load_backbone_random_weights_follow_the_callers_seed():
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(load_backbone("vit_S8", pretrained=False, num_classes=3, **SIZES))
    first, same, other = (model.blocks[0].attn.qkv.weight for model in models)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert not models[0].training


def test_load_backbone_takes_models_with_registers():
    model = load_backbone("vit_small_patch14_reg4_dinov2", pretrained=False, **SIZES)
    assert model.num_prefix_tokens == 5


def test_load_backbone_gives_an_untagged_architecture_its_own_sizes():
    # The tag in21k is the segmentation demo's CRATE-B/8, which has 6 heads; the paper's has 12.
    assert create_on_meta(resolve_name("crate_B8")).blocks[0].attn.num_heads == 6
    model = load_backbone("crate_base_patch8_224", pretrained=False, depth=1)
    assert model.blocks[0].attn.num_heads == 12


@pytest.mark.parametrize("name", ["resnet50", "cait_xxs24_224", "convit_tiny"])
def test_load_backbone_refuses_what_is_no_vision_transformer(name):
    with pytest.raises(InputError, match=f"{name}.* is a .*expected .*VisionTransformer"):
        load_backbone(name, pretrained=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "crate_alpa_B8"}, "nearest names: .*crate_alpha_B8"),
        ({"name": 3}, "name: expected the name of a model or a path, found 3"),
        ({"name": ""}, "unknown model ''"),
        ({"name": "crate_alpha_B8", "weights": "missing.pth"}, "missing.pth: no such weight file"),
        ({"name": "demo", "weights": "text" * 3000}, "text: no such weight file"),
        ({"name": "demo", "weights": "a\0b"}, r"a\\x00b: no such weight file"),
        ({"name": "missing.safetensors"}, "missing.safetensors: no such weight file"),
        ({"name": "folder/crate_alpha_B8"}, "no such weight file"),
        ({"name": "a.safetensors", "weights": "b.pth"}, "holds its own weights"),
        ({"name": "demo", "weights": "b.pth", "pretrained": False}, "pretrained=False"),
        ({"name": "a.safetensors", "pretrained": False}, "pretrained=False"),
        ({"name": "demo", "pretrained": False, "embed_dims": 3}, "cannot be made with.*embed_dims"),
        ({"name": "vit_B8", "pretrained": False, "num_heads": 5}, "cannot be made with"),
        ({"name": "vit_B8", "pretrained": False, "img_size": 2}, r"a patch of \(8, 8\) pixels"),
        ({"name": "crate_tiny_patch16_224"}, "no weights are published"),
    ],
)
def test_load_backbone_refuses_wrong_input(arguments, message):
    with pytest.raises(InputError, match=message):
        load_backbone(**arguments)


def test_load_backbone_refuses_files_that_are_not_ours_by_path_alone(reference, tmp_path):
    with pytest.raises(CheckpointError, match="does not say which model it is"):
        load_backbone(reference / TORCH)
    model = create_backbone(resolve_name("crate_alpha_B8"), **SIZES)
    path = tmp_path / "own.safetensors"
    write_safetensors(path, model.state_dict(), {"model": "crate_alpha_B8", "model_args": "[1"})
    with pytest.raises(CheckpointError, match=r"own\.safetensors: its metadata are not those"):
        load_backbone(path)


def test_load_backbone_is_not_misled_by_a_folder_of_a_models_name(tmp_path, monkeypatch):
    (tmp_path / "vit_S8").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_backbone("vit_S8", pretrained=False, depth=1).num_classes == 0


def test_resolve_weights_names_the_file_that_is_read(reference, tmp_path):
    assert resolve_weights("demo", reference / TORCH) == reference / TORCH
    (tmp_path / "own.safetensors").write_bytes(b"")
    assert resolve_weights(tmp_path / "own.safetensors") == tmp_path / "own.safetensors"


def test_model_record_survives_its_metadata(tmp_path):
    model = create_backbone(resolve_name("crate_alpha_B8"), num_classes=5, **SIZES)
    write_own(tmp_path / "own.safetensors", model, "crate_alpha_base_patch8_224", **SIZES)
    record = read_checkpoint(tmp_path / "own.safetensors").record
    assert record == ModelRecord("crate_alpha_base_patch8_224", SIZES, 5, MEAN, STD)
    assert json.loads(record.to_metadata()["model_args"]) == SIZES


def test_load_backbone_uses_the_hubs_cache_when_offline(reference, tmp_path):
    """In a process of its own, as a user would: the hub reads its variables at import."""
    repository = tmp_path / "hub" / "models--UCSC-VLAA--CRATE-alpha"
    snapshot = repository / "snapshots" / ("0" * 40) / "torch" / "in21k_Pretrain"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    (snapshot / "crate_alpha_B8_IN21K").write_bytes((reference / TORCH).read_bytes())
    script = (
        "from crate_interp.weights import load_backbone\n"
        f"sizes = {SIZES!r}\n"
        "print(load_backbone('crate_alpha_B8.in21k', **sizes).num_classes)\n"
        "load_backbone('crate_alpha_L8.in21k', **sizes)\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.stdout == "10\n", ran.stderr
    assert "HF_HUB_OFFLINE is set" in ran.stderr
    assert "crate_alpha_L8_IN21K" in ran.stderr


def test_load_backbone_refuses_another_kind_of_model_before_it_downloads(monkeypatch):
    monkeypatch.setattr(load, "fetch_weights", lambda _: pytest.fail("downloaded"))
    with pytest.raises(InputError, match=r"resnet50.* is a ResNet"):
        load_backbone("resnet50")
