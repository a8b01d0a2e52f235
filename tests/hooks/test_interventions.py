"""Interventions, against changed weights and against blocks that are run by hand, in float64."""

import numpy as np
import pytest
import timm
import torch

import crate_interp
from crate_interp import (
    InputError,
    MeanEdit,
    PatchIn,
    ScaleEdit,
    SetEdit,
    Target,
    ZeroEdit,
    any_resolution,
    hooks,
    intervene,
    record,
)
from crate_interp.hooks import Site, atom_site, channels_of, count_units

TINY = {"embed_dim": 48, "depth": 3, "num_heads": 3, "patch_size": 8, "img_size": 32}
TINY |= {"num_classes": 10}
ARCHITECTURES = {
    "plain": ("vit_tiny_patch16_224", {}),
    "registers": ("vit_small_patch14_reg4_dinov2", {"init_values": 0.5}),
    "crate": ("crate_tiny_patch16_224", {}),
    "crate_mhsa": ("crate_tiny_patch16_224", {"attention": "mhsa"}),
    "crate_mlp": ("crate_tiny_patch16_224", {"step": "mlp"}),
    "crate_mhsa_mlp": ("crate_tiny_patch16_224", {"attention": "mhsa", "step": "mlp"}),
    "crate_soft": ("crate_tiny_patch16_224", {"soft_threshold": True}),
    "crate_alpha": ("crate_alpha_tiny_patch16_224", {}),
    "crate_mae": ("crate_mae_base_patch16_224", {}),
    "eva02": ("eva02_tiny_patch14_224", {}),
    "dinov3": ("vit_small_patch16_dinov3", {}),
}
WHITE = ["crate", "crate_alpha", "crate_mae"]


def make(name):
    torch.manual_seed(0)
    architecture, arguments = ARCHITECTURES[name]
    model = timm.create_model(architecture, **(TINY | arguments)).eval().double()
    for parameter in model.parameters():  # away from the initial zeros and ones
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.requires_grad_(False)


def pixels(seed=1, images=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, 3, 32, 32, generator=generator, dtype=torch.float64)


def hook_count(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def recorded(model, images, sites, blocks=(0, 1, 2)):
    with record(model, sites, blocks) as recorder:
        model(images)
    return recorder.activations


def tokens_by_hand(model, images, block, change):
    """Tokens that leave the last block, those that leave `block` having been changed."""
    tokens = recorded(model, images, ["tokens"], [block])["tokens", block].clone()
    change(tokens)
    for module in model.blocks[block % 3 + 1 :]:
        tokens = module(tokens)
    return tokens


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("heads", [[1], [0, 2]])
def test_zero_heads_are_zero_columns_of_the_output_projection(name, heads):
    model, images = make(name), pixels()
    before = model(images)
    for block in (0, -1):
        with intervene(model, {Target("heads", block, heads): ZeroEdit()}):
            found = model(images)
        projection = model.blocks[block].attn.proj
        kept = projection.weight.data.clone()
        for head in heads:
            projection.weight.data[:, 16 * head : 16 * head + 16] = 0
        expected = model(images)
        projection.weight.data = kept
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        assert not torch.allclose(found, before)
    assert torch.equal(model(images), before)


@pytest.mark.parametrize("name", WHITE)
@pytest.mark.parametrize("factor", [0.0, 1.5])
def test_scaled_subspaces_are_scaled_rows_of_the_shared_projection(name, factor):
    model, images = make(name), pixels()
    with intervene(model, {Target(Site.SUBSPACE, 1, 2): ScaleEdit(factor)}):
        found = model(images)
    model.blocks[1].attn.qkv.weight.data[32:48] *= factor
    torch.testing.assert_close(found, model(images), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["plain", "registers", "crate_alpha", "eva02", "dinov3"])
def test_zero_atoms_are_zero_columns_of_the_dictionary(name):
    model, images = make(name), pixels()
    site = atom_site(model, 1)
    strongest = recorded(model, images, [site])[site, 1].abs().sum(dim=(0, 1)).argsort()[-3:]
    with intervene(model, {Target(site, 1, strongest.tolist()): ZeroEdit()}):
        found = model(images)
    before = model(images)
    mlp = model.blocks[1].mlp
    (mlp.D1 if name == "crate_alpha" else mlp.fc2.weight).data[:, strongest] = 0
    torch.testing.assert_close(found, model(images), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(found, before)


@pytest.mark.parametrize("name", ["crate", "crate_mae"])
def test_an_atom_of_ista_is_a_coordinate_of_the_tokens_that_leave_the_block(name):
    model, images = make(name), pixels()
    with (
        intervene(model, {Target("codes", 1, 7, tokens=[0, -2]): SetEdit(0.5)}),
        record(model, ["tokens"]) as recorder,
    ):
        model(images)

    def change(tokens):
        tokens[:, [0, 15], 7] = 0.5

    expected = tokens_by_hand(model, images, 1, change)
    torch.testing.assert_close(recorder.activations["tokens", -1], expected)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_patching_in_an_images_own_activations_changes_nothing(name):
    model, images = make(name), pixels()
    for site in ["heads", "subspace", "tokens", "tokens_in", atom_site(model).value]:
        if site == "subspace" and name not in WHITE:
            continue
        source = recorded(model, images, [site])
        edits = {Target(site, block): PatchIn(source) for block in range(3)}
        edits |= {Target(site, block, [1, 2], tokens=[3]): PatchIn(source) for block in range(3)}
        with intervene(model, edits):
            torch.testing.assert_close(model(images), model(images), rtol=0, atol=0)
            found = model(images)
        assert torch.equal(found, model(images)), site


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("everything", ["tokens", "tokens_in"])
def test_patching_in_everything_at_a_block_gives_the_other_images_output(name, everything):
    model = make(name)
    others = pixels(seed=2)
    source = recorded(model, others, [everything])
    with intervene(model, {Target(everything, 1): PatchIn(source)}):
        assert torch.equal(model(pixels()), model(others))
    one = recorded(model, others[1:], [everything])
    with intervene(model, {Target(everything, 1): PatchIn(one)}):
        torch.testing.assert_close(model(pixels()), model(others[[1, 1]]))


def test_all_heads_and_atoms_patched_in_above_the_embedding_give_the_other_images_last_step():
    model, others = make("crate"), pixels(seed=2)  # CRATE's sparse step has no residual
    source = recorded(model, others, ["heads", "codes"])
    edits = {Target(site, -1): PatchIn(source) for site in ("heads", "codes")}
    with intervene(model, edits):
        torch.testing.assert_close(model(pixels()), model(others))


def test_a_mask_chooses_the_tokens_of_every_image():
    model, images = make("crate_alpha"), pixels()
    generator = torch.Generator().manual_seed(3)
    mask = torch.rand(2, 17, generator=generator) < 0.3
    source = recorded(model, pixels(seed=2), ["tokens"])
    with (
        intervene(model, {Target("tokens", 0, tokens=mask.numpy()): PatchIn(source)}),
        record(model, ["tokens"]) as recorder,
    ):
        model(images)

    def change(tokens):
        for image, token in np.ndindex(2, 17):
            if mask[image, token]:
                tokens[image, token] = source["tokens", 0][image, token]

    expected = tokens_by_hand(model, images, 0, change)
    torch.testing.assert_close(recorder.activations["tokens", -1], expected)


def test_mean_is_that_of_each_prefix_token_and_of_all_patches():
    model, images = make("registers"), pixels()
    with any_resolution(model):  # the source is on another grid
        more = torch.randn(3, 3, 16, 40, generator=torch.Generator().manual_seed(4)).double()
        source = recorded(model, more, ["tokens"])
    with (
        intervene(model, {Target("tokens", 0, [5, 6]): MeanEdit(source)}),
        record(model, ["tokens"]) as recorder,
    ):
        model(images)
    theirs, count = source["tokens", 0], 10
    assert theirs.shape == (3, model.num_prefix_tokens + count, 48)

    def change(tokens):
        for channel in (5, 6):
            for token in range(tokens.shape[1]):
                if token < model.num_prefix_tokens:
                    values = [theirs[s, token, channel] for s in range(3)]
                else:
                    values = [theirs[s, -1 - n, channel] for s in range(3) for n in range(count)]
                tokens[:, token, channel] = sum(values) / len(values)

    expected = tokens_by_hand(model, images, 0, change)
    torch.testing.assert_close(recorder.activations["tokens", -1], expected)


def test_every_image_of_a_batch_can_have_its_own_factor():
    model, images = make("crate_alpha"), pixels()[:1]
    gates = torch.ones(3, 1, 48)
    for head in range(3):
        gates[head, :, channels_of(model, "heads", 1, head)] = 0
    with intervene(model, {Target("heads", 1): ScaleEdit(gates)}):
        together = model(images.expand(3, -1, -1, -1))
    for head in range(3):
        with intervene(model, {Target("heads", 1, head): ZeroEdit()}):
            torch.testing.assert_close(together[head], model(images)[0])


def test_edits_are_made_in_order_and_the_inner_ones_last():
    model, images = make("crate"), pixels()
    place = "codes", 0, 3
    both = {Target(*place): SetEdit(2.0), Target(*place): ScaleEdit(3.0)}
    with intervene(model, both), record(model, "codes", [0]) as recorder:
        model(images)
    assert (recorder.activations["codes", 0][..., 3] == 6).all()
    with intervene(model, {Target(*place): ScaleEdit(3.0)}):
        with intervene(model, {Target(*place): SetEdit(2.0)}):
            with record(model, "codes", [0], stop_early=True) as recorder:
                model(images)
    assert (recorder.activations["codes", 0][..., 3] == 2).all()
    assert hook_count(model) == 0


def test_gradients_flow_through_an_edit():
    model, images = make("crate_alpha"), pixels()
    by = torch.ones(2, 1, 192, dtype=torch.float64, requires_grad=True)
    with intervene(model, {Target("codes", 1): ScaleEdit(by)}):
        (found,) = torch.autograd.grad(model(images)[:, 4].sum(), by)
    step = 1e-6
    atom = int(found[0].abs().argmax())
    scores = []
    for factor in (1 - step, 1 + step):
        with intervene(model, {Target("codes", 1, atom): ScaleEdit(factor)}):
            scores.append(model(images)[:, 4])
    expected = (scores[1] - scores[0]) / (2 * step)
    torch.testing.assert_close(found[:, 0, atom], expected, rtol=1e-6, atol=1e-9)


def test_former_names_of_edits_are_the_edits():
    names = {"Zero": ZeroEdit, "Set": SetEdit, "Scale": ScaleEdit, "Mean": MeanEdit}
    for former, edit in (names | {"Patch": PatchIn}).items():
        assert getattr(crate_interp, former) is getattr(hooks, former) is edit
        assert former not in crate_interp.__all__


def test_nothing_is_left_after_an_exception_and_fused_attention_stays_on():
    model, images = make("plain"), pixels()
    before = model(images)
    with intervene(model, {Target("heads"): ZeroEdit()}):
        assert hook_count(model) == 1
        assert model.blocks[-1].attn.fused_attn
    with pytest.raises(RuntimeError, match="stop"), intervene(model, {Target("heads"): ZeroEdit()}):
        raise RuntimeError("stop")
    bad = {Target("heads"): ZeroEdit(), Target("heads", 5): ZeroEdit()}
    with pytest.raises(InputError, match="block 5"), intervene(model, bad):
        pass
    assert hook_count(model) == 0
    assert torch.equal(model(images), before)


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="needs PyTorch 2.6")
def test_a_compiled_model_is_changed_too():
    model, images = make("plain"), pixels()
    compiled = torch.compile(model, backend="eager")
    before = compiled(images)
    with intervene(compiled, {Target("heads", 0, 1): ZeroEdit()}):
        found = compiled(images)
    with intervene(model, {Target("heads", 0, 1): ZeroEdit()}):
        torch.testing.assert_close(found, model(images))
    torch.testing.assert_close(compiled(images), before)


def test_an_empty_batch_and_no_edit_are_fine():
    model = make("crate")
    source = recorded(model, pixels(), ["heads"])
    edits = {Target("heads", 0, 1, tokens=0): MeanEdit(source), Target("codes"): ScaleEdit(2.0)}
    with intervene(model, edits):
        assert model(pixels()[:0]).shape == (0, 10)
    with intervene(model, {}):
        assert torch.equal(model(pixels()), model(pixels()))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Target("heads", 3), "block 3 is out of range: the model has blocks 0 to 2"),
        (Target("heads", -4), "blocks 0 to 2"),
        (Target("heads", 0, 3), "heads 3 at block 0: expected numbers from 0 to 2"),
        (Target("heads", 0, -1), "from 0 to 2"),
        (Target("heads", 0, []), "from 0 to 2"),
        (Target("heads", 0, 1.5), "from 0 to 2"),
        (Target("codes", 1, 192), "codes 192 at block 1: expected numbers from 0 to 191"),
        (Target("neurons"), "no site 'neurons' at block -1 that can be changed; it has subspace"),
        (Target("attention"), "no site 'attention'"),
        (Target("head"), "no site 'head'"),
        (Target("codes", 1, 3, tokens=17), "tokens 17: expected a mask, or numbers from 0 to 16"),
        (Target("codes", 1, 3, tokens=[-18]), "numbers from 0 to 16"),
        (Target("codes", 1, 3, tokens=[]), "numbers from 0 to 16"),
        (Target("codes", 1, 3, tokens=np.ones(16, bool)), r"mask of shape \(17,\) or \(2, 17\)"),
    ],
)
def test_a_target_that_the_model_does_not_have_is_refused(target, message):
    model = make("crate_alpha")
    with pytest.raises(InputError, match=message), intervene(model, {target: ZeroEdit()}):
        model(pixels())
    assert hook_count(model) == 0


def test_a_source_or_value_that_does_not_fit_is_refused():
    model = make("crate_alpha")
    source = recorded(model, pixels(images=3), ["heads"], [0])
    shallow = timm.create_model("crate_alpha_tiny_patch16_224", **(TINY | {"depth": 1})).double()
    for edits, message in [
        ({Target("heads", 1): PatchIn(source)}, r"lacks the target: .'heads', 1. was not recorded"),
        ({Target("heads", 0): PatchIn(source)}, r"\(3, 17, 48\) does not fit .* \(2, 17, 48\)"),
        (
            {Target("heads", 0): SetEdit(torch.zeros(5))},
            r"broadcasts to \(2, 17, 48\), found .*\(5,\)",
        ),
        ({Target("heads", 0, 1): ScaleEdit(torch.zeros(48))}, r"broadcasts to \(2, 17, 16\)"),
        ({Target("heads", 0): PatchIn(recorded(shallow, pixels(), "heads", [0]))}, "1 blocks"),
    ]:
        with pytest.raises(InputError, match=message), intervene(model, edits):
            model(pixels())


def test_units_are_counted_and_have_their_channels():
    model = make("crate_alpha")
    assert [count_units(model, site) for site in ("heads", "codes", "tokens")] == [3, 192, 48]
    assert count_units(make("crate"), "codes") == 48
    assert count_units(make("plain"), "neurons") == 192
    assert channels_of(model, "heads", 0, [2, 0]).tolist() == [*range(32, 48), *range(16)]
    assert channels_of(model, "codes", 0, 9).tolist() == [9]
    assert atom_site(make("plain")) is Site.NEURONS
    with pytest.raises(InputError, match="found ResNet"):
        atom_site(timm.create_model("resnet10t"))
