"""What blocks declare: a block of a third party, and timm's EVA and DINOv3, end to end."""

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from crate_interp import (
    InputError,
    MaskCut,
    Observer,
    ScaleEdit,
    Target,
    any_resolution,
    intervene,
    record,
)
from crate_interp.analysis import (
    attention_relevance,
    layer_objective,
    logit_effects,
    objective_sites,
    written_energy,
)
from crate_interp.hooks import (
    Site,
    atom_site,
    attention_map,
    available_sites,
    count_units,
    scores_from,
    written_dictionary,
)
from crate_interp.models.anatomy import Anatomy, Atoms, Heads, Place, QueryKeyValue, anatomy_of

TINY = {"embed_dim": 48, "depth": 3, "num_heads": 3, "patch_size": 8, "img_size": 32}
TINY |= {"num_classes": 10}


class ForeignBlock(nn.Module):
    """Other names, order and scale: codes before attention, no MLP, no fused attention."""

    def __init__(self, dim, num_heads, **_):
        super().__init__()
        self.num_heads = num_heads
        self.before = nn.LayerNorm(dim)
        self.query_key = nn.Linear(dim, 2 * 8 * num_heads)
        self.values = nn.Linear(dim, 8 * num_heads)
        self.merge = nn.Linear(8 * num_heads, dim)
        self.encode = nn.Linear(dim, 20)
        self.sparse = nn.ReLU()
        self.decode = nn.Linear(20, dim, bias=False)

    def mixed(self, x):
        query, key, value = self.split(x, {})[:3]
        scores = query @ key.transpose(-2, -1) / 8**0.5
        return self.merge((scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2))

    def forward(self, x):
        x = x + self.decode(self.sparse(self.encode(x)))
        return x + self.mixed(self.before(x))

    def split(self, x, _):
        parts = torch.cat([self.query_key(x), self.values(x)], dim=-1)
        parts = parts.unflatten(-1, (3, self.num_heads, 8)).permute(2, 0, 3, 1, 4)
        return QueryKeyValue(3 * parts[0], parts[1], parts[2])

    def anatomy(self):
        return Anatomy(
            Heads(
                self.num_heads,
                8,
                Place("before"),
                self.split,
                output=Place("merge", enters=True),
                module="before",
                norm="before",
            ),
            Atoms(Site.CODES, 20, Place("sparse"), self.decode.weight.detach, threshold=0.1),
        )


def foreign(**extra):
    torch.manual_seed(0)
    model = VisionTransformer(**(TINY | {"block_fn": ForeignBlock} | extra)).eval().double()
    return model.requires_grad_(False)


def eva(name="eva02_tiny_patch14_224", **extra):
    torch.manual_seed(0)
    model = timm.create_model(name, **(TINY | {"global_pool": "token"} | extra)).eval().double()
    for parameter in model.parameters():  # away from the initial zeros and ones
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.requires_grad_(False)


def pixels(height=32, width=32):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64)


def test_a_foreign_block_is_recorded_as_it_says():
    model = foreign()
    sites = ("query", "key", "value", "attention", "cls_attention", "heads")
    assert available_sites(model) == (*map(Site, sites), Site.TOKENS_IN, Site.TOKENS, Site.CODES)
    maps = []
    with record(model, sites, [1]) as recorder:
        hook = model.blocks[1].merge.register_forward_pre_hook(lambda _, args: maps.append(args[0]))
        model(pixels())
        hook.remove()
    found = recorder.activations
    assert found.num_heads == 3
    assert found["query", 1].shape == (2, 17, 24)
    value = found["value", 1].unflatten(-1, (3, 8)).transpose(1, 2)
    expected = (found["attention", 1] @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(maps[0], expected)
    torch.testing.assert_close(found["heads", 1], maps[0])
    rows = attention_map(found, 1)
    torch.testing.assert_close(
        rows.double().flatten(2), found["cls_attention", 1][..., 1:], rtol=1e-5, atol=1e-6
    )


def test_a_foreign_block_is_changed_measured_and_attributed():
    model, classes = foreign(), torch.tensor([3, 5])
    assert [count_units(model, site) for site in ("heads", "codes", "tokens")] == [3, 20, 48]
    assert atom_site(model) is Site.CODES
    torch.testing.assert_close(written_dictionary(model, 1), model.blocks[1].decode.weight)
    before = model(pixels())
    with intervene(model, {Target("codes", 1, 4): ScaleEdit(0.0)}):
        found = model(pixels())
    with record(model, ["tokens_in", "codes"], [1]) as recorder:
        model(pixels()[:1])
    effect = logit_effects(model, recorder.activations, 3, Site.CODES, 1, [4])
    torch.testing.assert_close(effect[0], (before - found)[0, 3])
    energy = written_energy(model, recorder.activations["codes", 1], 1)
    assert energy.shape == (20,)
    relevance = attention_relevance(model.requires_grad_(), pixels(), classes)
    assert relevance.shape == (2, 16)
    assert relevance.max() > 0


def test_the_objective_of_a_foreign_white_box_is_measured():
    model = foreign().float()
    assert objective_sites(model) == (Site.TOKENS_IN, Site.KEY, Site.CODES)
    with record(model, objective_sites(model), range(3)) as recorder:
        model(pixels().float())
    found = layer_objective(model, recorder.activations)
    zeros = (recorder.activations["codes", 0] == 0).double().mean(dim=(1, 2))
    torch.testing.assert_close(found.sparsity[:, 0], zeros)
    assert found.objective.shape == (2, 3)


def test_a_foreign_block_is_cut():
    rgb = torch.randint(0, 255, (32, 48, 3), dtype=torch.uint8).numpy()
    model = foreign().float()
    assert MaskCut(model, size=32)(rgb).masks.shape[1:] == (32, 48)
    assert Observer(model, size=(32, 64)).activations([rgb], ["key"], [-1]).grid_hw == (4, 8)


@pytest.mark.parametrize(
    "extra",
    [
        {},  # gated, a norm inside, separate projections of tokens or one: by name
        {"init_values": 0.3},
        {"init_values": 0.3, "swiglu_mlp": False, "scale_mlp": False},
    ],
)
@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "eva02_base_patch14_224"])
def test_neurons_of_eva_write_what_the_mlp_adds(name, extra):
    model = eva(name, **extra)
    block = model.blocks[1]
    middle = []
    hook = block.norm2.register_forward_pre_hook(lambda _, args: middle.append(args[0]))
    with record(model, ["neurons", "tokens"], [1]) as recorder:
        model(pixels())
    hook.remove()
    scale = 1 if block.gamma_2 is None else block.gamma_2
    added = recorder.activations["tokens", 1] - middle[0] - scale * block.mlp.fc2.bias
    written = recorder.activations["neurons", 1] @ written_dictionary(model, 1).T
    torch.testing.assert_close(written, added)
    assert anatomy_of(block).atoms.rectified == ("swiglu_mlp" in extra)


def test_rotary_position_of_one_grid_is_that_of_any():
    fixed, dynamic = eva(), eva(dynamic_img_size=True)
    dynamic.load_state_dict(fixed.state_dict())
    before = fixed(pixels())
    for height, width in ((32, 32), (16, 64), (40, 24)):  # the second has as many patches
        with any_resolution(fixed):
            found = fixed(pixels(height, width))
        torch.testing.assert_close(found, dynamic(pixels(height, width)))
    assert torch.equal(fixed(pixels()), before)


@pytest.mark.parametrize(
    "name", ["eva02_tiny_patch14_224", "vit_base_patch16_rope_mixed_224", "eva_giant_patch14_224"]
)
def test_a_pass_goes_on_from_the_middle_with_its_rotary_position(name):
    model = eva(name, mlp_ratio=4)
    expected = model(pixels(32, 32))
    with record(model, ["tokens_in"], range(3)) as recorder:
        model(pixels())
    passed = recorder.activations
    for block in range(3):
        found = scores_from(model, passed["tokens_in", block], block, passed.arguments)
        torch.testing.assert_close(found, expected)
    with pytest.raises(InputError, match="block 1 is run with rope, which was not recorded"):
        scores_from(model, passed["tokens_in", 1], 1)
    with record(model, ["tokens_in"], [0], stop_early=True) as recorder:
        model(pixels())
    with pytest.raises(InputError, match="block 1 is run with rope, which was not recorded"):
        scores_from(model, passed["tokens_in", 0], 0, recorder.activations.arguments)


def test_what_is_in_no_table_has_its_tokens_alone():
    class Other(timm.layers.Attention):
        pass

    model = timm.create_model("vit_tiny_patch16_224", **TINY)
    model.blocks[1].attn.__class__ = Other
    model.blocks[1].mlp = nn.Identity()
    assert available_sites(model, 1) == (Site.TOKENS_IN, Site.TOKENS)
    assert anatomy_of(nn.Identity()).sites == (Site.TOKENS_IN, Site.TOKENS)
    with record(model, ["tokens"], [1]) as recorder:
        model(torch.zeros(0, 3, 32, 32))
    assert recorder.activations.num_heads is None
    with pytest.raises(KeyError, match="was not recorded"):
        attention_map(recorder.activations)


def test_a_foreign_block_of_an_empty_batch():
    model = foreign()
    with record(model, ["attention", "codes"]) as recorder:
        assert F.relu(model(pixels()[:0])).shape == (0, 10)
    assert recorder.activations["attention", -1].shape == (0, 3, 17, 17)
