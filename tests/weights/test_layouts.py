"""Files of every layout, of other sizes than the reference ones too, and files that do not fit."""

import logging
import re

import numpy as np
import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed, resample_patch_embed

from crate_interp.errors import CheckpointError
from crate_interp.weights import Checkpoint, architecture_of, read_checkpoint
from crate_interp.weights.fit import (
    convert_state_dict,
    load_checkpoint_into,
)

JAX = "crate_alpha_jax_d48_l2_h3_p8_i32_c10.npz"
ALPHA = "crate_alpha_torch_d48_l2_h3_p8_i32_c10.pth"
CRATE = "crate_d48_l2_h3_p8_i32_c10.pth.tar"
MAE = "crate_mae_d48_l2_h3_p8_i32.pth"
CLIPA = "crate_alpha_clipa_d48_l2_h3_p8_i32_text_d48_l2_h2.pth"
MODELS = {
    JAX: "crate_alpha_base_patch8_224",
    ALPHA: "crate_alpha_base_patch8_224",
    CRATE: "crate_small_patch16_224",
    MAE: "crate_mae_base_patch16_224",
    CLIPA: "crate_alpha_clipa_large_patch14_224",
}
OUTPUTS = {JAX: 10, ALPHA: 10, CRATE: 10, MAE: 0, CLIPA: 48}


def make(file, sizes, **arguments):
    return timm.create_model(MODELS.get(file, file), **{**sizes, **arguments}).eval()


def jax_layout(model):
    """Write a CRATE-alpha's weights as its JAX code does; the facts' table read right to left."""
    heads = model.blocks[0].attn.num_heads
    state = {key: value.detach() for key, value in model.state_dict().items()}
    out = {
        "cls": state["cls_token"],
        "pos_embedding": state["pos_embed"],
        "embedding/kernel": state["patch_embed.proj.weight"].permute(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "encoder_norm/scale": state["fc_norm.weight"],
        "encoder_norm/bias": state["fc_norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
    }
    for number in range(len(model.blocks)):
        ours, theirs = f"blocks.{number}.", f"Transformer/encoderblock_{number}/"
        for norm in (0, 1):
            out[f"{theirs}LayerNorm_{norm}/scale"] = state[f"{ours}norm{norm + 1}.weight"]
            out[f"{theirs}LayerNorm_{norm}/bias"] = state[f"{ours}norm{norm + 1}.bias"]
        attention = f"{theirs}MultiHeadDotProductSubspaceAttention_0/"
        out[attention + "proj/kernel"] = state[ours + "attn.qkv.weight"].T.unflatten(1, (heads, -1))
        out[attention + "out/kernel"] = state[ours + "attn.proj.weight"].T.unflatten(0, (heads, -1))
        out[f"{theirs}OvercompleteISTABlock_0/D"] = state[ours + "mlp.D"]
        out[f"{theirs}OvercompleteISTABlock_0/D1"] = state[ours + "mlp.D1"]
    return out


@pytest.mark.parametrize("file", MODELS)
def test_model_can_be_built_from_what_a_file_says(file, reference):
    sizes = architecture_of(read_checkpoint(reference / file))
    known = {"embed_dim": 48, "depth": 2, "patch_size": 8, "img_size": 32}
    assert sizes == {
        **known,
        "num_classes": OUTPUTS[file],
        **({"num_heads": 3} if file == JAX else {}),
    }
    model = make(file, {"num_heads": 3, **sizes})
    load_checkpoint_into(model, reference / file, "refuse")


@pytest.mark.parametrize("file", MODELS)
def test_classes_are_counted(file, reference):
    expected = None if file in (MAE, CLIPA) else 10
    assert read_checkpoint(reference / file).renamed.classes == expected


def test_larger_jax_file_with_optimizer_and_bfloat16(tmp_path):
    torch.manual_seed(0)
    sizes = {"embed_dim": 40, "depth": 11, "num_heads": 5, "patch_size": 4, "img_size": 36}
    model = make("crate_alpha_tiny_patch16_224", sizes, num_classes=7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter).bfloat16() * 0.1)
    arrays = {}
    for key, value in jax_layout(model).items():
        raw = value.bfloat16().contiguous().view(torch.int16).numpy().view("V2")
        arrays[f"params/{key}"] = raw
        arrays[f"opt/0/mu/{key}"] = np.zeros(3, np.float32)
    np.savez(tmp_path / "w.npz", **arrays, **{"chrono/accum_pause_time": np.float64(3)})
    checkpoint = read_checkpoint(tmp_path / "w.npz")
    assert architecture_of(checkpoint) == {**sizes, "num_classes": 7}
    other = make("crate_alpha_tiny_patch16_224", sizes, num_classes=3)
    load_checkpoint_into(other, checkpoint, "follow")
    images = torch.randn(2, 3, 36, 36)
    assert other.head.weight.dtype == torch.float32
    torch.testing.assert_close(other(images), model(images), rtol=0, atol=0.02)
    for one, theirs in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, theirs.bfloat16().float())


def test_jax_file_of_another_number_of_heads_is_refused(reference, sizes):
    model = make(JAX, {**sizes, "num_heads": 4}, num_classes=10)
    with pytest.raises(CheckpointError, match="num_heads: expected 4, found 3"):
        load_checkpoint_into(model, reference / JAX, "refuse")


@pytest.mark.parametrize("file", MODELS)
def test_larger_image_resamples_the_positions(file, reference, sizes, caplog):
    model = make(file, {**sizes, "img_size": (48, 64)})
    own = make(file, sizes)
    load_checkpoint_into(own, reference / file, "follow")
    with caplog.at_level(logging.INFO):
        load_checkpoint_into(model, reference / file, "follow")
    assert "positions resampled from 4x4 patches to 6x8" in caplog.text
    expected = resample_abs_pos_embed(own.pos_embed, [6, 8], [4, 4])
    assert torch.equal(model.pos_embed, expected)
    images = torch.randn(1, 3, 48, 64)
    own.set_input_size(img_size=(48, 64))
    assert torch.equal(model(images), own(images))


def test_grid_of_as_many_patches_is_told_apart(reference, sizes):
    wide = make(ALPHA, {**sizes, "img_size": (16, 64)}, num_classes=10)
    load_checkpoint_into(wide, reference / ALPHA, "refuse")
    square = read_checkpoint(reference / ALPHA).state_dict["pos_embedding"]
    expected = resample_abs_pos_embed(square, [2, 8], [4, 4])
    assert torch.equal(wide.pos_embed.detach(), expected)
    # our own file of that model has that grid
    again = make(ALPHA, {**sizes, "img_size": (16, 64)}, num_classes=10)
    again.load_state_dict(convert_state_dict(wide.state_dict(), again))
    assert torch.equal(again.pos_embed, wide.pos_embed)


@pytest.mark.parametrize("file", [JAX, ALPHA, MAE, CLIPA])
def test_other_patch_size_resamples_the_kernel(file, reference, sizes):
    model = make(file, {**sizes, "patch_size": 16, "img_size": 64})
    own = make(file, sizes)
    load_checkpoint_into(own, reference / file, "follow")
    load_checkpoint_into(model, reference / file)
    expected = resample_patch_embed(own.patch_embed.proj.weight.detach(), [16, 16])
    found = model.patch_embed.proj.weight.detach()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert torch.equal(model.pos_embed, own.pos_embed)


def test_other_patch_size_resamples_crates_patch_embedding(reference, sizes):
    model = make(CRATE, {**sizes, "patch_size": 4, "img_size": 16}, num_classes=10)
    own = make(CRATE, sizes)
    load_checkpoint_into(own, reference / CRATE, "follow")
    load_checkpoint_into(model, reference / CRATE)
    own.set_input_size(img_size=(16, 16), patch_size=(4, 4))
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model(images), own(images), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("file", "key"),
    [
        (JAX, "embedding/kernel"),
        (ALPHA, "conv1.weight"),
        (CRATE, "to_patch_embedding.1.weight"),
        (MAE, "patch_embed.proj.weight"),
        (CLIPA, "visual.conv1.weight"),
    ],
)
def test_other_patch_size_is_an_error_of_a_named_file(file, key, reference, sizes):
    model = make(file, {**sizes, "patch_size": 16, "img_size": 64})
    message = rf"{file}: {key}: expected patches of 16x16.*found 8x8"
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint_into(model, reference / file, "follow")


def _altered(reference, file, tmp_path, change):
    state = dict(read_checkpoint(reference / file).state_dict)
    change(state)
    path = tmp_path / "altered.pth"
    torch.save(state, path)
    return path


KEYS = {
    JAX: "Transformer/encoderblock_1/OvercompleteISTABlock_0/D1",
    ALPHA: "transformer.layers.1.1.fn.D1",
    CRATE: "transformer.layers.1.1.fn.weight",
    MAE: "blocks.1.layers.0.1.fn.weight",
    CLIPA: "visual.transformer.resblocks.1.mlp.c_proj",
}


@pytest.mark.parametrize("file", MODELS)
def test_error_names_file_key_and_shapes(file, reference, sizes, tmp_path):
    key = KEYS[file]

    def fails(change, message):
        path = _altered(reference, file, tmp_path, change)
        model = make(file, sizes, num_classes=OUTPUTS[file])
        with pytest.raises(CheckpointError, match=message) as caught:
            load_checkpoint_into(model, path, "refuse")
        assert str(caught.value).startswith(f"{path}: ")

    width = 48 if file in (CRATE, MAE) else 192
    fails(
        lambda state: state.update({key: torch.zeros(48, 7)}),
        re.escape(f"wrong sizes: {key}: expected (48, {width}), found (48, 7)"),
    )
    fails(lambda state: state.pop(key), re.escape(f"missing: {key}"))
    unknown = "visual.surprise" if file == CLIPA else "surprise"
    fails(lambda state: state.update({unknown: torch.zeros(1)}), f"unknown: {unknown}")


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("Transformer/encoderblock_0/MultiHeadDotProductSubspaceAttention_0/proj/kernel", (48, 48)),
        ("embedding/kernel", (8, 8, 48)),
        ("head/kernel", (480,)),
    ],
)
def test_jax_kernel_of_other_dimensions_is_named(key, shape, reference, sizes, tmp_path):
    path = _altered(reference, JAX, tmp_path, lambda state: state.update({key: torch.zeros(shape)}))
    found = re.escape(f"{key}: expected ") + r"\d dimensions, found shape " + re.escape(str(shape))
    with pytest.raises(CheckpointError, match=found):
        load_checkpoint_into(make(JAX, sizes), path, "follow")


def test_many_differences_are_cut_short(reference, sizes):
    model = make(ALPHA, {**sizes, "depth": 9}, num_classes=10)
    with pytest.raises(CheckpointError, match=r"missing: transformer\.layers\.2\..*, and 52 more"):
        load_checkpoint_into(model, reference / ALPHA, "refuse")


def test_other_family_is_refused(reference, sizes):
    with pytest.raises(CheckpointError, match=r"CRATE PyTorch weights do not fit CrateAlpha"):
        load_checkpoint_into(make(ALPHA, sizes), reference / CRATE, "follow")


def test_unknown_layout_is_refused(sizes, tmp_path):
    torch.save({"fc.weight": torch.ones(2)}, tmp_path / "w.pth")
    message = r"w\.pth: unknown layout, with keys fc\.weight; known ones: CRATE-alpha JAX"
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint_into(make(ALPHA, sizes), tmp_path / "w.pth", "follow")
    with pytest.raises(CheckpointError, match=message):
        architecture_of(read_checkpoint(tmp_path / "w.pth"))


@pytest.mark.parametrize("file", [JAX, ALPHA, CRATE])
def test_number_of_classes_follows_the_file_unless_given(file, reference, sizes):
    follows = make(file, sizes, num_classes=3)
    load_checkpoint_into(follows, reference / file, "follow")
    assert (follows.num_classes, follows.head.out_features) == (10, 10)
    headless = make(file, sizes, num_classes=0)
    load_checkpoint_into(headless, reference / file, "refuse")
    images = torch.randn(1, 3, 32, 32)
    before_head = follows.forward_head(follows.forward_features(images), pre_logits=True)
    assert torch.equal(headless(images), before_head)
    head = {JAX: "head/kernel"}.get(file, "mlp_head.1.weight")
    with pytest.raises(CheckpointError, match=f"{head}: expected 3 classes, found 10"):
        load_checkpoint_into(make(file, sizes, num_classes=3), reference / file, "refuse")


def test_timms_loading_begins_a_new_head_for_other_classes(reference, sizes, caplog):
    model = make(JAX, sizes, num_classes=3)
    load_checkpoint_into(model, reference / JAX)
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 3)
    assert "no classifier of 3 classes is taken from the file" in caplog.text


@pytest.mark.parametrize("file", [MAE, CLIPA])
def test_file_without_classifier_leaves_the_models(file, reference, sizes, caplog):
    model = make(file, sizes, num_classes=6)
    head = model.head.weight.detach().clone()
    load_checkpoint_into(model, reference / file, "refuse")
    assert torch.equal(model.head.weight, head)
    assert "the model's stays untrained" in caplog.text


def test_parts_beside_the_backbone_are_left_aside_aloud(reference, sizes, caplog):
    with caplog.at_level(logging.INFO):
        load_checkpoint_into(make(MAE, sizes), reference / MAE, "follow")
    assert "CRATE-MAE: left aside, not the backbone's:" in caplog.text
    assert "decoder_pred.weight" in caplog.text


def _demo_state(reference):
    """The segmentation demo's layout: a square mlp_head.1, and the classifier behind it."""
    state = dict(read_checkpoint(reference / CRATE).state_dict)
    torch.manual_seed(0)
    for key, shape in (("mlp_head.1", (48, 48)), ("head", (21, 48))):
        state |= {f"{key}.weight": torch.randn(shape), f"{key}.bias": torch.randn(shape[0])}
    return state


@pytest.mark.parametrize("pre_logits", [False, True])
def test_segmentation_demo_file_brings_its_layer(pre_logits, reference, sizes, tmp_path):
    state = _demo_state(reference)
    torch.save({"model": state}, tmp_path / "demo.pth")
    checkpoint = read_checkpoint(tmp_path / "demo.pth")
    assert checkpoint.renamed.classes == 21
    assert architecture_of(checkpoint)["pre_logits"] is True
    model = make("crate_base_patch8_224", sizes, pre_logits=pre_logits)
    load_checkpoint_into(model, tmp_path / "demo.pth", "follow")
    images = torch.randn(1, 3, 32, 32)
    features = model.fc_norm(model.forward_features(images)[:, 0])
    hidden = features @ state["mlp_head.1.weight"].T + state["mlp_head.1.bias"]
    logits = hidden @ state["head.weight"].T + state["head.bias"]
    torch.testing.assert_close(model(images), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["crate_base_patch8_224.in21k", "crate_base_patch8_224"])
def test_segmentation_demo_file_loads_through_timm(name, reference, sizes, tmp_path):
    torch.save({"model": _demo_state(reference)}, tmp_path / "demo.pth")
    overlay = {"file": str(tmp_path / "demo.pth"), "num_classes": 21}
    model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **sizes)
    other = make("crate_base_patch8_224", sizes)
    load_checkpoint_into(other, tmp_path / "demo.pth", "follow")
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(model.eval()(images), other(images))


def test_plain_file_takes_the_layer_before_the_classifier_away(reference, sizes):
    model = make("crate_base_patch8_224", sizes, pre_logits=True)
    load_checkpoint_into(model, reference / CRATE, "follow")
    plain = make(CRATE, sizes)
    load_checkpoint_into(plain, reference / CRATE, "follow")
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(model(images), plain(images))


def test_timms_filter_names_what_does_not_fit(reference, sizes):
    state = dict(read_checkpoint(reference / ALPHA).state_dict)
    state["transformer.layers.0.1.fn.D"] = torch.zeros(2, 2)
    model = make(ALPHA, sizes, num_classes=3)
    with pytest.raises(CheckpointError, match=r"layers\.0\.1\.fn\.D: expected \(48, 192\)"):
        convert_state_dict(state, model)


def test_empty_state_dict_is_refused(sizes, tmp_path):
    with pytest.raises(CheckpointError, match="unknown layout"):
        convert_state_dict({}, make(ALPHA, sizes))
    empty = Checkpoint({}, {}, tmp_path / "none.pth")
    assert empty.renamed.classes is None
