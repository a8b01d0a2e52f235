"""Text models are recorded and changed as vision models are, by their anatomy."""

import numpy as np
import pytest
import torch

from crate_interp.errors import InputError
from crate_interp.hooks import (
    Target,
    ZeroEdit,
    any_resolution,
    atom_contributions,
    attention_chunks,
    available_sites,
    intervene,
    record,
    written_dictionary,
)
from crate_interp.models.text import TEXT_MODELS
from crate_interp.weights import load_text_model
from crate_interp.weights.text import create_text_model

FILES = {
    "crate_text_base": "crate_lm_d48_l2_h3_v97_t32",
    "crate_overcomplete_text_base": "crate_lm_overcomplete_d48_l2_h3_v97_t32",
}
TINY = {"vocabulary": 11, "context": 8, "embed_dim": 12, "depth": 2, "num_heads": 3}
MINI = [name for name in TEXT_MODELS if name.endswith("mini")]
TOKENS = torch.arange(8)[None]


@pytest.fixture(params=MINI)
def model(request):
    torch.manual_seed(0)
    return create_text_model(request.param, **TINY)


@pytest.mark.parametrize("name", FILES)
def test_recorded_sites_are_the_reference_vectors(name, reference):
    expected = np.load(reference / f"{FILES[name]}_io.npz")
    model = load_text_model(name, reference / f"{FILES[name]}.pt")
    sites = ["subspace", "codes", "tokens"]
    with record(model, sites, blocks=[0, 1]) as recorder, torch.no_grad():
        model(torch.from_numpy(expected["idx"]))
    for site in sites:
        for block in (0, 1):
            seen = recorder.activations[site, block]
            np.testing.assert_allclose(seen, expected[f"{site}_{block}"], rtol=0, atol=1e-4)
    assert recorder.activations.grid_hw == (1, 29)
    assert recorder.activations.patch_features("codes", 0).shape[-1] == 29


def test_attention_is_causal_and_gives_what_the_heads_hand_on(model):
    sites = ["query", "key", "value", "attention", "heads"]
    with record(model, sites, blocks=1) as recorder, torch.no_grad():
        model(TOKENS)
    seen = recorder.activations
    attention = seen["attention", 1]
    assert attention.shape == (1, 3, 8, 8)
    torch.testing.assert_close(attention.sum(-1), torch.ones(1, 3, 8))
    assert not attention.triu(1).any()
    value = seen["value", 1].unflatten(-1, (3, 4)).transpose(1, 2)
    heads = (attention @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(heads, seen["heads", 1])
    rows = torch.cat([part for _, part in attention_chunks(seen, 1, rows=3)], dim=2)
    torch.testing.assert_close(rows, attention)


def test_codes_write_what_the_dictionary_says(model):
    site = "codes" if "codes" in available_sites(model) else "neurons"
    with record(model, [site], blocks=0) as recorder, torch.no_grad():
        model(TOKENS)
        codes = recorder.activations[site, 0]
        written = codes @ written_dictionary(model, 0).T
        block, tokens = model.blocks[0], model.token_embedding(TOKENS) + model.pos_embed
        added = block.mlp(block.norm2(block.attend(tokens)))
    bias = getattr(getattr(block.mlp, "fc2", None), "bias", 0.0)
    torch.testing.assert_close(written + bias, added)
    shares = atom_contributions(codes[0], written_dictionary(model, 0)).share
    assert shares.sum() == pytest.approx(1)


def test_an_edit_of_a_token_changes_it_and_what_follows(model):
    with torch.no_grad():
        before = model(TOKENS)
        with intervene(model, {Target("tokens", 0, tokens=[4]): ZeroEdit()}):
            after = model(TOKENS)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.tensor([[0, 11]]), "expected numbers from 0 to 10.*found 0 to 11"),
        (torch.zeros(1, 9, dtype=torch.long), r"texts of 1 to 8 tokens, found shape \(1, 9\)"),
        (torch.zeros(1, 0, dtype=torch.long), r"texts of 1 to 8 tokens, found shape \(1, 0\)"),
    ],
)
def test_texts_that_do_not_fit_are_refused_and_leave_no_hook(model, tokens, message):
    with pytest.raises(InputError, match=message), record(model, ["tokens"]):
        model(tokens)
    assert not any(module._forward_hooks for module in model.modules())
    with record(model, ["tokens"]) as recorder, torch.no_grad():
        model(TOKENS)
    assert recorder.activations["tokens", -1].shape == (1, 8, 12)


def test_what_a_text_model_has_not_is_refused(model):
    with pytest.raises(InputError, match="has no site cls_attention"):
        record(model, ["cls_attention"])
    with pytest.raises(InputError, match="cannot change its resolution"), any_resolution(model):
        pass
