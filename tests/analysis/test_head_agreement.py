"""Agreement of heads across images, against loops over the definition."""

import itertools

import numpy as np
import pytest
import torch

from crate_interp import InputError
from crate_interp.analysis import attended_keys, head_agreement


def drawn(images=4, heads=3, patches=10, dim=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(images, heads, patches, generator=generator)
    return maps, torch.randn(images, patches, dim, generator=generator) + 2


def reference(maps, keys):
    heads = maps.shape[1]
    head_dim = keys.shape[2] // heads
    mean = np.mean([key for image in keys.double().numpy() for key in image], axis=0)
    scores = []
    for head in range(heads):
        others = [n for n in range(keys.shape[2]) if n // head_dim != head]
        seen = []
        for weights, of_image in zip(maps[:, head].double().numpy(), keys.double(), strict=True):
            average = sum(w * key.numpy() for w, key in zip(weights, of_image, strict=True))
            seen.append((average / weights.sum() - mean)[others])
        cosines = [
            a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
            for a, b in itertools.combinations(seen, 2)
        ]
        scores.append(np.mean(cosines))
    return scores


@pytest.mark.parametrize("images", [2, 5])
def test_agreement_matches_loops(images):
    maps, keys = drawn(images)
    attended = torch.stack([attended_keys(*each) for each in zip(maps, keys, strict=True)])
    np.testing.assert_allclose(head_agreement(attended), reference(maps, keys), rtol=1e-6)


def test_head_that_finds_the_same_thing_anywhere_agrees_most():
    maps, keys = drawn(images=6, heads=2, dim=8)
    for image in range(6):  # head 1 looks at one patch, which looks alike, at another place
        keys[image, image] = torch.arange(8.0)
        maps[image, 1] = torch.eye(10)[image]
    attended = torch.stack([attended_keys(*each) for each in zip(maps, keys, strict=True)])
    scores = head_agreement(attended)
    assert scores[1] == pytest.approx(1)
    assert scores[0] < 0.9


def test_own_keys_do_not_count():
    maps, keys = drawn(heads=2, dim=8)
    changed = keys.clone()
    changed[:, :, :4] = 7 * torch.rand(4, 10, 4)
    scores = [
        head_agreement(torch.stack([attended_keys(*each) for each in zip(maps, of, strict=True)]))
        for of in (keys, changed)
    ]
    assert scores[0][0] == pytest.approx(float(scores[1][0]))
    assert scores[0][1] != pytest.approx(float(scores[1][1]))


@pytest.mark.parametrize(("images", "heads"), [(0, 3), (1, 3), (3, 1)])
def test_nothing_to_compare_is_an_error(images, heads):
    with pytest.raises(InputError, match=f"found {images} images and {heads} heads"):
        head_agreement(torch.zeros(images, heads + 1, 12))


@pytest.mark.parametrize(
    "shapes", [((0, 4), (4, 6)), ((2, 0), (0, 6)), ((2, 4), (5, 6)), ((4, 3), (3, 6))]
)
def test_maps_and_keys_that_do_not_fit_are_errors(shapes):
    with pytest.raises(InputError, match="of the same patches"):
        attended_keys(torch.ones(shapes[0]), torch.ones(shapes[1]))
