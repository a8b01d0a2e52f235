"""Coding rate and sparsity against the official numbers and against the definition itself."""

import json

import numpy as np
import pytest
import timm
import torch
from timm.layers import SwiGLU

from crate_interp.analysis import coding_rate, layer_objective, objective_sites
from crate_interp.errors import InputError
from crate_interp.hooks import Site, record
from crate_interp.structures import Activations
from crate_interp.weights import load_backbone

SIZES = {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 8, "img_size": 32}


def plain_rate(features: np.ndarray, eps: float) -> float:
    """1/2 logdet(I_m + p / (m eps) X X^T), one row of features at a time."""
    count, dim = features.shape
    unit = np.stack([row / max(np.sqrt((row**2).sum()), 1e-12) for row in features])
    sign, logdet = np.linalg.slogdet(np.eye(count) + dim / (count * eps) * unit @ unit.T)
    assert sign == 1
    return float(logdet) / 2


@pytest.mark.parametrize(("count", "dim"), [(1, 1), (1, 6), (17, 4), (4, 17), (50, 50)])
@pytest.mark.parametrize("eps", [0.01, 0.5])
def test_coding_rate_equals_the_definition(count, dim, eps):
    features = np.random.default_rng(count).normal(size=(2, 3, count, dim))
    features[0, 0, 0] = 0
    found = coding_rate(torch.from_numpy(features), eps)
    assert found.dtype == torch.float64
    expected = [[plain_rate(head, eps) for head in image] for image in features]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_coding_rate_does_not_depend_on_length_and_is_largest_for_a_sphere():
    features = torch.eye(8).repeat(5, 1)
    largest = 8 / 2 * np.log(1 + 1 / 0.01)
    assert float(coding_rate(features)) == pytest.approx(largest)
    assert float(coding_rate(features * 1e-4)) == pytest.approx(largest)
    assert float(coding_rate(features[:, :4])) < largest
    assert float(coding_rate(torch.zeros(5, 8))) == 0
    assert coding_rate(torch.ones(0, 3, 5, 8)).shape == (0, 3)


@pytest.mark.parametrize(
    ("features", "eps", "message"),
    [
        (torch.ones(0, 4), 0.01, r"found torch.float32 of shape \(0, 4\)"),
        (torch.ones(4, 0), 0.01, r"shape \(4, 0\)"),
        (torch.ones(4), 0.01, r"shape \(4,\)"),
        (torch.ones(4, 4, dtype=torch.int64), 0.01, "torch.int64"),
        (torch.full((4, 4), float("nan")), 0.01, "finite"),
        (torch.ones(4, 4), 0.0, "eps: expected a positive number, found 0.0"),
        (torch.ones(4, 4), float("inf"), "found inf"),
    ],
)
def test_coding_rate_refuses(features, eps, message):
    with pytest.raises(InputError, match=message):
        coding_rate(features, eps)


@pytest.mark.parametrize(
    ("file", "suffix", "model"),
    [
        ("crate_alpha_torch_d48_l2_h3_p8_i32_c10", ".pth", "crate_alpha_tiny_patch16_224"),
        ("crate_d48_l2_h3_p8_i32_c10", ".pth.tar", "crate_tiny_patch16_224"),
    ],
)
def test_layer_objective_equals_the_official_numbers(reference, file, suffix, model):
    expected = json.loads((reference / "layer_objective.json").read_text())[file]
    with np.load(reference / f"{file}_io.npz") as vectors:
        images = torch.from_numpy(vectors["input_nchw"])
        sparse = [vectors[f"block{number:02}/sparse_block"] for number in range(2)]
    network = load_backbone(model, reference / f"{file}{suffix}", **SIZES)
    with torch.inference_mode(), record(network, ["subspace", "codes"], [0, 1]) as recorder:
        network(images)
    found = layer_objective(network, recorder.activations, expected["eps"])
    assert found.coding_rate.shape == (len(images), 2)
    rate, spread = found.coding_rate.mean(0), found.coding_rate.std(0)
    np.testing.assert_allclose(rate, expected["coding_rate_mean"], rtol=1e-5)
    np.testing.assert_allclose(spread, expected["coding_rate_std"], rtol=1e-3)
    if "sparsity_mean" in expected:
        np.testing.assert_allclose(found.sparsity.mean(0), expected["sparsity_mean"], rtol=1e-9)
        zeros = [(block == 0).mean(axis=(1, 2)) for block in sparse]
        np.testing.assert_allclose(found.sparsity.T, zeros, rtol=1e-9)


def test_sparsity_is_the_share_of_zeros_of_the_codes():
    torch.manual_seed(0)
    model = timm.create_model("crate_alpha_tiny_patch16_224", **SIZES).eval()
    with torch.inference_mode(), record(model, ["subspace", "codes"], [1]) as recorder:
        model(torch.randn(3, 3, 32, 32))
    found = layer_objective(model, recorder.activations)
    codes = recorder.activations["codes", 1].tolist()
    flat = [[value for token in image for value in token] for image in codes]
    expected = [sum(value == 0 for value in image) / len(image) for image in flat]
    assert found.sparsity.shape == found.coding_rate.shape == (3, 1)
    np.testing.assert_allclose(found.sparsity[:, 0], expected)
    assert 0 < min(expected) <= max(expected) < 1


@pytest.mark.parametrize("name", ["crate", "crate_alpha", "crate_mae"])
def test_objective_is_rate_reduction_minus_lambda_times_the_entries_a_token(name):
    torch.manual_seed(0)
    size = "base" if name == "crate_mae" else "tiny"
    model = timm.create_model(f"{name}_{size}_patch16_224", **SIZES).eval()
    with record(model, objective_sites(model), [0, 1]) as recorder:
        model(torch.randn(2, 3, 32, 32))
    found = layer_objective(model, recorder.activations)
    assert found.objective.shape == (2, 2)
    assert not found.objective.requires_grad
    threshold = {"crate_mae": 0.5}.get(name, 0.1)
    for block, expected in enumerate(found.objective.T):
        norm = model.blocks[block].norm1
        weight, bias = norm.weight.detach().numpy(), norm.bias.detach().numpy()
        for image, value in enumerate(expected):
            z = recorder.activations["tokens_in", block][image].numpy().astype(float)
            centred = z - z.mean(1, keepdims=True)
            tokens = centred / np.sqrt((centred**2).mean(1, keepdims=True) + norm.eps)
            tokens = tokens * weight + bias
            heads = tokens @ model.blocks[block].attn.qkv.weight.detach().numpy().T
            rate = plain_rate(tokens, 0.01)
            rate -= sum(plain_rate(heads[:, start : start + 16], 0.01) for start in (0, 16, 32))
            codes = recorder.activations["codes", block][image].tolist()
            entries = sum(entry != 0 for token in codes for entry in token) / len(codes)
            assert float(value) == pytest.approx(rate - threshold * entries, rel=1e-4)


def test_rate_reduction_is_zero_for_uncorrelated_heads_of_one_basis_and_less_otherwise():
    torch.manual_seed(0)
    model = timm.create_model("crate_tiny_patch16_224", **SIZES).eval()
    block = model.blocks[0]
    block.attn.qkv.weight.data = torch.linalg.qr(torch.randn(48, 48))[0]
    block.mlp.threshold = 0.0
    block.norm1 = torch.nn.Identity()
    basis = block.attn.qkv.weight.detach()
    heads = torch.kron(torch.ones(1, 3), torch.eye(16))  # each head its own directions, in turn
    signs = torch.tensor([[1, 1, 1], [1, -1, 1], [1, 1, -1], [1, -1, -1]]).repeat_interleave(16, 1)
    apart = torch.cat([heads * sign for sign in signs]) @ basis
    together = heads @ basis
    for tokens, expected in ((apart, 0), (together, -1)):
        subspace = block.attn.qkv(tokens[None]).detach()
        tensors = {("tokens_in", 0): tokens[None], ("subspace", 0): subspace}
        tensors["codes", 0] = torch.zeros_like(subspace)
        activations = Activations(tensors, num_blocks=2, num_prefix_tokens=1, grid_hw=(4, 4))
        found = float(layer_objective(model, activations).objective)
        assert found == pytest.approx(0, abs=1e-4) if expected == 0 else found < -1


def test_layer_objective_of_a_vit_is_that_of_its_keys_and_neurons():
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", **SIZES).eval()
    assert objective_sites(model) == (Site.KEY, Site.NEURONS)
    with torch.inference_mode(), record(model, objective_sites(model), [0, 1]) as recorder:
        model(torch.randn(2, 3, 32, 32))
    found = layer_objective(model, recorder.activations)
    assert found.objective is None
    for block in (0, 1):
        keys = recorder.activations["key", block].double().numpy()
        for image, expected in zip(keys, found.coding_rate[:, block], strict=True):
            heads = (image[:, start : start + 16] for start in (0, 16, 32))
            assert sum(plain_rate(head, 0.01) for head in heads) == pytest.approx(float(expected))
        neurons = recorder.activations["neurons", block].tolist()
        for image, expected in zip(neurons, found.sparsity[:, block], strict=True):
            flat = [value for token in image for value in token]
            assert sum(value <= 0 for value in flat) / len(flat) == pytest.approx(float(expected))


def test_a_gated_mlp_has_no_sparsity():
    model = timm.create_model("vit_small_patch14_reg4_dinov2", **SIZES, mlp_layer=SwiGLU).eval()
    assert objective_sites(model) == (Site.KEY,)
    with torch.inference_mode(), record(model, objective_sites(model), [1]) as recorder:
        model(torch.randn(1, 3, 32, 32))
    assert layer_objective(model, recorder.activations).sparsity is None


def test_layer_objective_without_heads_to_measure_is_refused():
    model = timm.create_model("vit_tiny_patch16_224", **SIZES).eval()
    with torch.inference_mode(), record(model, ["tokens"], [0]) as recorder:
        model(torch.zeros(1, 3, 32, 32))
    with pytest.raises(InputError, match=r"subspace or key among .* found \['tokens'\]"):
        layer_objective(model, recorder.activations)


def test_layer_objective_of_no_image_is_empty():
    model = timm.create_model("crate_alpha_tiny_patch16_224", **SIZES).eval()
    with torch.inference_mode(), record(model, objective_sites(model), [0, 1]) as recorder:
        model(torch.zeros(0, 3, 32, 32))
    found = layer_objective(model, recorder.activations)
    assert found.coding_rate.shape == found.sparsity.shape == found.objective.shape == (0, 2)
