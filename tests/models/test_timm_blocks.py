"""Blocks of timm of every structure, against what the models multiply out themselves."""

from copy import deepcopy

import pytest
import timm
import torch
from timm.models.vitamin import GeGluMlp
from torch import nn

from crate_interp import InputError, Target, ZeroEdit, any_resolution, intervene, record
from crate_interp.analysis import attention_relevance
from crate_interp.hooks import (
    attention_chunks,
    attention_map,
    available_sites,
    count_units,
    scores_from,
    written_dictionary,
)
from crate_interp.hooks.resolution import check_stride
from crate_interp.models.anatomy import anatomy_of
from crate_interp.models.backbones import (
    blocks_of,
    embedding_of,
    has_class_token,
    patch_hw_of,
    prefix_tokens_of,
)

# timm 1.0.31 resamples tables of relative positions in a way that PyTorch warns of.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning"),
    pytest.mark.filterwarnings("ignore:torch.searchsorted:UserWarning"),
]

SIZES = {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 8, "img_size": 32}
SIZES |= {"num_classes": 5}
KV = {"num_kv_heads": (1, 1)}
STRUCTURES = {
    "vit_tiny_patch16_224": SIZES,
    "vit_base_patch16_siglip_224": SIZES,
    "vit_base_patch16_rpn_224": SIZES,
    "vit_base_patch16_xp_224": SIZES,
    "vit_pwee_patch16_reg1_gap_256": SIZES,
    "vit_dwee_patch16_reg1_gap_256": SIZES,
    "vit_dpwee_patch16_reg1_gap_256": SIZES,
    "vit_small_patch16_18x2_224": SIZES,
    "vit_relpos_base_patch16_clsgap_224": SIZES,
    "vit_relpos_base_patch16_rpn_224": SIZES,
    "vit_srelpos_small_patch16_224": SIZES,
    "beit_base_patch16_224": SIZES,
    "beitv2_base_patch16_224": SIZES | {"use_shared_rel_pos_bias": True},
    "eva02_enormous_patch14_clip_224": SIZES,
    "eva02_base_patch14_224": SIZES,
    "vit_small_patch16_dinov3": SIZES,
    "vit_base_patch16_sapiens2": SIZES | KV,
    "vit_pe_core_tiny_patch16_384": SIZES,
    "vit_base_patch16_rope_mixed_224": SIZES,
    "vit_small_patch16_224": SIZES | {"mlp_layer": GeGluMlp},  # ViTamin's
    "naflexvit_base_patch16_parfac_gap": SIZES,
    "naflexvit_base_patch16_siglip": SIZES | {"rope_type": "axial"},
    "naflexvit_base_patch16_radio_v3": SIZES,
    "deepseek_vit_412m": SIZES,
    "qwen3_vit_88m": SIZES,
    "gemma4_vit_167m": SIZES | {"head_dim": 12, "intermediate_size": 80, "num_kv_heads": 1},
}
POST_NORM = {"vit_base_patch16_rpn_224", "vit_relpos_base_patch16_rpn_224"}
POST_NORM |= {"eva02_enormous_patch14_clip_224", "gemma4_vit_167m"}
RELATIVE = [name for name in STRUCTURES if "relpos" in name or name.startswith("beit")]


@pytest.fixture(params=STRUCTURES)
def model(request):
    return made(request.param)


def made(name, **extra):
    known = timm.list_models()
    if name not in known:
        pytest.skip(f"this release of timm has no {name}")
    torch.manual_seed(0)
    model = timm.create_model(name, **STRUCTURES[name], **extra).eval().double()
    for parameter in model.parameters():  # away from the initial zeros and ones
        parameter.data += 0.1 * torch.randn_like(parameter)
    for bound, buffer in model.named_buffers():  # that clip what enters and leaves Gemma's layers
        if bound.endswith(("_min", "_max")):
            buffer.fill_(-0.3 if bound.endswith("_min") else 0.3)
    model.name = name
    return model.requires_grad_(False)


def pixels_for(model, rows=3, columns=5):
    """Two images of a grid that is not the model's own."""
    height, width = patch_hw_of(embedding_of(model))
    generator = torch.Generator().manual_seed(1)
    size = (2, 3, rows * height, columns * width)
    return torch.randn(size, generator=generator, dtype=torch.float64)


def own_maps(model, pixels):
    """Attention of the last block, as the model hands it to its dropout."""
    maps = []
    handles = []
    for module in blocks_of(model)[-1].modules():
        if hasattr(module, "attn_drop"):
            module.fused_attn = False
            keep = lambda _, __, output: maps.append(output)  # noqa: E731
            handles.append(module.attn_drop.register_forward_hook(keep))
    with any_resolution(model):
        model(pixels)
    for handle in handles:
        handle.remove()
    whole = torch.cat(maps, dim=1)
    block = blocks_of(model)[-1]
    differential = getattr(block, "attn", block)
    if hasattr(differential, "_compute_lambda"):
        return whole[:, 0::2] - differential._compute_lambda() * whole[:, 1::2]
    return whole


def recorded(model, sites, pixels):
    with record(model, sites, [-1]) as recorder, any_resolution(model):
        model(pixels)
    return recorder.activations


def test_attention_is_what_the_model_multiplies_out(model):
    pixels = pixels_for(model)
    found = recorded(model, ["query", "key", "attention", "heads", "neurons"], pixels)
    expected = own_maps(model, pixels)
    assert found.grid_hw == (3, 5)
    torch.testing.assert_close(found["attention", -1], expected)
    rows = torch.cat([part for _, part in attention_chunks(found, rows=4)], dim=2)
    torch.testing.assert_close(rows.double(), expected, rtol=1e-4, atol=1e-5)
    prefix = prefix_tokens_of(model)
    of_patch = attention_map(found, patch=(1, 2)).double().flatten(2)
    token = prefix + 1 * 5 + 2
    torch.testing.assert_close(of_patch, expected[:, :, token, prefix:], rtol=1e-4, atol=1e-5)
    if not has_class_token(model):
        with pytest.raises(InputError, match="no class token"):
            attention_map(found)
    else:
        row = recorded(model, ["cls_attention"], pixels)["cls_attention", -1]
        torch.testing.assert_close(row, expected[:, :, 0])


@pytest.mark.parametrize("site", ["heads", "neurons"])
def test_a_silenced_unit_is_one_that_is_not_read(model, site):
    pixels, unit = pixels_for(model), count_units(model, site) - 2
    assert site in available_sites(model)
    with intervene(model, {Target(site, -1, unit): ZeroEdit()}), any_resolution(model):
        found = model(pixels)
    deaf = deepcopy(model)
    block = blocks_of(deaf)[-1]
    weights = {
        "heads": ["attn.proj", "attn_out_proj", "attns.1.attn.proj", "out_proj"],
        "neurons": ["mlp.fc2", "mlp.w2", "mlp_out_proj", "ffns.1.mlp.fc2", "out_proj"],
    }
    weights["heads"].append("attn.o_proj.linear")
    weights["neurons"].append("mlp.down_proj.linear")
    layers = dict(block.named_modules())
    layer = next(layers[path] for path in weights[site] if isinstance(layers.get(path), nn.Linear))
    width = 1 if site == "neurons" else anatomy_width(model)
    end = layer.in_features
    if layers.get("out_proj") is layer and site == "heads":
        end = 48  # of heads; neurons are behind them
    layer.weight[:, end - 2 * width : end - width] = 0
    with any_resolution(deaf):
        torch.testing.assert_close(found, deaf(pixels))
    with any_resolution(model):
        assert not torch.equal(found, model(pixels))


def anatomy_width(model):
    return anatomy_of(blocks_of(model)[-1]).heads.head_dim


def test_neurons_write_their_vectors(model):
    pixels, at = pixels_for(model), count_units(model, "neurons") - 2
    if model.name in POST_NORM:
        with pytest.raises(InputError, match="a neuron adds no vector of its own"):
            written_dictionary(model, -1)
        return
    before = recorded(model, ["neurons", "tokens"], pixels)
    with intervene(model, {Target("neurons", -1, at): ZeroEdit()}):
        after = recorded(model, ["tokens"], pixels)
    written = before["neurons", -1][..., at, None] * written_dictionary(model, -1)[:, at]
    torch.testing.assert_close(before["tokens", -1] - after["tokens", -1], written)


@pytest.mark.parametrize(
    "name", ["vit_pwee_patch16_reg1_gap_256", "vit_small_patch16_18x2_224", "beit_base_patch16_224"]
)
def test_heads_of_each_part_are_recorded_in_order(name):
    model = made(name)
    pixels = pixels_for(model)
    before = recorded(model, ["heads"], pixels)["heads", -1]
    width = anatomy_width(model)
    for unit in range(count_units(model, "heads")):
        with intervene(model, {Target("heads", -1, unit): ZeroEdit()}):
            after = recorded(model, ["heads"], pixels)["heads", -1]
        expected = before.clone()
        expected[..., unit * width : (unit + 1) * width] = 0
        assert torch.equal(after, expected)


@pytest.mark.parametrize("name", RELATIVE)
def test_relative_positions_of_one_grid_are_those_of_any(name):
    fixed = made(name)
    native = pixels_for(fixed, 4, 4)
    before = fixed(native)
    for rows, columns in ((2, 8), (3, 3), (4, 4)):  # the first has as many patches
        other = deepcopy(fixed)
        other.set_input_size((8 * rows, 8 * columns))
        pixels = pixels_for(fixed, rows, columns)
        with any_resolution(fixed):
            torch.testing.assert_close(fixed(pixels), other(pixels))
            torch.testing.assert_close(fixed(native), before)
            with any_resolution(fixed):
                torch.testing.assert_close(fixed(pixels), other(pixels))
    assert torch.equal(fixed(native), before)
    with torch.inference_mode(), any_resolution(fixed):
        fixed(pixels_for(fixed, 1, 2))
    with pytest.raises(AssertionError):
        fixed(pixels_for(fixed, 3, 3))


@pytest.mark.parametrize("name", ["beitv2_base_patch16_224", "vit_srelpos_small_patch16_224"])
def test_a_pass_goes_on_with_its_relative_positions(name):
    model = made(name)
    pixels = pixels_for(model, 4, 4)
    with record(model, ["tokens_in"], [0, 1]) as recorder:
        expected = model(pixels)
    passed = recorder.activations
    found = scores_from(model, passed["tokens_in", 1], 1, passed.arguments)
    torch.testing.assert_close(found, expected)


def test_patches_of_naflexvit_do_not_overlap_and_its_patch_input_is_refused():
    model = made("naflexvit_base_patch16_radio_v3")
    assert has_class_token(model)
    for stride in (4, 8):
        with pytest.raises(InputError, match="a linear layer projects cannot overlap"):
            check_stride(model, stride)
    rows, columns = torch.meshgrid(torch.arange(2), torch.arange(3), indexing="ij")
    patches = {
        "patches": torch.zeros(1, 6, 3 * 8 * 8, dtype=torch.float64),
        "patch_coord": torch.stack([rows, columns], dim=-1).reshape(1, 6, 2),
        "patch_valid": torch.ones(1, 6, dtype=torch.bool),
    }
    with (
        pytest.raises(InputError, match=r"images of shape \(B, 3, H, W\), found .*\(1, 6, 192\)"),
        record(model, ["key"], [-1]),
    ):
        model(patches)


@pytest.fixture
def sam():
    torch.manual_seed(0)
    sizes = SIZES | {"depth": 3, "window_size": 2, "global_attn_indexes": (2,)}
    model = timm.create_model("samvit_base_patch16", **sizes).eval().double()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.requires_grad_(False)


def test_sam_attends_globally_in_some_blocks(sam):
    pixels = pixels_for(sam)
    sites = ["query", "key", "attention", "heads", "neurons", "tokens", "tokens_in"]
    found = recorded(sam, sites, pixels)
    expected = own_maps(sam, pixels).unflatten(0, (2, 3))  # SAM has a batch of heads
    torch.testing.assert_close(found["attention", -1], expected)
    second = found.of_image(1)
    of_patch = attention_map(second, patch=(1, 2)).double().flatten(2)
    torch.testing.assert_close(of_patch[0], expected[1, :, 1 * 5 + 2], rtol=1e-4, atol=1e-5)
    assert found["tokens", -1].shape == found["tokens_in", -1].shape == (2, 15, 48)
    assert {"key", "heads"}.isdisjoint(available_sites(sam, 0))
    with pytest.raises(InputError, match="no site key at block 0; it has tokens_in, tokens, neur"):
        record(sam, ["key"], [0])


def test_units_and_patches_of_sam_can_be_silenced(sam):
    pixels = pixels_for(sam)
    before = recorded(sam, ["neurons", "tokens"], pixels)
    with intervene(sam, {Target("neurons", -1, 7): ZeroEdit()}):
        after = recorded(sam, ["tokens"], pixels)
    written = before["neurons", -1][..., 7, None] * written_dictionary(sam, -1)[:, 7]
    torch.testing.assert_close(before["tokens", -1] - after["tokens", -1], written)
    with (
        intervene(sam, {Target("tokens", 0, tokens=7): ZeroEdit()}),
        record(sam, "tokens", 0) as seen,
    ):
        sam(pixels)
    assert not seen.activations["tokens", 0][:, 7].any()
    assert seen.activations["tokens", 0][:, :7].all()


def test_relevance_knows_relative_positions():
    model = made("beit_base_patch16_224", global_pool="token")
    pixels, classes = pixels_for(model, 4, 4), torch.tensor([1, 2])
    fused = attention_relevance(model, pixels, classes)
    for block in model.blocks:
        block.attn.fused_attn = False
    torch.testing.assert_close(fused, attention_relevance(model, pixels, classes))


@pytest.mark.parametrize("name", ["vit_dwee_patch16_reg1_gap_256", "vit_small_patch16_18x2_224"])
def test_relevance_of_several_maps_is_refused(name):
    model = made(name, **({"class_token": True, "global_pool": "token"} if "dwee" in name else {}))
    with pytest.raises(InputError, match="expected one map of attention, found 2"):
        attention_relevance(model, pixels_for(model, 4, 4), torch.tensor([1, 2]))
