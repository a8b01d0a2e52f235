"""The atlas of tokens, against plain loops over recorded codes."""

import numpy as np
import pytest
import torch

from crate_interp.analysis import build_token_atlas
from crate_interp.errors import InputError
from crate_interp.hooks import record
from crate_interp.weights.text import create_text_model

TINY = {"vocabulary": 7, "context": 6, "embed_dim": 12, "depth": 2, "num_heads": 3}
WINDOWS = np.random.default_rng(0).integers(0, 7, (9, 6), np.uint16)


@pytest.fixture(scope="module", params=["crate_alpha_text_mini", "gpt_text_mini"])
def model(request):
    torch.manual_seed(0)
    model = create_text_model(request.param, **TINY)
    model.token_embedding.weight.data.mul_(20)
    return model


def codes_of(model, block):
    site = "codes" if hasattr(model.blocks[0].mlp, "codes") else "neurons"
    rows = []
    for window in WINDOWS.astype(np.int64):
        with record(model, [site], [block]) as recorder, torch.no_grad():
            model(torch.from_numpy(window)[None])
        rows.append(recorder.activations[site, block][0].clamp(min=0).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("block", [0, -1])
def test_atlas_is_that_of_a_plain_loop(model, block):
    found = build_token_atlas(model, WINDOWS, block, strongest=3, around=2, batch_size=4)
    codes, atlas = codes_of(model, block), found.atlas
    np.testing.assert_array_equal(atlas.fired_patches, (codes > 0).sum(axis=(0, 1)))
    np.testing.assert_array_equal(atlas.fired_images, (codes > 0).any(axis=1).sum(axis=0))
    for token in range(7):
        of_token = codes[token == WINDOWS].mean(axis=0)
        np.testing.assert_allclose(atlas.class_means[token], of_token, rtol=1e-4, atol=1e-6)
    for atom in range(atlas.num_atoms):
        strongest = np.sort(codes[:, :, atom].max(axis=1))[::-1][:3]
        np.testing.assert_allclose(atlas.top_values[atom], strongest, rtol=1e-4, atol=1e-6)
        for rank, window in enumerate(atlas.top_images[atom]):
            if window < 0:
                assert (found.contexts[atom, rank] == -1).all()
                continue
            middle = atlas.top_patches[atom, rank]
            around = [middle + offset for offset in range(-2, 3)]
            tokens = [WINDOWS[window, at] if 0 <= at < 6 else -1 for at in around]
            values = [codes[window, at, atom] if 0 <= at < 6 else 0 for at in around]
            assert found.contexts[atom, rank].tolist() == tokens
            np.testing.assert_allclose(found.values[atom, rank], values, rtol=1e-4, atol=1e-6)


def test_each_window_of_the_first_pass_is_told(model):
    told = []
    build_token_atlas(model, WINDOWS, around=0, done=told.append)
    assert told == [1] * len(WINDOWS)


def test_no_windows_and_tokens_of_another_vocabulary_are_refused(model):
    with pytest.raises(InputError, match="expected a window of one token or more, found none"):
        build_token_atlas(model, WINDOWS[:0])
    with pytest.raises(InputError, match=r"expected numbers from 0 to 6.*found 7 to 7"):
        build_token_atlas(model, np.full((1, 6), 7))


def test_a_large_vocabulary_has_no_statistics_by_token(model, monkeypatch):
    monkeypatch.setattr("crate_interp.analysis.token_atlas._MOST_SUMS", 7 * 12)
    assert build_token_atlas(model, WINDOWS).atlas.class_means.shape[0] == 0
