"""Causal language models against the official implementation's numbers, and their files."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from crate_interp.errors import CheckpointError, InputError
from crate_interp.models.text import TEXT_MODELS, TextTransformer
from crate_interp.weights import load_backbone, load_text_model, write_safetensors
from crate_interp.weights.text import (
    TextRecord,
    create_text_model,
    load_text_model_with_record,
)

FILES = {
    "crate_text_base": "crate_lm_d48_l2_h3_v97_t32",
    "crate_overcomplete_text_base": "crate_lm_overcomplete_d48_l2_h3_v97_t32",
}
TINY = {"vocabulary": 11, "context": 8, "embed_dim": 12, "depth": 2, "num_heads": 3}
MINI = [name for name in TEXT_MODELS if name.endswith("mini")]


def trace(model, tokens):
    seen = {}
    handles = []
    for number, block in enumerate(model.blocks):
        parts = {"subspace": block.attn.qkv, "codes": block.mlp.codes, "tokens": block}
        for name, module in parts.items():

            def keep(_, __, output, name=f"{name}_{number}"):
                seen[name] = output.clone()

            handles.append(module.register_forward_hook(keep))
    with torch.no_grad():
        seen["logits"] = model(tokens)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", FILES)
def test_released_file_gives_the_reference_vectors(name, fused, reference):
    expected = np.load(reference / f"{FILES[name]}_io.npz")
    model = load_text_model(name, reference / f"{FILES[name]}.pt")
    for block in model.blocks:
        block.attn.fused_attn = fused
    seen = trace(model, torch.from_numpy(expected["idx"]))
    targets = torch.from_numpy(expected["targets"])
    seen["loss"] = F.cross_entropy(seen["logits"].flatten(0, 1), targets.flatten())
    names = [each for each in expected.files if each not in ("idx", "targets")]
    assert len(names) == 8
    for each in names:
        np.testing.assert_allclose(seen[each], expected[each], rtol=0, atol=1e-4)


def test_sizes_and_vocabulary_are_those_of_the_released_file(reference):
    model, record = load_text_model_with_record(
        "crate_text_base", reference / f"{FILES['crate_text_base']}.pt"
    )
    assert (model.vocabulary, model.context, len(model.blocks)) == (97, 32, 2)
    assert model.blocks[0].attn.num_heads == 3
    assert record.vocabulary == {"name": "gpt2"}


@pytest.mark.parametrize("name", MINI)
@pytest.mark.parametrize("fused", [True, False])
def test_later_tokens_change_nothing_before_them(name, fused):
    torch.manual_seed(0)
    model = create_text_model(name, **TINY)
    for block in model.blocks:
        block.attn.fused_attn = fused
    tokens = torch.arange(8)[None]
    other = tokens.clone()
    other[0, 5] = 10
    with torch.no_grad():
        one, two = model(tokens), model(other)
    torch.testing.assert_close(one[:, :5], two[:, :5])
    assert not torch.allclose(one[:, 5:], two[:, 5:])


def test_alpha_is_the_vision_blocks_with_a_causal_mask():
    model = create_text_model("crate_alpha_text_mini", **TINY)
    (block, _), tokens = model.blocks, torch.arange(6)[None]
    x = model.token_embedding(tokens) + model.pos_embed[:6]
    w = F.linear(
        F.layer_norm(x, (12,), block.norm1.weight, block.norm1.bias), block.attn.qkv.weight
    )
    w = w.unflatten(-1, (3, 4)).transpose(1, 2)
    scores = (w @ w.mT / 2).masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf)
    out = (scores.softmax(-1) @ w).transpose(1, 2).flatten(2)
    half = x + out @ block.attn.proj.weight.T
    y, dictionary = F.layer_norm(half, (12,), block.norm2.weight, block.norm2.bias), block.mlp.D
    first = (0.1 * y @ dictionary - 0.01).relu()
    codes = (first - 0.1 * (first @ dictionary.T - y) @ dictionary - 0.01).relu()
    expected = half + codes @ block.mlp.D1.T
    torch.testing.assert_close(block(x), expected)
    assert block.attn.proj.bias is None


@pytest.mark.parametrize("name", MINI)
def test_models_of_one_size_have_about_as_many_parameters(name):
    model = create_text_model(name)
    assert sum(value.numel() for value in model.parameters()) == pytest.approx(825_000, rel=0.02)
    assert "head.weight" not in model.state_dict()  # tied


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.tensor([[0, 11]]), "expected numbers from 0 to 10.*found 0 to 11"),
        (torch.tensor([[-1, 3]]), "found -1 to 3"),
        (
            torch.zeros(1, 9, dtype=torch.long),
            r"expected texts of 1 to 8 tokens, found shape \(1, 9",
        ),
        (torch.zeros(1, 0, dtype=torch.long), "expected texts of 1 to 8 tokens"),
        (torch.zeros(3, dtype=torch.long), "expected texts of 1 to 8 tokens"),
    ],
)
def test_tokens_that_are_none_are_refused(tokens, message):
    model = create_text_model("crate_text_mini", **TINY)
    with pytest.raises(InputError, match=message):
        model(tokens)
    assert model(torch.zeros(0, 4, dtype=torch.long)).shape == (0, 4, 11)


def test_our_file_knows_its_model(tmp_path):
    model = create_text_model("gpt_text_mini", **TINY)
    record = TextRecord("gpt_text_mini", TINY, {"characters": "abcdefghijk"})
    path = tmp_path / "model.safetensors"
    write_safetensors(path, model.state_dict(), record.to_metadata())
    again, stored = load_text_model_with_record(path)
    tokens = torch.arange(8)[None]
    assert torch.equal(again(tokens), model(tokens))
    assert stored == record
    with pytest.raises(CheckpointError, match=r"safetensors: holds a text model, which load_text"):
        load_backbone(path)
    with pytest.raises(
        InputError, match="gpt_text_mini is a text model: expected a model of images"
    ):
        load_backbone("gpt_text_mini")


def test_random_weights_are_the_same_each_time():
    one, two = (load_text_model("crate_alpha_text_mini", "random", **TINY) for _ in range(2))
    for first, second in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(first, second)


def test_gradient_checkpoints_change_no_gradient():
    model = create_text_model("crate_overcomplete_text_mini", **TINY).train()
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(torch.arange(8)[None]).square().mean().backward()
        gradients.append(model.blocks[0].mlp.D.grad.clone())
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        (
            "crate_text",
            {},
            "unknown text model 'crate_text'; nearest names: crate_text_mini, crate_text_base",
        ),
        ("crate_text_mini", {"num_heads": 7}, "embed_dim 256 is not a multiple of num_heads 7"),
        ("gpt_text_mini", {"num_heads": 7}, "embed_dim 128 is not a multiple of num_heads 7"),
        (
            "gpt_text_mini",
            {"step_size": 0.2},
            "step_size: expected mlp_ratio of the blocks gpt, found 0.2",
        ),
        ("crate_text_mini", {"context": 0}, "'context' 0: expected a whole number from 1"),
        ("crate_text_mini", {"width": 7}, "width.* 7: expected a size"),
    ],
)
def test_models_that_cannot_be_made_are_refused(name, sizes, message):
    with pytest.raises(InputError, match=message):
        create_text_model(name, **sizes)


def test_files_that_do_not_fit_are_refused(tmp_path, reference):
    complete, overcomplete = (reference / f"{file}.pt" for file in FILES.values())
    with pytest.raises(CheckpointError, match=r"expected the blocks crate.*found overcomplete"):
        load_text_model("crate_text_base", overcomplete)
    with pytest.raises(InputError, match="embed_dim 48 is not a multiple of num_heads 5"):
        load_text_model("crate_text_base", complete, num_heads=5)
    with pytest.raises(CheckpointError, match=r"wpe.weight: expected \(8, 48\), found \(32, 48\)"):
        load_text_model("crate_text_base", complete, context=8)
    content = torch.load(complete, weights_only=True)
    content["model"]["lm_head.weight"] = content["model"]["lm_head.weight"] + 1
    torch.save(content, tmp_path / "head.pt")
    with pytest.raises(CheckpointError, match=r"lm_head.weight: expected the token embedding"):
        load_text_model("crate_text_base", tmp_path / "head.pt")
    vision = reference / "crate_d48_l2_h3_p8_i32_c10.pth.tar"
    with pytest.raises(CheckpointError, match="expected a text model"):
        load_text_model("crate_text_base", vision)
    (tmp_path / "empty.pt").touch()
    with pytest.raises(CheckpointError, match="the file is empty"):
        load_text_model("crate_text_base", tmp_path / "empty.pt")
    with pytest.raises(CheckpointError, match="no weights are published for gpt_text_base"):
        load_text_model("gpt_text_base")
    write_safetensors(tmp_path / "m.safetensors", {"a": torch.ones(1)}, {"text_model": "x"})
    with pytest.raises(CheckpointError, match="expected text_model_args, found none"):
        load_text_model(tmp_path / "m.safetensors")
    write_safetensors(tmp_path / "n.safetensors", {"a": torch.ones(1)}, {"model": json.dumps("x")})
    with pytest.raises(CheckpointError, match="does not say which text model it is"):
        load_text_model(tmp_path / "n.safetensors")


def test_unknown_blocks_are_refused():
    with pytest.raises(InputError, match="block: expected crate or overcomplete or alpha or gpt"):
        TextTransformer("vit", **TINY)
