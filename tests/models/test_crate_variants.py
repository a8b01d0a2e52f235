"""CRATE with its attention and its sparse step exchanged, against equations in float64."""

import itertools
import json

import pytest
import timm
import torch
from timm.layers import Attention, Mlp

from crate_interp import InputError, MaskCut, load_backbone, record
from crate_interp.analysis import layer_objective, objective_sites
from crate_interp.hooks import Site, atom_site, available_sites, default_feature
from crate_interp.models.crate import ISTA
from crate_interp.models.subspace import SubspaceAttention
from crate_interp.weights import ModelRecord, create_on_meta, resolve_name

NAME = "crate_tiny_patch16_224"
VARIANTS = list(itertools.product(("mssa", "mhsa"), ("ista", "mlp")))


def make(sizes, **arguments):
    torch.manual_seed(0)
    model = timm.create_model(NAME, **{"num_classes": 10, **sizes, **arguments}).eval()
    for parameter in model.parameters():  # away from the initial zeros and ones
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def layer_norm(x, weights, name):
    centred = x - x.mean(dim=-1, keepdim=True)
    scaled = centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def attention_by_hand(x, weights, heads):
    """Head by head; one projection is query, key and value at once, or three lie one by one."""
    projected = x @ weights["attn.qkv.weight"].T
    width = x.shape[-1]
    starts = range(0, projected.shape[-1], width)
    parts = [projected[..., start : start + width] for start in starts]
    query, key, value = parts if len(parts) == 3 else parts * 3
    outputs = []
    for head in range(heads):
        own = slice(head * width // heads, (head + 1) * width // heads)
        scores = query[..., own] @ key[..., own].mT / (width / heads) ** 0.5
        weight = scores.exp() / scores.exp().sum(dim=-1, keepdim=True)
        outputs.append(weight @ value[..., own])
    return torch.cat(outputs, dim=-1) @ weights["attn.proj.weight"].T + weights["attn.proj.bias"]


def block_by_hand(x, weights, heads, soft=False):
    half = x + attention_by_hand(layer_norm(x, weights, "norm1"), weights, heads)
    normed = layer_norm(half, weights, "norm2")
    if "mlp.weight" in weights:
        dictionary = weights["mlp.weight"]
        step = normed + 0.1 * (normed - normed @ dictionary.T) @ dictionary
        largest = (step.abs() if soft else step) - 0.1 * 0.1
        return largest.clamp(min=0) * (step.sign() if soft else 1)
    hidden = normed @ weights["mlp.fc1.weight"].T + weights["mlp.fc1.bias"]
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    return half + hidden @ weights["mlp.fc2.weight"].T + weights["mlp.fc2.bias"]


@pytest.mark.parametrize(("attention", "step"), VARIANTS)
@pytest.mark.parametrize("fused", [True, False])
def test_a_block_is_its_equation(attention, step, fused, sizes):
    block = make(sizes, attention=attention, step=step).blocks[0].double()
    block.attn.fused_attn = fused
    x = torch.randn(2, 17, 48, dtype=torch.float64)
    expected = block_by_hand(x, block.state_dict(), 3)
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-12)


def test_a_soft_threshold_keeps_the_sign_of_codes_and_their_gradients():
    torch.manual_seed(0)
    ista = ISTA(7, step_size=0.3, threshold=0.5, soft_threshold=True).double()
    x = torch.randn(2, 5, 7, dtype=torch.float64, requires_grad=True)
    step = x + 0.3 * (x - x @ ista.weight.T) @ ista.weight
    expected = torch.where(step > 0.15, step - 0.15, torch.where(step < -0.15, step + 0.15, 0))
    codes, weights = ista(x), torch.randn_like(x)
    torch.testing.assert_close(codes, expected, rtol=0, atol=1e-13)
    assert (codes < 0).any()
    assert (codes == 0).any()
    for one, other in zip(
        torch.autograd.grad((codes * weights).sum(), (x, ista.weight)),
        torch.autograd.grad((expected * weights).sum(), (x, ista.weight)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_a_block_with_a_soft_threshold_is_its_equation(sizes):
    block = make(sizes, soft_threshold=True).blocks[1].double()
    x = torch.randn(2, 17, 48, dtype=torch.float64)
    expected = block_by_hand(x, block.state_dict(), 3, soft=True)
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-12)
    assert "soft_threshold=True" in str(block)


def test_named_defaults_are_the_model_without_arguments(sizes):
    plain = make(sizes)
    named = make(sizes, attention="mssa", step="ista", soft_threshold=False)
    assert list(plain.state_dict()) == list(named.state_dict())
    assert all(torch.equal(v, named.state_dict()[k]) for k, v in plain.state_dict().items())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(plain(images), named(images))


def test_both_exchanged_is_timms_block(sizes):
    ours = make(sizes, attention="mhsa", step="mlp").blocks[0]
    timms = timm.create_model("vit_tiny_patch16_224", qkv_bias=False, **sizes).eval().blocks[0]
    for norm in (timms.norm1, timms.norm2):
        norm.eps = 1e-5
    timms.load_state_dict(ours.state_dict())
    x = torch.randn(2, 17, 48)
    assert torch.equal(ours(x), timms(x))


def test_an_mlp_of_half_the_width_has_about_as_many_parameters_as_ista(sizes):
    def count(**arguments):
        block = make(sizes, **arguments).blocks[0]
        return sum(parameter.numel() for parameter in block.mlp.parameters())

    assert count() == 48**2
    assert count(step="mlp", mlp_ratio=0.5) == 48**2 + 48 + 24
    assert count(step="mlp") == 8 * 48**2 + 5 * 48


@pytest.mark.parametrize(
    ("alias", "attention", "step", "millions"),
    [
        ("crate_S8", SubspaceAttention, ISTA, 13.12),
        ("crate_mlp_S8", SubspaceAttention, Mlp, 41.03),
        ("crate_mhsa_S8", Attention, ISTA, 21.08),
        ("crate_mhsa_mlp_S8", Attention, Mlp, 48.99),
    ],
)
def test_models_of_the_papers_ablation_have_names(alias, attention, step, millions):
    model = create_on_meta(resolve_name(alias), weight_init="skip")
    assert {type(block.attn) for block in model.blocks} == {attention}
    assert {type(block.mlp) for block in model.blocks} == {step}
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize(("attention", "step"), VARIANTS)
def test_what_looks_inside_knows_what_a_variant_has(attention, step, sizes):
    model = make(sizes, attention=attention, step=step)
    atoms = {"ista": Site.CODES, "mlp": Site.NEURONS}[step]
    feature = {"mssa": Site.SUBSPACE, "mhsa": Site.KEY}[attention]
    assert default_feature(model) is feature
    assert atom_site(model) is atoms
    assert (Site.SUBSPACE in available_sites(model)) == (attention == "mssa")
    inputs = (Site.TOKENS_IN,) if step == "ista" else ()
    assert objective_sites(model) == (*inputs, feature, atoms)
    with record(model, objective_sites(model), range(2)) as recorder, torch.no_grad():
        model(torch.randn(3, 3, 32, 32))
    objective = layer_objective(model, recorder.activations)
    assert objective.coding_rate.shape == (3, 2)
    codes = recorder.activations[atoms, 1]
    zeros = (codes == 0 if step == "ista" else codes <= 0).double().mean(dim=(1, 2))
    torch.testing.assert_close(objective.sparsity[:, 1], zeros, rtol=0, atol=1e-12)
    assert (objective.objective is None) == (step == "mlp")
    assert MaskCut(model, size=32).feature == feature.value


def test_zeros_of_a_soft_threshold_are_counted(sizes):
    model = make(sizes, soft_threshold=True, threshold=2.0)
    assert objective_sites(model) == (Site.TOKENS_IN, Site.SUBSPACE, Site.CODES)
    with record(model, objective_sites(model), [1]) as recorder, torch.no_grad():
        model(torch.randn(1, 3, 32, 32))
    codes = recorder.activations[Site.CODES, 1]
    objective = layer_objective(model, recorder.activations)
    assert (codes < 0).any()
    assert objective.sparsity.item() == pytest.approx((codes == 0).double().mean().item())
    assert 0.05 < objective.sparsity.item() < 0.95


@pytest.mark.parametrize(
    "arguments",
    [{"attention": "mhsa", "step": "mlp", "mlp_ratio": 0.5}, {"soft_threshold": True}],
)
def test_a_file_of_ours_makes_its_variant_again(arguments, sizes, tmp_path):
    from safetensors.torch import save_file

    model, file = make(sizes, **arguments), tmp_path / "own.safetensors"
    record_of = ModelRecord(NAME, {**sizes, **arguments}, 10, (0.5,) * 3, (0.5,) * 3)
    assert json.loads(record_of.to_metadata()["model_args"])[next(iter(arguments))]
    save_file(model.state_dict(), file, record_of.to_metadata())
    again = load_backbone(str(file))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(images), model(images))


@pytest.mark.parametrize(("attention", "step"), VARIANTS)
def test_no_image_gives_no_logits(attention, step, sizes):
    model = make(sizes, attention=attention, step=step)
    assert model(torch.empty(0, 3, 32, 32)).shape == (0, 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attention": "linear"}, "attention: expected mssa or mhsa, found 'linear'"),
        ({"step": "odl"}, "step: expected ista or mlp, found 'odl'"),
        (
            {"step": "mlp", "threshold": 0.5},
            "threshold: expected with step ista only, found step mlp",
        ),
        ({"attention": "mhsa", "num_heads": 5}, "embed_dim 48 is not a multiple of num_heads 5"),
        ({"attention": "mhsa", "qk_norm": True}, "qk_norm=True: a CRATE block has no such option"),
    ],
)
def test_what_there_is_not_is_refused(arguments, message, sizes):
    with pytest.raises(InputError, match=message):
        timm.create_model(NAME, **{**sizes, **arguments})


def test_arguments_of_a_file_or_recipe_are_checked(sizes):
    with pytest.raises(InputError, match="'step' 'sort': expected one of 'ista', 'mlp'"):
        load_backbone(NAME, "random", step="sort", **sizes)
    with pytest.raises(InputError, match="'soft_threshold' 1: expected true or false"):
        load_backbone(NAME, "random", soft_threshold=1, **sizes)
