"""CRATE against the official implementation's numbers and against its equations."""

import numpy as np
import pytest
import timm
import torch
from timm.layers import resample_patch_embed
from torch import nn
from torch.nn import functional

from crate_interp.errors import InputError
from crate_interp.models.crate import ISTA, CrateBlock
from crate_interp.models.patches import CratePatchEmbed, PatchProjection
from crate_interp.weights.fit import load_checkpoint_into

NAME = "crate_d48_l2_h3_p8_i32_c10"


def _model(how, path, sizes):
    name = "crate_small_patch16_224"
    if how == "load_checkpoint_into":
        model = timm.create_model(name, num_classes=10, **sizes)
        load_checkpoint_into(model, path, "refuse")
    else:
        overlay = {"file": str(path), "num_classes": 10}
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **sizes)
    return model.eval()


@pytest.mark.parametrize("how", ["load_checkpoint_into", "timm"])
@pytest.mark.parametrize("fused", [True, False])
def test_file_gives_the_reference_vectors(how, fused, reference, sizes, trace):
    model = _model(how, reference / f"{NAME}.pth.tar", sizes)
    for block in model.blocks:
        block.attn.fused_attn = fused
    expected = np.load(reference / f"{NAME}_io.npz")
    found = trace(model, torch.from_numpy(expected["input_nchw"]))
    names = [name for name in expected.files if name != "input_nchw"]
    assert len(names) == 9
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-4)
    # the sparse step has no residual: its output is the block's, and the code itself
    for number in range(2):
        assert torch.equal(found[f"block0{number}/sparse_block"], found[f"block0{number}/out"])
        assert torch.equal(found[f"block0{number}/sparse_block"], found[f"block0{number}/codes"])


def test_ista_is_its_equation_with_its_gradients():
    torch.manual_seed(0)
    ista = ISTA(7, step_size=0.3, threshold=0.5).double()
    x = torch.randn(2, 5, 7, dtype=torch.float64, requires_grad=True)
    D = ista.weight
    gradient = (x - x @ D.T) @ D
    expected = torch.relu(x + 0.3 * gradient - 0.3 * 0.5)
    weights = torch.randn_like(expected)
    found = ista(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    assert 0.05 < (found == 0).double().mean() < 0.95
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), (x, D)),
        torch.autograd.grad((expected * weights).sum(), (x, D)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_dropped_path_leaves_the_sparse_step():
    torch.manual_seed(0)
    block = CrateBlock(8, 2, drop_path=0.999999)
    x = torch.randn(1, 6, 8)
    assert torch.equal(block(x), block.mlp(block.norm2(x)))


def test_patches_are_flattened_as_row_column_colour():
    projection = PatchProjection(3, 2 * 2 * 3, (2, 2))
    with torch.no_grad():
        projection.linear.weight.copy_(torch.eye(12))
        projection.linear.bias.zero_()
    projection.norm = nn.Identity()
    image = torch.arange(3 * 4 * 6.0).reshape(1, 3, 4, 6)
    tokens = projection(image)
    assert tokens.shape == (1, 12, 2, 3)
    patch = image[0, :, 2:4, 4:6]  # second row, third column
    assert torch.equal(tokens[0, :, 1, 2], patch.permute(1, 2, 0).flatten())


@pytest.mark.parametrize("stride", [(2, 2), (4, 2), (3, 3)])
def test_smaller_stride_gives_denser_tokens(stride):
    torch.manual_seed(0)
    stem = CratePatchEmbed(img_size=None, patch_size=4, embed_dim=6)
    images = torch.randn(2, 3, 12, 16)
    stem.proj.stride = stride
    tokens = stem(images)
    columns = functional.unfold(images, 4, stride=stride)  # (B, C p1 p2, n)
    values = columns.unflatten(1, (3, 4, 4)).permute(0, 4, 2, 3, 1).flatten(2)
    expected = stem.norm(stem.proj.linear(stem.proj.norm(values)))
    torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-6)
    rows, columns_ = stem.dynamic_feat_size((12, 16))
    assert rows * columns_ == tokens.shape[1]
    assert stem.proj.stride == stride


def test_another_patch_size_resamples_the_linear_map_as_timm_does_a_kernel():
    torch.manual_seed(0)
    stem = CratePatchEmbed(img_size=32, patch_size=8, embed_dim=6)
    with torch.no_grad():
        stem.proj.norm.weight.normal_()
    old = {name: value.clone() for name, value in stem.proj.state_dict().items()}
    stem.set_input_size(img_size=(32, 64), patch_size=16)
    assert (stem.patch_size, stem.grid_size, stem.num_patches) == ((16, 16), (2, 4), 8)
    kernel = old["linear.weight"].reshape(6, 8, 8, 3).permute(0, 3, 1, 2)
    expected = resample_patch_embed(kernel, [16, 16]).permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(stem.proj.linear.weight.detach(), expected)
    assert torch.equal(stem.proj.linear.bias, old["linear.bias"])
    picture = old["norm.weight"].reshape(1, 8, 8, 3).permute(0, 3, 1, 2)
    picture = functional.interpolate(picture, (16, 16), mode="bicubic", antialias=True)
    torch.testing.assert_close(
        stem.proj.norm.weight.detach(), picture.permute(0, 2, 3, 1).flatten()
    )
    assert stem.proj.norm.eps == CratePatchEmbed(img_size=32, patch_size=8).proj.norm.eps
    assert stem(torch.randn(1, 3, 32, 64)).shape == (1, 8, 6)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("crate_tiny_patch16_224", 6.09),
        ("crate_small_patch16_224", 13.12),
        ("crate_base_patch16_224", 22.80),
        ("crate_large_patch16_224", 77.64),
    ],
)
def test_parameters_are_as_many_as_published(name, millions):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=1000, weight_init="skip")
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.005)


def test_segmentation_demo_has_six_heads_and_a_layer_before_its_classifier():
    with torch.device("meta"):
        demo = timm.create_model("crate_base_patch8_224.in21k", weight_init="skip")
        plain = timm.create_model("crate_base_patch8_224", num_classes=1000, weight_init="skip")
    assert demo.blocks[0].attn.num_heads == 6
    assert demo.num_classes == 21842
    assert isinstance(demo.pre_logits, nn.Linear)
    assert plain.blocks[0].attn.num_heads == 12
    assert not isinstance(plain.pre_logits, nn.Linear)


def test_layer_before_the_classifier_is_in_the_logits(sizes):
    name = "crate_tiny_patch16_224"
    model = timm.create_model(name, num_classes=5, pre_logits=True, **sizes).eval()
    images = torch.randn(2, 3, 32, 32)
    features = model.forward_features(images)
    expected = model.head(model.pre_logits(model.fc_norm(features[:, 0])))
    assert torch.equal(model(images), expected)
    before = model.forward_head(features, pre_logits=True)
    assert torch.equal(model.head(before), expected)


def test_no_image_gives_no_logits(sizes):
    model = timm.create_model("crate_tiny_patch16_224", num_classes=7, **sizes)
    assert model(torch.empty(0, 3, 32, 32)).shape == (0, 7)


def test_what_no_crate_has_is_refused(sizes):
    with pytest.raises(InputError, match="qk_norm=True: a CRATE block has no such option"):
        timm.create_model("crate_tiny_patch16_224", qk_norm=True, **sizes)
