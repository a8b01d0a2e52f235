"""Effects of ablations, against weights with zeros in them and a forward pass for each."""

import copy

import numpy as np
import pytest
import timm
import torch

from crate_interp import InputError, MaskCut, Observer, any_resolution, load_backbone, record
from crate_interp.analysis import (
    estimate_logit_effects,
    logit_effects,
    mask_effects,
    mask_of,
    written_energy,
)
from crate_interp.data import draw_scene
from crate_interp.hooks import Site, atom_site, choose_classes, scores_from
from crate_interp.segmentation import maskcut

EVA = "eva02_tiny_patch14_224"
ARCHITECTURES = ["vit_tiny_patch16_224", "crate_tiny_patch16_224", "crate_alpha_tiny_patch16_224"]
TINY = {"embed_dim": 48, "depth": 3, "num_heads": 3, "patch_size": 8, "img_size": 32}


def make(architecture, **extra):
    torch.manual_seed(0)
    model = timm.create_model(architecture, **(TINY | {"num_classes": 10} | extra)).eval().double()
    for parameter in model.parameters():  # away from the initial zeros and ones
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def pixels():
    return torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()


def entering(model, block):
    with torch.no_grad(), record(model, ["tokens_in"], [block]) as recorder:
        model(pixels())
    return recorder.activations


def without(model, site, block, unit):
    """A copy of a model whose weights write nothing of a head or an atom."""
    model = copy.deepcopy(model)
    module = model.blocks[block]
    if site == "heads":
        width = module.attn.head_dim
        module.attn.proj.weight.data[:, width * unit : width * (unit + 1)] = 0
    elif site == "codes":
        module.mlp.D1.data[:, unit] = 0
    else:
        module.mlp.fc2.weight.data[:, unit] = 0
    return model


@pytest.fixture(scope="module")
def demo():
    """The shipped models and a scene that they find an object in."""
    rgb = draw_scene(np.random.default_rng(5), (96, 96)).image
    models = {name: load_backbone(name) for name in ("demo", "demo_vit")}
    return models, rgb


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, EVA])
@pytest.mark.parametrize("extra", [{}, {"global_pool": "avg", "class_token": False}])
@torch.no_grad()
def test_scores_from_the_middle_are_those_of_the_model(architecture, extra):
    model = make(architecture, **extra)
    expected = model(pixels())
    for block in range(3):
        passed = entering(model, block)
        found = scores_from(model, passed["tokens_in", block], block, passed.arguments)
        torch.testing.assert_close(found, expected)
    with record(model, ["tokens"]) as recorder:
        model(pixels())
    passed = recorder.activations
    found = scores_from(model, passed["tokens", -1], 3, passed.arguments)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("at_once", [1, 2, 64])
@pytest.mark.parametrize(
    ("architecture", "site"),
    [*((name, "heads") for name in [*ARCHITECTURES, EVA]), (ARCHITECTURES[0], "neurons")]
    + [(ARCHITECTURES[2], "codes")],
)
@torch.no_grad()
def test_logit_effects_are_differences_of_scores(architecture, site, at_once):
    model, units = make(architecture), [2, 0, 1]
    for block in (0, 2):
        found = logit_effects(model, entering(model, block), 4, Site(site), block, units, at_once)
        for effect, unit in zip(found, units, strict=True):
            expected = model(pixels()) - without(model, site, block, unit)(pixels())
            torch.testing.assert_close(effect, expected[0, 4], rtol=1e-9, atol=1e-12)


def test_atoms_of_ista_are_silenced_where_they_are_the_stream():
    model = make("crate_tiny_patch16_224")
    found = logit_effects(model, entering(model, 1), 3, Site.CODES, 1, [5, 30])
    with torch.no_grad(), record(model, ["tokens"], [1]) as recorder:
        intact = model(pixels())
    for effect, atom in zip(found, (5, 30), strict=True):
        tokens = recorder.activations["tokens", 1].clone()
        tokens[..., atom] = 0
        with torch.no_grad():
            expected = intact - scores_from(model, tokens, 2)
        torch.testing.assert_close(effect, expected[0, 3])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("site", ["heads", "atoms"])
def test_estimates_are_derivatives_by_a_factor_on_each_unit(architecture, site):
    model = make(architecture)
    site = Site.HEADS if site == "heads" else atom_site(model)
    rows = estimate_logit_effects(model, pixels(), 4, site, [0, 2])
    for block, row in zip((0, 2), rows, strict=True):
        with record(model, [site], [block]) as recorder:
            model(pixels())
        values = recorder.activations[site, block].clone().requires_grad_()
        module = model.blocks[block]
        path = {"heads": "attn.proj", "codes": "mlp.codes", "neurons": "mlp.fc2"}[site.value]
        hook = module.get_submodule(path).register_forward_pre_hook(lambda *_, v=values: (v,))
        (gradient,) = torch.autograd.grad(model(pixels())[0, 4], values)
        hook.remove()
        expected = (gradient * values).sum(dim=(0, 1)).detach()
        torch.testing.assert_close(row, expected.view(len(row), -1).sum(dim=1))


def test_estimates_come_near_to_what_is_measured_and_leave_the_model_alone(demo):
    models, rgb = demo
    model, observer = models["demo"], Observer(models["demo"])
    image = observer.pixels([rgb])
    with torch.inference_mode():
        number = int(choose_classes(model(image), None)[0])
        with record(model, ["tokens_in"], [2]) as recorder:
            model(image)
    estimated = estimate_logit_effects(model, image, number, Site.CODES, [2])[0]
    strongest = estimated.abs().argsort(descending=True)[:16].tolist()
    measured = logit_effects(model, recorder.activations, number, Site.CODES, 2, strongest)
    correlation = np.corrcoef(estimated[strongest], measured)[0, 1]
    assert correlation > 0.9
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(("name", "site"), [("demo", "codes"), ("demo_vit", "heads")])
def test_mask_effects_compare_masks_of_maskcut(demo, name, site):
    models, rgb = demo
    model, units = models[name], [0, 2, 3]
    image = Observer(model, 48).pixels([rgb])
    with any_resolution(model):
        found = mask_effects(model, image, Site(site), 0, units, at_once=2)
        masks = []
        for changed in (model, *(without(model, site, 0, unit) for unit in units)):
            features = MaskCut(changed, size=48).features([rgb])[0]
            masks.append(maskcut(features, (12, 12), max_masks=1).masks[0])
        assert torch.equal(mask_of(model, image)[0], masks[0])
    for effect, mask in zip(found, masks[1:], strict=True):
        expected = 1 - (mask & masks[0]).sum() / (mask | masks[0]).sum()
        torch.testing.assert_close(effect, expected)


def test_the_written_energy_is_that_of_each_atoms_share_of_the_output():
    for architecture in ARCHITECTURES:
        model = make(architecture)
        site = atom_site(model)
        with torch.no_grad(), record(model, [site], [1]) as recorder:
            model(pixels())
        codes = recorder.activations[site, 1]
        path = "fc2.weight" if site is Site.NEURONS else "D1"
        written = torch.eye(48).double()
        if architecture != "crate_tiny_patch16_224":
            written = model.blocks[1].mlp.get_parameter(path).detach()
        shares = codes[0, :, None, :] * written  # (N, D, U)
        torch.testing.assert_close(written_energy(model, codes, 1), shares.square().sum(dim=(0, 1)))


def test_what_cannot_be_measured_is_refused(demo):
    model = make("crate_alpha_tiny_patch16_224")
    activations = entering(model, 1)
    for units, number, message in [
        ([3], 0, "heads 3 at block 1: expected numbers from 0 to 2"),
        ([0], 10, "class 10: expected 0 to 9"),
        ([0], -1, "class -1: expected 0 to 9"),
        ([], 0, "found none"),
    ]:
        with pytest.raises(InputError, match=message):
            logit_effects(model, activations, number, Site.HEADS, 1, units)
    with pytest.raises(InputError, match="class 10"):
        estimate_logit_effects(model, pixels(), 10, Site.HEADS, [1])
    with pytest.raises(InputError, match="block 2: expected 0 to 1, because MaskCut"):
        mask_effects(model, pixels(), Site.HEADS, 2, [0])
    with pytest.raises(InputError, match="no object"):
        mask_effects(model.float(), torch.zeros(1, 3, 32, 32), Site.HEADS, 0, [0])


@pytest.mark.parametrize(
    ("architecture", "extra"),
    [
        ("vit_tiny_patch16_224", {"num_classes": 0}),
        ("crate_mae_base_patch16_224", {}),
        ("crate_alpha_clipa_large_patch14_224", {}),
    ],
)
def test_a_model_without_a_classifier_is_refused(architecture, extra):
    model = timm.create_model(architecture, **TINY, **extra).eval()
    with pytest.raises(InputError, match="gives no class scores"):
        logit_effects(model, entering(model.double(), 0), 0, Site.HEADS, 0, [0])
    with pytest.raises(InputError, match="gives no class scores"):
        estimate_logit_effects(model, pixels(), 0, Site.HEADS, [0])
