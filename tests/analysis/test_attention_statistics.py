"""Distance, entropy and rollout, against loops over the definitions in float64."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from crate_interp import InputError, any_resolution, load_backbone, record
from crate_interp.analysis import attention_statistics, uniform_distance


def recorded(name, size=(16, 24)):
    model = load_backbone(name)
    pixels = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    sites, blocks = ["query", "key", "attention"], range(len(model.blocks))
    with torch.no_grad(), any_resolution(model), record(model, sites, blocks) as recorder:
        model(pixels)
    return model.blocks[0].attn.num_heads, recorder.activations


def reference(activations, image, spacing, source):
    """Everything from whole maps; rollout as a product of whole matrices."""
    rows, columns = activations.grid_hw
    prefix = activations.num_prefix_tokens
    places = [(row * spacing[0], column * spacing[1]) for row, column in np.ndindex(rows, columns)]
    distance, entropy, rollout = [], [], []
    product = np.eye(prefix + rows * columns)
    for block in range(activations.num_blocks):
        maps = activations["attention", block][image].double().numpy()
        distance.append([])
        entropy.append([])
        for attention in maps:
            means = []
            for i, here in enumerate(places):
                weights = attention[prefix + i, prefix:]
                apart = [math.dist(here, there) for there in places]
                means.append(sum(w * d for w, d in zip(weights, apart, strict=True)) / sum(weights))
            distance[-1].append(sum(means) / len(means))
            rows_entropy = [-sum(a * math.log(a) for a in row if a > 0) for row in attention]
            entropy[-1].append(sum(rows_entropy) / len(rows_entropy))
        mixed = (maps.mean(axis=0) + np.eye(len(product))) / 2
        product = mixed @ product
        rollout.append(product[source])
    return distance, entropy, rollout


@pytest.mark.parametrize(
    ("name", "spacing", "patch"),
    [
        ("demo", (1.0, 1.0), None),
        ("demo_crate", (4.0, 2.0), (1, 2)),
        ("demo_vit", (4.0, 4.0), None),
    ],
)
def test_statistics_match_loops(name, spacing, patch, one_thread):
    _, activations = recorded(name)
    source = 0 if patch is None else 1 + patch[0] * activations.grid_hw[1] + patch[1]
    found = attention_statistics(activations, spacing, patch)
    for image in range(2):
        distance, entropy, rollout = reference(activations, image, spacing, source)
        np.testing.assert_allclose(found.distance[image], distance, rtol=1e-5)
        np.testing.assert_allclose(found.entropy[image], entropy, rtol=1e-5)
        np.testing.assert_allclose(found.rollout[image], rollout, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(found.rollout.sum(dim=2), torch.ones(2, activations.num_blocks))


def test_more_tokens_than_a_chunk_and_known_attention():
    _, activations = recorded("demo", (68, 68))  # 290 tokens, chunks of 256
    blind = {key: torch.zeros_like(tensor) for key, tensor in activations.items()}
    found = attention_statistics(replace(activations, tensors=blind), (4, 4))
    expected = uniform_distance((17, 17), (4, 4))
    np.testing.assert_allclose(found.distance, expected, rtol=1e-5)
    np.testing.assert_allclose(found.entropy, math.log(290), rtol=1e-6)
    # Half stays in each block: what has left the class token is spread evenly over all tokens.
    for block in range(activations.num_blocks):
        left = 1 - 0.5 ** (block + 1)
        np.testing.assert_allclose(found.rollout[:, block, 1:], left / 290, rtol=1e-5)


@pytest.mark.parametrize("grid_hw", [(1, 1), (2, 3)])
def test_uniform_distance_is_the_mean_of_all_pairs(grid_hw):
    places = [(3 * row, 2 * column) for row, column in np.ndindex(grid_hw)]
    expected = np.mean([math.dist(here, there) for here in places for there in places])
    assert uniform_distance(grid_hw, (3, 2)) == pytest.approx(expected)


def test_a_block_that_is_missing_and_an_empty_grid_are_errors():
    _, activations = recorded("demo")
    without = {key: value for key, value in activations.items() if key != ("key", 1)}
    with pytest.raises(InputError, match=r"expected key of all 4 blocks, found none of \[1\]"):
        attention_statistics(replace(activations, tensors=without))
    with pytest.raises(InputError, match="expected a patch or more"):
        uniform_distance((0, 3))
