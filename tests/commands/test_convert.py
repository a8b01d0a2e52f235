"""Conversion is exact, and the file it writes needs nothing else to be loaded."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open

from crate_interp.commands.convert import Convert
from crate_interp.errors import CheckpointError, InputError
from crate_interp.weights import (
    load_backbone,
    load_clip,
    load_mae,
    read_checkpoint,
    weights_checksum,
)

HEADS = {"num_heads": 3}
SIZES = {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 8, "img_size": 32}
JAX = "crate_alpha_jax_d48_l2_h3_p8_i32_c10.npz"
TORCH = "crate_alpha_torch_d48_l2_h3_p8_i32_c10.pth"
CRATE = "crate_d48_l2_h3_p8_i32_c10.pth.tar"
MAE = "crate_mae_d48_l2_h3_p8_i32.pth"
CLIPA = "crate_alpha_clipa_d48_l2_h3_p8_i32_text_d48_l2_h2.pth"


def metadata_of(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


@pytest.mark.parametrize(
    ("file", "name", "model_args"),
    [
        (JAX, "crate_alpha_B8", {}),  # the layout tells the heads
        (TORCH, "crate_alpha_L14.in21k", HEADS),
        (CRATE, "crate_S16", HEADS),
        (MAE, "crate_mae_B16", HEADS),
        (CLIPA, "crate_alpha_CLIPA_L14", HEADS),
    ],
)
def test_convert_round_trip_is_exact(reference, tmp_path, capsys, file, name, model_args):
    output = tmp_path / "out.safetensors"
    config = Convert(reference / file, output, name, model_args, allow_nonfinite=file == CLIPA)
    assert config.run() == 0
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert f"from {file}" in printed

    direct = load_backbone(name, weights=reference / file, **SIZES)
    again = load_backbone(output)
    assert again.state_dict().keys() == direct.state_dict().keys()
    for key, value in direct.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(again(pixels), direct(pixels))
    assert not [path for path in tmp_path.iterdir() if path != output]


def test_convert_records_model_sizes_source_and_training(reference, tmp_path):
    output = tmp_path / "out.safetensors"
    Convert(reference / CRATE, output, "crate_S16", HEADS).run()
    metadata = metadata_of(output)
    assert metadata["model"] == "crate_small_patch16_224"  # whose file it is, nobody knows
    assert json.loads(metadata["model_args"]) == SIZES
    assert json.loads(metadata["num_classes"]) == 10
    assert json.loads(metadata["mean"]) == [0.485, 0.456, 0.406]
    checksum = weights_checksum(reference / CRATE)
    assert json.loads(metadata["source"]) == {"file": CRATE, "sha256": checksum}
    assert "epoch" in json.loads(metadata["training"])

    # once more, from our own file: nothing but the source may change
    Convert(output, tmp_path / "again.safetensors", "crate_S16").run()
    again = metadata_of(tmp_path / "again.safetensors")
    assert json.loads(again.pop("source"))["file"] == "out.safetensors"
    metadata.pop("source")
    assert again == metadata


def test_convert_keeps_text_tower_and_decoder(reference, tmp_path):
    clip_file, mae_file = tmp_path / "clip.safetensors", tmp_path / "mae.safetensors"
    clip = Convert(reference / CLIPA, clip_file, "crate_alpha_CLIPA_L14", HEADS)
    dataclasses.replace(clip, allow_nonfinite=True).run()
    Convert(reference / MAE, mae_file, "crate_mae_B16", HEADS).run()
    for official, converted in ((CLIPA, clip_file), (MAE, mae_file)):
        expected = read_checkpoint(reference / official).state_dict
        found = read_checkpoint(converted).state_dict
        assert found.keys() == expected.keys()
        for key in expected:
            torch.testing.assert_close(found[key], expected[key], atol=0, rtol=0, equal_nan=True)
    with np.load(reference / CLIPA.replace(".pth", "_io.npz")) as arrays:
        tokens = torch.from_numpy(arrays["token_ids"]).long()
        expected_text = torch.from_numpy(arrays["text_embedding"])
    clip = load_clip("crate_alpha_CLIPA_L14", clip_file, text_num_heads=2, allow_nonfinite=True)
    with torch.inference_mode():
        found = clip.text(tokens)
    torch.testing.assert_close(found, expected_text, atol=1e-4, rtol=1e-5, equal_nan=True)
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        direct = load_mae("crate_mae_B16", reference / MAE, **SIZES).reconstruct(pixels)
        assert torch.equal(load_mae("crate_mae_B16", mae_file).reconstruct(pixels), direct)
        assert torch.equal(load_mae(str(mae_file)).reconstruct(pixels), direct)
        by_file = load_clip(str(clip_file), text_num_heads=2, allow_nonfinite=True)
        assert torch.equal(by_file.encode_image(pixels), clip.encode_image(pixels))


def test_convert_drops_dinos_wrappers(tmp_path):
    model = load_backbone("vit_S8", pretrained=False, **SIZES)
    teacher = {f"module.backbone.{key}": value for key, value in model.state_dict().items()}
    torch.save({"teacher": teacher, "epoch": 3}, tmp_path / "dino.pth")
    output = tmp_path / "out.safetensors"
    Convert(tmp_path / "dino.pth", output, "dino_vits8", HEADS).run()
    again = load_backbone(output).state_dict()
    assert all(torch.equal(again[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "model_args", "output", "message"),
    [
        ("crate_alpha_B8", {}, "out.safetensors", "number of heads; give it with --model-args"),
        ("crate_alpha_B8", HEADS, "out.pth", "expected a name that ends in .safetensors"),
        ("crate_alpha_B9", HEADS, "out.safetensors", "nearest names: .*crate_alpha_B8"),
        ("crate_B8", HEADS, "out.safetensors", f"{TORCH}.*do not fit"),
        ("crate_alpha_B8", {**HEADS, "depth": 3}, "out.safetensors", "missing"),
        ("crate_alpha_B8", HEADS, "missing/out.safetensors", "no folder"),
    ],
)
def test_convert_refuses_wrong_input(reference, tmp_path, name, model_args, output, message):
    with pytest.raises(InputError, match=message):
        Convert(reference / TORCH, tmp_path / output, name, model_args).run()
    assert not list(tmp_path.iterdir())


def test_convert_refuses_to_overwrite_its_input_and_empty_files(reference, tmp_path):
    source = tmp_path / "in.safetensors"
    shutil.copy(reference / TORCH, source)
    (tmp_path / "link.safetensors").symlink_to(source)
    for output in (source, tmp_path / "link.safetensors"):
        with pytest.raises(InputError, match="is the input"):
            Convert(source, output, "crate_alpha_B8", HEADS).run()
    assert source.read_bytes() == (reference / TORCH).read_bytes()
    (tmp_path / "empty.pth").write_bytes(b"")
    config = Convert(tmp_path / "empty.pth", tmp_path / "o.safetensors", "crate_alpha_B8")
    with pytest.raises(CheckpointError, match=r"empty\.pth"):
        config.run()
