"""What the recorder returns is checked against attention computed the plain way by the model."""

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import GluMlp, SwiGLU, SwiGLUPacked
from torch import nn

from crate_interp import InputError
from crate_interp.hooks import Site, any_resolution, available_sites, record

TINY = {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 8, "img_size": 32}
TINY |= {"num_classes": 10}
ARCHITECTURES = {
    "plain": ("vit_tiny_patch16_224", {}),
    "registers": ("vit_small_patch14_reg4_dinov2", {"init_values": 1e-5}),
    "qk_norm": ("vit_tiny_patch16_224", {"qk_norm": True}),
    "crate": ("crate_tiny_patch16_224", {}),
    "crate_mhsa": ("crate_tiny_patch16_224", {"attention": "mhsa"}),
    "crate_mlp": ("crate_tiny_patch16_224", {"step": "mlp"}),
    "crate_mhsa_mlp": ("crate_tiny_patch16_224", {"attention": "mhsa", "step": "mlp"}),
    "crate_soft": ("crate_tiny_patch16_224", {"soft_threshold": True}),
    "crate_alpha": ("crate_alpha_tiny_patch16_224", {}),
    "crate_mae": ("crate_mae_base_patch16_224", {}),
    "clipa": ("crate_alpha_clipa_large_patch14_224", {}),
    "dinov3": ("vit_small_patch16_dinov3", {}),
    "eva": ("eva_giant_patch14_224", {"mlp_ratio": 4}),
    "eva02": ("eva02_tiny_patch14_224", {}),
    "eva02_apart": ("eva02_base_patch14_224", {}),
    "rope_mixed": ("vit_base_patch16_rope_mixed_224", {}),
    "rope": ("vit_pe_core_tiny_patch16_384", {}),
}

NEVER_EMPTY = ("dinov3", "eva", "eva02", "eva02_apart")  # timm itself refuses an empty batch


def make(name, **extra):
    torch.manual_seed(0)
    architecture, arguments = ARCHITECTURES[name]
    model = timm.create_model(architecture, **(TINY | arguments | extra)).eval()
    for parameter in model.parameters():  # away from the initial zeros and ones
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def pixels(height=32, width=32):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def hook_count(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def plain_attention(model, images):
    """The attention map of the last block as the eager path of the model itself multiplies it."""
    attention = model.blocks[-1].attn
    attention.fused_attn = False
    seen = []
    hook = attention.attn_drop.register_forward_hook(lambda _, __, out: seen.append(out))
    try:
        model(images)
    finally:
        hook.remove()
        attention.fused_attn = True
    return seen[0]


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_attention_equals_the_models_own_eager_path(name):
    model, images = make(name), pixels()
    expected = plain_attention(model, images)
    with record(model, ["attention", "cls_attention"]) as recorder:
        model(images)
    assert model.blocks[-1].attn.fused_attn
    torch.testing.assert_close(recorder.activations["attention", -1], expected)
    row = recorder.activations[Site.CLS_ATTENTION, -1]
    torch.testing.assert_close(row, expected[:, :, 0])


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_recording_every_site_changes_nothing_and_leaves_nothing(name):
    model, images = make(name), pixels()
    expected = model(images)
    sites = available_sites(model)
    with record(model, sites, blocks=[0, -1]) as recorder:
        recorded = model(images)
    assert torch.equal(recorded, expected)
    assert hook_count(model) == 0
    assert set(recorder.activations) == {(s.value, b) for s in sites for b in (0, 1)}
    assert not any(t.requires_grad for t in recorder.activations.values())
    query, key = (recorder.activations[site, 1] for site in (Site.QUERY, Site.KEY))
    assert query.shape == key.shape == (2, 16 + model.num_prefix_tokens, 48)
    assert recorder.activations.patch_features("key").shape == (2, 48, 16)


@torch.no_grad()
def test_tokens_are_the_residual_stream_before_and_after_a_block():
    model = make("crate_alpha")
    with record(model, [Site.TOKENS_IN, Site.TOKENS], blocks=[0, 1]) as recorder:
        model(pixels())
    tokens = recorder.activations
    torch.testing.assert_close(tokens[Site.TOKENS, 0], tokens[Site.TOKENS_IN, 1])
    torch.testing.assert_close(model.blocks[1](tokens["tokens_in", 1]), tokens["tokens", 1])


def test_codes_are_what_the_dictionary_writes_back():
    model = make("crate_alpha")
    with torch.no_grad(), record(model, [Site.CODES, Site.TOKENS]) as recorder:
        model(pixels())
    codes = recorder.activations[Site.CODES, -1]
    assert codes.shape == (2, 17, 192)
    assert (codes >= 0).all()
    assert 0 < (codes == 0).float().mean() < 1


@torch.no_grad()
def test_crate_codes_are_the_tokens_that_leave_the_block():
    model = make("crate")
    with record(model, [Site.CODES, Site.TOKENS]) as recorder:
        model(pixels())
    assert torch.equal(recorder.activations["codes", 1], recorder.activations["tokens", 1])


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("plain", {}),
        ("registers", {}),
        ("registers", {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}),
        ("registers", {"mlp_layer": SwiGLU, "act_layer": nn.SiLU}),
    ],
)
@torch.no_grad()
def test_neurons_are_what_the_second_layer_of_the_mlp_reads(name, extra):
    model = make(name, **extra)
    mlp, entered = model.blocks[1].mlp, []
    hook = mlp.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    with record(model, [Site.NEURONS], blocks=[1]) as recorder:
        model(pixels())
    hook.remove()
    neurons = recorder.activations[Site.NEURONS, 1]
    if isinstance(mlp, SwiGLU):
        expected = F.silu(mlp.fc1_g(entered[0])) * mlp.fc1_x(entered[0])
    elif isinstance(mlp, GluMlp):
        gate, value = mlp.fc1(entered[0]).chunk(2, dim=-1)
        expected = F.silu(gate) * value
    else:
        expected = F.gelu(mlp.fc1(entered[0]))
    assert neurons.shape == (2, 16 + model.num_prefix_tokens, mlp.fc2.in_features)
    torch.testing.assert_close(neurons, expected)


@pytest.mark.parametrize("name", ["crate", "crate_alpha", "crate_mae", "clipa"])
def test_crate_families_have_codes_and_no_neurons(name):
    sites = available_sites(make(name))
    assert Site.CODES in sites
    assert Site.NEURONS not in sites
    with pytest.raises(InputError, match="no site neurons at block -1; it has query"):
        record(make(name), ["neurons"])


def test_subspace_of_a_vit_is_an_error_that_lists_its_sites():
    with pytest.raises(InputError, match=r"no site subspace.*it has query, key, value"):
        record(make("plain"), [Site.SUBSPACE])


@pytest.mark.parametrize(
    ("sites", "blocks", "message"),
    [
        ([], [-1], "nothing to record"),
        (["key"], [], "nothing to record"),
        (["keys"], [-1], "unknown site 'keys'"),
        (["key"], [2], "blocks 0 to 1"),
        (["key"], [-3], "blocks 0 to 1"),
    ],
)
def test_record_refuses(sites, blocks, message):
    with pytest.raises(InputError, match=message):
        record(make("plain"), sites, blocks)


def test_record_refuses_a_convolutional_network():
    with pytest.raises(InputError, match="found ResNet"):
        record(timm.create_model("resnet10t"), ["tokens"])


def test_no_hook_is_left_after_an_exception():
    model = make("plain")
    with pytest.raises(RuntimeError, match="stop"), record(model, ["key"]):
        raise RuntimeError("stop")
    assert hook_count(model) == 0


def test_activations_without_a_forward_pass_are_an_error():
    with record(make("plain"), ["key"]) as recorder:
        pass
    with pytest.raises(InputError, match="run the model"):
        recorder.activations  # noqa: B018


@torch.no_grad()
def test_a_site_that_was_not_recorded_is_named():
    model = make("plain")
    with record(model, ["key"]) as recorder:
        model(pixels())
    for key in (("value", -1), ("key", 0), ("key", 7)):
        with pytest.raises(KeyError, match="was not recorded"):
            recorder.activations[key]


def test_attention_under_a_mask_is_refused():
    model = make("plain")
    with pytest.raises(InputError, match="mask"), record(model, ["attention"]):
        model(pixels(), attn_mask=torch.zeros(17, 17))
    assert hook_count(model) == 0


@torch.no_grad()
def test_stop_early_ends_the_forward_pass_and_records_the_same():
    model, images = make("plain"), pixels()
    with record(model, ["key"], blocks=[0]) as whole:
        model(images)
    finished = []
    with record(model, ["key"], blocks=[0], stop_early=True) as early:
        model(images)
        finished.append(True)
    assert not finished
    assert hook_count(model) == 0
    assert torch.equal(whole.activations["key", 0], early.activations["key", 0])


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="needs PyTorch 2.6")
@pytest.mark.parametrize("compiled_before", [True, False])
@torch.no_grad()
def test_a_compiled_model_is_recorded_and_keeps_no_hook(compiled_before):
    model = make("plain")
    compiled = torch.compile(model, backend="eager")
    if compiled_before:
        compiled(pixels())
    with record(compiled, ["key"]) as recorder:
        compiled(pixels())
    with record(model, ["key"]) as expected:
        model(pixels())
    assert torch.equal(recorder.activations["key", -1], expected.activations["key", -1])
    compiled(2 * pixels())
    assert torch.equal(recorder.activations["key", -1], expected.activations["key", -1])


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in NEVER_EMPTY])
@torch.no_grad()
def test_an_empty_batch_is_recorded(name):
    with record(model := make(name), ["query", "attention", "cls_attention"]) as recorder:
        model(pixels()[:0])
    count = recorder.activations.num_prefix_tokens + 16
    assert recorder.activations["query", -1].shape == (0, count, 48)
    assert recorder.activations["attention", -1].shape == (0, 3, count, count)


@pytest.mark.parametrize("architecture", ["vit_tiny_r_s16_p8_224", "vit_base_mci_224"])
@torch.no_grad()
def test_patches_of_a_hybrid_are_those_of_its_stem(architecture):
    model = timm.create_model(architecture, img_size=64, depth=1).eval()
    with any_resolution(model), record(model, ["key"]) as recorder:
        model(pixels(64, 128))
    rows, columns = recorder.activations.grid_hw
    assert columns == 2 * rows
    assert recorder.activations["key", -1].shape[1] == 1 + rows * columns
    with pytest.raises(InputError, match="stem cannot overlap"), any_resolution(model, stride=1):
        pass


@torch.no_grad()
def test_padded_images_with_a_stride_have_the_grid_of_their_tokens():
    model = make("plain", dynamic_img_size=True, dynamic_img_pad=True)
    with any_resolution(model, stride=4), record(model, ["key"]) as recorder:
        model(pixels(37, 45))
    assert recorder.activations.grid_hw == (9, 11)
    assert recorder.activations["key", -1].shape[1] == 1 + 9 * 11


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_any_resolution_takes_non_square_images_and_restores_the_model(name):
    model = make(name)
    expected = model(pixels())
    settings = {k: v for k, v in vars(model.patch_embed).items() if not k.startswith("_")}
    with any_resolution(model), record(model, ["key"]) as recorder:
        model(pixels(40, 64))
    assert recorder.activations.grid_hw == (5, 8)
    assert recorder.activations.patch_features("key").shape == (2, 48, 40)
    assert {k: v for k, v in vars(model.patch_embed).items() if not k.startswith("_")} == settings
    assert torch.equal(model(pixels()), expected)


@pytest.mark.parametrize("name", ["plain", "crate", "crate_alpha", "crate_mae"])
@torch.no_grad()
def test_a_smaller_stride_gives_denser_tokens(name):
    model = make(name)
    with any_resolution(model, stride=4), record(model, ["tokens_in"], [0]) as dense:
        model(pixels())
    assert dense.activations.grid_hw == (7, 7)
    model.pos_embed.data.zero_()  # then every second token is the token of the plain stride
    with any_resolution(model, stride=4), record(model, ["tokens_in"], [0]) as dense:
        model(pixels())
    with any_resolution(model), record(model, ["tokens_in"], [0]) as plain:
        model(pixels())
    every_second = dense.activations.patch_features("tokens_in", 0).unflatten(2, (7, 7))[
        ..., ::2, ::2
    ]
    torch.testing.assert_close(
        every_second.flatten(2), plain.activations.patch_features("tokens_in", 0)
    )


@pytest.mark.parametrize("stride", [0, 9])
def test_any_resolution_refuses_a_stride_outside_the_patch(stride):
    with pytest.raises(InputError, match="expected 1 to the patch size"):
        with any_resolution(make("plain"), stride=stride):
            pass


@torch.no_grad()
def test_cls_attention_rows_sum_to_one_in_half_the_memory_of_a_map():
    model = make("registers")
    with record(model, ["cls_attention"]) as recorder:
        model(pixels())
    row = recorder.activations["cls_attention", -1]
    assert row.shape == (2, 3, 16 + 5)
    np.testing.assert_allclose(row.sum(-1), 1, atol=1e-5)


@torch.no_grad()
def test_one_site_needs_no_list():
    model = make("plain")
    with record(model, "key") as recorder:
        model(pixels())
    assert set(recorder.activations) == {("key", 1)}
