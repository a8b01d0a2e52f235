"""Attention from queries and keys, against the whole maps that the recorder gives."""

from dataclasses import replace

import pytest
import timm
import torch

from crate_interp import InputError, any_resolution, load_backbone, record
from crate_interp.hooks import attention_chunks, attention_map, attention_token

SITES = ["query", "key", "attention", "cls_attention"]


def recorded(name="demo", size=(24, 32), blocks=(0, -1), **arguments):
    torch.manual_seed(0)
    model = timm.create_model(name, **arguments) if arguments else load_backbone(name)
    sites = SITES if getattr(model, "cls_token", None) is not None else SITES[:3]
    pixels = torch.randn(2, 3, *size)
    with torch.no_grad(), any_resolution(model), record(model, sites, blocks) as recorder:
        model(pixels)
    return model.blocks[0].attn.num_heads, recorder.activations


SMALL = {"embed_dim": 12, "depth": 2, "num_heads": 3, "patch_size": 8, "img_size": 32}
MODELS = [
    ("demo", {}),
    ("demo_crate", {}),
    ("demo_vit", {}),
    ("vit_base_patch16_224", {**SMALL, "qk_norm": True, "reg_tokens": 2}),
]


@pytest.mark.parametrize(("name", "arguments"), MODELS)
def test_maps_are_rows_of_the_whole_map(name, arguments):
    heads, activations = recorded(name, **arguments)
    rows, columns = activations.grid_hw
    prefix = activations.num_prefix_tokens
    for block in (0, -1):
        whole = activations["attention", block]
        found = attention_map(activations, block)
        expected = activations["cls_attention", block][..., prefix:].reshape(
            2, heads, rows, columns
        )
        torch.testing.assert_close(found, expected)
        for patch in ((0, 0), (1, 2), (rows - 1, columns - 1)):
            token = prefix + patch[0] * columns + patch[1]
            assert attention_token(activations, patch) == token
            found = attention_map(activations, block, patch)
            expected = whole[:, :, token, prefix:].reshape(2, heads, rows, columns)
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_chunks_are_the_whole_map_in_order(rows):
    _, activations = recorded()
    chunks = list(attention_chunks(activations, -1, rows=rows))
    count = activations["query", -1].shape[1]
    assert [number for at, _ in chunks for number in range(at.start, at.stop)] == [*range(count)]
    assert max(attention.shape[2] for _, attention in chunks) == min(rows, count)
    whole = torch.cat([attention for _, attention in chunks], dim=2)
    torch.testing.assert_close(whole, activations["attention", -1])
    assert not list(attention_chunks(activations, -1, slice(3, 3)))


def test_what_is_not_there_is_refused():
    heads, activations = recorded()
    with pytest.raises(InputError, match=r"\(6, 0\) .* out of range: .* \(0, 0\) to \(5, 7\)"):
        attention_map(activations, patch=(6, 0))
    with pytest.raises(InputError, match=r"\(0, -1\) .* out of range"):
        attention_map(activations, patch=(0, -1))
    with pytest.raises(InputError, match="num_heads: 5 do not divide"):
        attention_map(replace(activations, num_heads=5))
    with pytest.raises(KeyError, match=r"\('query', 1\) was not recorded"):
        attention_map(activations, 1)
    heads, activations = recorded(
        "vit_base_patch16_224", class_token=False, global_pool="avg", **SMALL
    )
    with pytest.raises(InputError, match="no class token"):
        attention_map(activations)
    assert attention_map(activations, patch=(0, 0)).shape == (2, heads, 3, 4)
