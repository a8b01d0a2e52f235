"""Coherence of subspaces against loops over directions."""

import numpy as np
import pytest
import timm
import torch

from crate_interp import InputError, load_backbone
from crate_interp.analysis import subspace_coherence


@pytest.mark.parametrize("name", ["demo", "demo_crate"])
def test_means_are_those_of_plain_loops(name):
    model = load_backbone(name)
    measured = subspace_coherence(model)
    assert len(measured) == len(model.blocks)
    rows = model.blocks[2].attn.qkv.weight.detach().double().numpy()
    size = len(rows) // measured[2].num_heads
    within, between = [], []
    for one in range(0, len(rows), 7):
        for other in range(len(rows)):
            if one == other:
                continue
            lengths = np.linalg.norm(rows[one]) * np.linalg.norm(rows[other])
            cosine = abs(rows[one] @ rows[other]) / lengths
            assert measured[2].cosines[one, other] == pytest.approx(cosine, abs=1e-12)
            (within if one // size == other // size else between).append(cosine)
    sampled = measured[2].cosines[::7]
    assert sampled.sum() - len(sampled) == pytest.approx(sum(within) + sum(between))
    block = measured[2].cosines[:size, :size]
    assert measured[2].within >= 0.99 * (block.sum() - size) / size**2 / 4  # of four heads


def test_orthogonal_subspaces_have_no_coherence():
    model = load_backbone("demo")
    orthogonal, _ = torch.linalg.qr(torch.randn(128, 128, dtype=torch.float64))
    model.blocks[0].attn.qkv.weight.data = (5 * orthogonal).float()
    first, second, *_ = subspace_coherence(model)
    assert max(first.within, first.between) < 1e-6
    assert min(second.within, second.between) > 1e-3


def test_alike_heads_are_told_from_alike_directions_within_a_head():
    model = load_backbone("demo")
    basis = torch.eye(128)[:32]
    model.blocks[0].attn.qkv.weight.data = basis.repeat(4, 1)
    first = subspace_coherence(model)[0]
    assert first.within == 0
    assert first.between == pytest.approx(1 / 32)


def test_a_vit_has_no_subspaces():
    model = timm.create_model("vit_tiny_patch16_224", depth=1)
    with pytest.raises(InputError, match="block 0: expected subspaces"):
        subspace_coherence(model)
