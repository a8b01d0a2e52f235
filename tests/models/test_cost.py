"""Counts of a forward pass: the closed form, the published sizes, fused attention or not."""

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from crate_interp.errors import InputError
from crate_interp.models import forward_cost
from crate_interp.weights import create_backbone, create_on_meta, resolve_name

SIZES = {"embed_dim": 48, "depth": 3, "num_heads": 3, "patch_size": 8, "img_size": 32}
D, N, DEPTH, CLASSES, PATCHES, PATCH_VALUES = 48, 17, 3, 1000, 16, 8 * 8 * 3


def fuse(model, fused):
    for block in model.blocks:
        block.attn.fused_attn = fused
    return model


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("name", "products", "outputs"),
    [  # of a layer: multiply-adds D^2 N a token beside attention, and outputs of width D a token
        ("vit_tiny_patch16_224", 12, 9),
        ("crate_alpha_tiny_patch16_224", 18, 12),
        ("crate_tiny_patch16_224", 4, 4),
    ],
)
def test_forward_cost_is_the_closed_form(name, products, outputs, device, fused):
    architecture = resolve_name(name)
    make = create_on_meta if device == "meta" else create_backbone
    model = fuse(make(architecture, **SIZES).eval(), fused)
    cost = forward_cost(model, torch.zeros(2, 3, 32, 32, device=device))
    stem, head = PATCHES * PATCH_VALUES * D, D * CLASSES
    layers = DEPTH * (products * D * D * N + 2 * N * N * D)
    assert cost.multiply_adds == stem + layers + head
    assert cost.flops == 2 * cost.multiply_adds
    assert cost.activations == PATCHES * D + DEPTH * outputs * D * N + CLASSES
    assert cost.parameters == sum(value.numel() for value in model.state_dict().values())


@pytest.mark.parametrize(
    ("name", "parameters", "gmacs", "activations"),
    [  # of the papers and of timm's tables, whose GMACs of a ViT leave attention out
        ("vit_B16", 86.57, 17.6, 16.5),
        ("vit_T16", 5.72, 1.3, 4.1),
        ("crate_T16", 6.09, None, None),
        ("crate_S16", 13.12, None, None),
        ("crate_B16", 22.80, None, None),
        ("crate_L16", 77.64, None, None),
        ("crate_alpha_T16", 4.81, None, None),
        ("crate_alpha_S16", 40.98, None, None),
        ("crate_alpha_B32", 73.99, None, None),
        ("crate_alpha_B16", 72.33, 25.9, None),
        ("crate_alpha_B8", 72.34, 111.5, None),
        ("crate_alpha_L14", 253.65, None, None),
        ("crate_alpha_L8", 253.79, 386.0, None),
    ],
)
def test_forward_cost_is_the_published_one(name, parameters, gmacs, activations):
    model = create_on_meta(resolve_name(name), num_classes=1000).eval()
    cost = forward_cost(model, torch.empty(1, 3, 224, 224, device="meta"))
    assert cost.parameters / 1e6 == pytest.approx(parameters, abs=0.0051)
    if gmacs is not None:
        assert cost.multiply_adds / 1e9 == pytest.approx(gmacs, abs=0.051)
    if activations is not None:
        assert cost.activations / 1e6 == pytest.approx(activations, abs=0.051)


def test_attention_products_are_all_that_a_fused_kernel_adds():
    model = create_on_meta(resolve_name("vit_B16")).eval()
    assert isinstance(model, VisionTransformer)
    cost = forward_cost(model, torch.empty(1, 3, 224, 224, device="meta"))
    without = cost.multiply_adds - 12 * 2 * 197 * 197 * 768
    assert without / 1e9 == pytest.approx(16.85, abs=0.005)


def test_grouped_convolution_and_attention_count():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(4, 8, 3, groups=2, bias=False)

        def forward(self, images):
            tokens = self.convolution(images).flatten(2).transpose(1, 2)[:, None]
            return F.scaled_dot_product_attention(tokens, tokens, tokens)

    cost = forward_cost(Model().eval(), torch.zeros(3, 4, 6, 5))
    positions = 4 * 3
    assert cost.parameters == 8 * 2 * 9
    assert cost.multiply_adds == positions * 8 * 2 * 9 + 2 * positions**2 * 8
    assert cost.activations == positions * 8


def test_no_image_is_refused():
    with pytest.raises(InputError, match="images: expected one or more"):
        forward_cost(nn.Identity(), torch.empty(0, 3, 8, 8))
