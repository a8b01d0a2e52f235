"""Contributions of atoms against what the blocks of real models compute."""

import numpy as np
import pytest
import timm
import torch

from crate_interp import InputError, load_backbone, record
from crate_interp.hooks import Site, atom_contributions, atom_site, written_dictionary

TINY = {"embed_dim": 24, "depth": 2, "num_heads": 3, "img_size": 16, "patch_size": 4}
MODELS = {
    "crate_alpha_demo": {},
    "crate_demo": {},
    "vit_demo": {},
    "vit_small_patch16_224": {"init_values": 0.3},
    "vit_demo with gates": {"mlp_layer": timm.layers.SwiGLU},
}


def tiny(name):
    torch.manual_seed(0)
    model = load_backbone(name.split()[0], pretrained=False, **TINY, **MODELS[name])
    for parameter in model.parameters():  # biases and scales are constant at first
        torch.nn.init.normal_(parameter, std=0.3)
    return model.double()


def written(model, block, pixels):
    """What the sparse step or the MLP of a block puts into the stream, and its atoms' values."""
    seen = {}
    module = model.blocks[block]
    outermost = getattr(module, "ls2", None)
    if not isinstance(outermost, torch.nn.Module) or isinstance(outermost, torch.nn.Identity):
        outermost = module.mlp
    hook = outermost.register_forward_hook(lambda _, __, output: seen.update(output=output))
    site = atom_site(model, block)
    with torch.no_grad(), record(model, [site], [block]) as recorder:
        model(pixels)
    hook.remove()
    return seen["output"], recorder.activations[site, block]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("block", [0, -1])
def test_contributions_of_all_atoms_sum_to_what_the_block_writes(name, block):
    model = tiny(name)
    output, codes = written(model, block, torch.rand(2, 3, 16, 16, dtype=torch.float64))
    dictionary = written_dictionary(model, block).double()
    bias = 0
    if atom_site(model, block) is Site.NEURONS:
        bias = model.blocks[block].mlp.fc2.bias
        bias = bias * getattr(model.blocks[block].ls2, "gamma", 1)
    for token in (0, 3):
        total = torch.zeros(24, dtype=torch.float64)
        for atom in range(dictionary.shape[1]):
            total += codes[1, token, atom] * dictionary[:, atom]
        torch.testing.assert_close(total + bias, output[1, token], rtol=1e-9, atol=1e-9)


def test_contributions_are_those_of_a_plain_loop():
    rng = np.random.default_rng(0)
    codes, columns = rng.random((3, 5)), rng.normal(size=(4, 5))
    columns[:, 0] = -0.5 * columns[:, 1]
    found = atom_contributions(torch.from_numpy(codes), torch.from_numpy(columns))
    length = 0.0
    along, norm = np.zeros(5), np.zeros(5)
    for token in codes:
        parts = [value * columns[:, atom] for atom, value in enumerate(token)]
        y = sum(parts)
        length += y @ y
        for atom, part in enumerate(parts):
            along[atom] += part @ y
            norm[atom] += np.sqrt(part @ part) / 3
    np.testing.assert_allclose(found.share, along / length, rtol=1e-12)
    np.testing.assert_allclose(found.norm, norm, rtol=1e-12)
    assert found.share.sum() == pytest.approx(1)
    assert found.share.min() < 0  # some atoms write against the sum


def test_silent_atoms_have_no_share():
    found = atom_contributions(torch.zeros(2, 5), torch.ones(4, 5))
    assert (found.share == 0).all()
    assert (found.norm == 0).all()


@pytest.mark.parametrize("shape", [(0, 5), (2, 4), (5,)])
def test_no_token_and_other_widths_are_refused(shape):
    with pytest.raises(InputError, match="codes: expected one token or more of 5 atoms"):
        atom_contributions(torch.zeros(shape), torch.ones(4, 5))


def test_models_without_atoms_and_blocks_that_are_none_are_refused():
    model = tiny("vit_demo")
    with pytest.raises(InputError, match="block 2 is out of range: the model has blocks 0 to 1"):
        written_dictionary(model, 2)
    model.blocks[0].mlp = torch.nn.Identity()
    with pytest.raises(InputError, match="neither sparse codes nor neurons at block 0"):
        atom_site(model, 0)
