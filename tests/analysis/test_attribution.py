"""Attribution, against the definition on the whole graph and a plain quadrature, in float64."""

import builtins

import numpy as np
import pytest
import timm
import torch
from timm.data import resolve_model_data_config

from crate_interp import InputError, any_resolution
from crate_interp.analysis import attention_relevance, attribution, integrated_gradients

TINY = {"embed_dim": 48, "depth": 3, "num_heads": 3, "patch_size": 8, "img_size": 32}
TINY |= {"num_classes": 10}
ARCHITECTURES = {
    "plain": ("vit_tiny_patch16_224", {}),
    "registers": ("vit_small_patch14_reg4_dinov2", {"init_values": 0.5}),
    "qk_norm": ("vit_tiny_patch16_224", {"qk_norm": True}),
    "crate": ("crate_tiny_patch16_224", {}),
    "crate_alpha": ("crate_alpha_tiny_patch16_224", {}),
    "eva02": ("eva02_tiny_patch14_224", {"global_pool": "token"}),
    "rope_mixed": ("vit_base_patch16_rope_mixed_224", {"global_pool": "token"}),
}
CLASSES = torch.tensor([7, 2])


def make(name, **extra):
    torch.manual_seed(0)
    architecture, arguments = ARCHITECTURES[name]
    model = timm.create_model(architecture, **(TINY | arguments | extra)).eval().double()
    for parameter in model.parameters():  # away from the initial zeros and ones
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def pixels(height=32, width=32):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64)


def relevance_by_definition(model, image, number):
    """R <- R + A R block by block, with maps and gradients of one graph of the whole model."""
    maps, hooks = [], []
    for block in model.blocks:
        block.attn.fused_attn = False
        hook = block.attn.attn_drop.register_forward_hook(lambda _, __, out: maps.append(out))
        hooks.append(hook)
    score = model(image[None])[0, number]
    gradients = torch.autograd.grad(score, maps)
    for block, hook in zip(model.blocks, hooks, strict=True):
        block.attn.fused_attn = True
        hook.remove()
    count = maps[0].shape[-1]
    total = torch.eye(count, dtype=torch.float64)
    for attention, gradient in zip(maps, gradients, strict=True):
        mean = torch.zeros(count, count, dtype=torch.float64)
        for head in range(3):
            mean += (attention[0, head] * gradient[0, head]).detach().clamp(min=0) / 3
        total = total + mean @ total
    return total[0, model.num_prefix_tokens :]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_relevance_is_that_of_the_definition(name):
    model = make(name)
    with torch.inference_mode():  # as a caller may be in
        found = attention_relevance(model, pixels(), CLASSES)
    for row, image, number in zip(found, pixels(), CLASSES, strict=True):
        expected = relevance_by_definition(model, image, number)
        torch.testing.assert_close(row, expected, rtol=1e-9, atol=1e-12)
    assert found.min() >= 0
    assert found.max() > 0


def test_relevance_at_any_resolution_depends_on_the_class_and_leaves_the_model_alone():
    model = make("crate")
    before = model(pixels())
    with any_resolution(model):
        found = attention_relevance(model, pixels(24, 40), CLASSES)
        other = attention_relevance(model, pixels(24, 40), CLASSES.flip(0))
    assert found.shape == (2, 15)
    assert not torch.allclose(found, other)
    assert all(block.attn.fused_attn for block in model.blocks)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(model(pixels()), before)


@pytest.mark.parametrize("name", ["registers", "crate", "crate_alpha"])
def test_explicit_attention_gives_what_fused_attention_gives(name):
    model = make(name)
    attention = model.blocks[1].attn
    tokens = torch.randn(2, 17, 48, dtype=torch.float64)
    expected = attention(tokens)
    with attribution._ExplicitAttention() as explicit:
        found = attention(tokens)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(explicit.maps[-1].sum(-1), torch.ones(2, 3, 17).double())
    with pytest.raises(RuntimeError, match="stop"), attribution._ExplicitAttention():
        raise RuntimeError("stop")
    assert attention.fused_attn
    assert not attention.attn_drop._forward_hooks


def black(model):
    config = resolve_model_data_config(model)
    mean, std = (torch.tensor(config[key]).double().view(3, 1, 1) for key in ("mean", "std"))
    return (-mean / std).expand(2, 3, 32, 32)


@pytest.mark.parametrize("name", ["plain", "crate", "crate_alpha"])
@pytest.mark.parametrize("at_once", [None, 5])
def test_integrated_gradients_are_a_quadrature_of_gradients(name, at_once):
    pytest.importorskip("captum", reason="needs the extra attribution")
    model = make(name)
    with torch.inference_mode():
        found = integrated_gradients(model, pixels(), CLASSES, steps=8, at_once=at_once)
    points, weights = np.polynomial.legendre.leggauss(8)
    for image, start, number, values, difference in zip(
        pixels(), black(model), CLASSES, *found, strict=True
    ):
        expected = torch.zeros_like(image)
        for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
            between = (start + point * (image - start)).requires_grad_()
            score = model(between[None])[0, number]
            expected += weight * torch.autograd.grad(score, between)[0] * (image - start)
        torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-7)
        scores = model(torch.stack([image, start]))[:, number].detach()
        torch.testing.assert_close(difference, scores[0] - scores[1])


@pytest.mark.parametrize(
    ("name", "tolerance"), [("plain", 1e-4), ("crate", 0.03), ("crate_alpha", 0.03)]
)
def test_integrated_gradients_sum_to_the_difference_of_scores(name, tolerance):
    pytest.importorskip("captum", reason="needs the extra attribution")
    model = make(name)
    values, difference = integrated_gradients(model, pixels(), CLASSES, steps=50, at_once=100)
    assert (values.sum(dim=(1, 2, 3)) - difference).abs().max() < tolerance
    coarse = integrated_gradients(model, pixels(), CLASSES, steps=1).values
    assert (coarse.sum(dim=(1, 2, 3)) - difference).abs().max() > tolerance


def test_without_captum_the_extra_is_named(monkeypatch):
    whole_import = builtins.__import__

    def without_captum(name, *rest):
        if name.startswith("captum"):
            raise ImportError(name)
        return whole_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_captum)
    with pytest.raises(InputError, match=r"pip install 'crate-interp\[attribution\]'"):
        integrated_gradients(make("plain"), pixels(), CLASSES)


@pytest.mark.parametrize(
    ("extra", "classes", "message"),
    [
        ({"num_classes": 0}, CLASSES, "gives no class scores"),
        ({"class_token": False, "global_pool": "avg"}, CLASSES, "no class token"),
        ({"global_pool": "avg"}, CLASSES, "found global_pool 'avg'"),
        ({}, torch.tensor([0, 10]), "class 10: expected 0 to 9"),
        ({}, torch.tensor([0]), r"each of 2 images, found shape \(1,\)"),
    ],
)
def test_a_model_or_class_that_does_not_do_is_refused(extra, classes, message):
    with pytest.raises(InputError, match=message):
        attention_relevance(make("plain", **extra), pixels(), classes)


def test_attention_of_another_kind_is_refused():
    model = timm.create_model(
        "vit_tiny_patch16_224", **TINY, block_fn=timm.models.vision_transformer.ResPostBlock
    )
    model.blocks[1].attn = torch.nn.Identity()
    with pytest.raises(InputError, match="no site attention at block 1"):
        attention_relevance(model.double(), pixels(), CLASSES)


def test_an_empty_batch_has_no_relevance():
    found = attention_relevance(make("crate"), pixels()[:0], CLASSES[:0])
    assert found.shape == (0, 16)
