"""CRATE-alpha against the official implementation's numbers and against its equations."""

import numpy as np
import pytest
import timm
import torch
from timm.layers import set_fused_attn, use_fused_attn
from torch.utils._python_dispatch import TorchDispatchMode

from crate_interp import load_backbone
from crate_interp.errors import InputError
from crate_interp.models.crate_alpha import ODL, CrateAlphaBlock
from crate_interp.models.subspace import SubspaceAttention
from crate_interp.weights.fit import load_checkpoint_into

TORCH = "crate_alpha_torch_d48_l2_h3_p8_i32_c10"
JAX = "crate_alpha_jax_d48_l2_h3_p8_i32_c10"
TOLERANCE = 1e-4


def _torch_model(how, path, sizes):
    name = "crate_alpha_base_patch16_224"
    if how == "load_checkpoint_into":
        model = timm.create_model(name, num_classes=10, **sizes)
        load_checkpoint_into(model, path, "refuse")
    else:
        overlay = {"file": str(path), "num_classes": 10, "custom_load": path.suffix == ".npz"}
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **sizes)
    return model.eval()


@pytest.mark.parametrize("how", ["load_checkpoint_into", "timm"])
@pytest.mark.parametrize("fused", [True, False])
def test_torch_file_gives_the_reference_vectors(how, fused, reference, sizes, trace):
    model = _torch_model(how, reference / f"{TORCH}.pth", sizes)
    for block in model.blocks:
        block.attn.fused_attn = fused
    expected = np.load(reference / f"{TORCH}_io.npz")
    found = trace(model, torch.from_numpy(expected["input_nchw"]))
    names = [name for name in expected.files if name != "input_nchw"]
    assert len(names) == 9
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("how", ["load_checkpoint_into", "timm"])
def test_jax_file_gives_the_reference_vectors(how, reference, sizes, trace):
    model = _torch_model(how, reference / f"{JAX}.npz", sizes)
    expected = np.load(reference / f"{JAX}_io.npz")
    images = torch.from_numpy(expected["input_nhwc"]).permute(0, 3, 1, 2)
    found = trace(model, images)
    names = [name for name in expected.files if name != "input_nhwc"]
    assert len(names) == 5
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=TOLERANCE)


def test_tolerance_tells_another_model_apart(reference, sizes, trace):
    model = _torch_model("load_checkpoint_into", reference / f"{TORCH}.pth", sizes)
    with torch.no_grad():
        model.blocks[0].mlp.D1[0] += 0.02
        model.blocks[1].attn.qkv.weight[0, 0] += 0.01
    expected = np.load(reference / f"{TORCH}_io.npz")
    found = trace(model, torch.from_numpy(expected["input_nchw"]))
    for name in ("logits", "block01/attention", "block01/subspace_tokens", "block00/sparse_block"):
        assert np.abs(found[name].numpy() - expected[name]).max() > TOLERANCE


def _odl_equation(odl, x):
    shrinkage = odl.step_size * odl.threshold
    first = torch.relu(odl.step_size * (x @ odl.D) - shrinkage)
    residual = first @ odl.D.T - x
    codes = torch.relu(first - odl.step_size * (residual @ odl.D) - shrinkage)
    return codes, codes @ odl.D1.T


def test_odl_is_its_equation_with_its_gradients():
    torch.manual_seed(0)
    odl = ODL(6, 24, step_size=0.3, threshold=0.2).double()
    x = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    parameters = (x, odl.D, odl.D1)
    codes, expected = _odl_equation(odl, x)
    weights = torch.randn_like(expected)
    gradients = torch.autograd.grad((expected * weights).sum(), parameters)
    seen = []
    odl.codes.register_forward_hook(lambda module, inputs, output: seen.append(output))
    found = odl(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(seen[0], codes, rtol=0, atol=1e-13)
    assert 0.05 < (seen[0] == 0).double().mean() < 0.95
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), parameters), gradients, strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_odl_is_four_matrix_products_and_nothing_wider_than_its_codes():
    class Watch(TorchDispatchMode):
        products = 0
        widest = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            self.products += func.__name__.split(".")[0] in {"mm", "bmm", "addmm"}
            self.widest = max(self.widest, result.numel())
            return result

    odl, x = ODL(8, 32), torch.randn(2, 50, 8)
    with Watch() as watch, torch.no_grad():
        odl(x)
    assert watch.products == 4
    assert watch.widest == 2 * 50 * 32


def test_codes_can_be_changed_by_a_hook():
    odl = ODL(8, 32)
    handle = odl.codes.register_forward_hook(lambda module, inputs, output: output * 0)
    assert odl(torch.randn(1, 3, 8)).abs().max() == 0
    handle.remove()
    assert odl(torch.randn(1, 3, 8)).abs().max() > 0
    assert set(odl.state_dict()) == {"D", "D1"}


def test_attention_follows_timms_switch_when_it_is_made():
    before = use_fused_attn()
    try:
        set_fused_attn(enable=False)
        assert SubspaceAttention(8, 2, proj_bias=False).fused_attn is False
        set_fused_attn(enable=True)
        assert SubspaceAttention(8, 2, proj_bias=False).fused_attn is True
    finally:
        set_fused_attn(enable=bool(before))


@pytest.mark.parametrize("fused", [True, False])
def test_attention_dropout_only_in_training(fused):
    torch.manual_seed(0)
    attention = SubspaceAttention(8, 2, proj_bias=True, attn_drop=0.5)
    attention.fused_attn = fused
    x = torch.randn(1, 6, 8)
    assert not torch.equal(attention(x), attention(x))
    attention.eval()
    assert torch.equal(attention(x), attention(x))


def test_dropped_path_leaves_the_residual():
    torch.manual_seed(0)
    block = CrateAlphaBlock(8, 2, drop_path=0.999999)
    x = torch.randn(1, 6, 8)
    assert torch.equal(block(x), x)
    assert not torch.equal(block.eval()(x), x)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("crate_alpha_tiny_patch16_224", 4.81),
        ("crate_alpha_small_patch16_224", 40.98),
        ("crate_alpha_base_patch32_224", 73.99),
        ("crate_alpha_base_patch16_224", 72.33),
        ("crate_alpha_base_patch8_224", 72.34),
        ("crate_alpha_large_patch32_224", 255.98),
        ("crate_alpha_large_patch14_224", 253.65),
        ("crate_alpha_large_patch8_224", 253.79),
        ("crate_alpha_huge_patch14_224", 526.82),
    ],
)
def test_parameters_are_as_many_as_published(name, millions):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=1000, weight_init="skip")
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.005)


def test_fine_tuned_weights_are_the_default():
    for name in ("crate_alpha_base_patch8_224", "crate_alpha_large_patch8_224"):
        cfg = timm.get_pretrained_cfg(name)
        assert cfg.tag == "in1k"
        assert cfg.hf_hub_filename.endswith("_in1k.npz")
        assert cfg.custom_load == "hf"
    cfg = timm.get_pretrained_cfg("crate_alpha_large_patch14_224")
    assert (cfg.tag, cfg.hf_hub_filename) == ("in1k", "torch/crate_alpha_L14.pth")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"qk_norm": True}, "qk_norm=True: a CRATE block has no such option"),
        ({"init_values": 1e-5}, "init_values=1e-05"),
        ({"num_heads": 5}, "embed_dim 48 is not a multiple of num_heads 5"),
    ],
)
def test_what_no_crate_has_is_refused(arguments, message, sizes):
    with pytest.raises(InputError, match=message):
        timm.create_model("crate_alpha_tiny_patch16_224", **{**sizes, **arguments})


def test_no_image_gives_no_logits(sizes):
    model = timm.create_model("crate_alpha_tiny_patch16_224", num_classes=7, **sizes)
    assert model(torch.empty(0, 3, 32, 32)).shape == (0, 7)


def test_autocast_keeps_the_codes_sparse(sizes):
    model = timm.create_model("crate_alpha_tiny_patch16_224", num_classes=7, **sizes).eval()
    images = torch.randn(2, 3, 32, 32)
    seen = []
    model.blocks[1].mlp.codes.register_forward_hook(lambda module, inputs, out: seen.append(out))
    with torch.no_grad():
        exact = model(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = model(images)
    assert seen[1].dtype == torch.bfloat16
    assert ((seen[0] == 0) == (seen[1] == 0)).float().mean() > 0.97
    torch.testing.assert_close(rounded.float(), exact, rtol=0, atol=0.05)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_the_steps_from_crate_to_crate_alpha_are_their_equations(tied, residual, sizes):
    torch.manual_seed(0)
    name, changes = "crate_alpha_base_patch16_224", {"tied": tied, "residual": residual}
    model = timm.create_model(name, num_classes=10, **sizes, **changes).eval()
    block = model.blocks[1].double()
    weights = block.state_dict()
    assert ("mlp.D1" in weights) == (not tied)
    x = torch.randn(2, 17, 48, dtype=torch.float64)
    half = block.attend(x)
    normed = torch.nn.functional.layer_norm(half, (48,), eps=1e-6)
    encoding, writing = weights["mlp.D"], weights["mlp.D" if tied else "mlp.D1"]
    first = (0.1 * normed @ encoding - 0.01).clamp(min=0)
    second = first - 0.1 * (first @ encoding.T - normed) @ encoding - 0.01
    expected = second.clamp(min=0) @ writing.T + (half if residual else 0)
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-10)
    model.float()
    loss = model(torch.randn(2, 3, 32, 32)).square().sum()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_switch_that_is_no_switch_is_refused(sizes):
    with pytest.raises(InputError, match="'tied' 'yes': expected true or false"):
        load_backbone("crate_alpha_B16", pretrained=False, **sizes, tied="yes")
