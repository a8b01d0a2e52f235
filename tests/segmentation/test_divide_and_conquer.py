"""Divide and conquer against a plain loop that looks at all pairs of regions anew."""

import numpy as np
import pytest
import torch

from crate_interp.errors import InputError
from crate_interp.hooks import Observer
from crate_interp.segmentation import (
    divide_and_conquer,
    mask_scores,
    maskcut,
    merged_neighbours,
)
from crate_interp.segmentation.segmenter import SEGMENTERS
from crate_interp.weights import load_backbone

GRID = (12, 14)


def cosine(features, labels, one, other):
    sums = [features[:, labels == number].sum(axis=1) for number in (one, other)]
    return sums[0] @ sums[1] / np.linalg.norm(sums[0]) / np.linalg.norm(sums[1])


def merged_anew(features, threshold):
    """Merge the most alike pair of touching regions until none reaches the threshold."""
    labels = np.arange(features[0].size).reshape(features.shape[1:])
    while True:
        touching = {
            *zip(labels[:, :-1].flat, labels[:, 1:].flat, strict=True),
            *zip(labels[:-1].flat, labels[1:].flat, strict=True),
        }
        alike = {pair: cosine(features, labels, *pair) for pair in touching if pair[0] != pair[1]}
        if not alike or max(alike.values()) < threshold:
            order = np.unique(labels.ravel(), return_index=True)[1]
            starts = np.sort(order)
            numbers = {labels.flat[start]: number for number, start in enumerate(starts)}
            return np.vectorize(numbers.get)(labels)
        one, other = max(alike, key=alike.get)
        labels[labels == other] = one


@pytest.mark.parametrize("seed", range(3))
def test_merging_is_that_of_the_plain_loop(seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(4, 5, 6)) + 0.4
    thresholds = (0.9, 0.7, 0.4, 0.1, -1)
    for threshold, labels in zip(thresholds, merged_neighbours(features, thresholds), strict=True):
        np.testing.assert_array_equal(labels, merged_anew(features, threshold))
    assert not labels.any()  # all is one in the end


def test_a_patch_without_a_feature_is_alone():
    features = np.ones((2, 2, 3))
    features[:, 0, 1] = 0
    (labels,) = merged_neighbours(features, [0.5])
    np.testing.assert_array_equal(labels, [[0, 1, 0], [0, 0, 0]])


def scene():
    """A background, an object of two halves one of which is of two quarters, and one of one."""
    kinds = np.zeros(GRID, dtype=int)
    kinds[2:10, 1:4], kinds[2:6, 4:7], kinds[6:10, 4:7], kinds[3:9, 9:12] = 1, 2, 3, 4
    shares = [  # of the squared length: cosines are 0.55 of quarters, 0.35 or 0.40 of halves
        *([0, 0, 0, 0, 0, 1, 0], [0.35, 0.65, 0, 0, 0, 0, 0]),
        *([0.35, 0, 0.2, 0.45, 0, 0, 0], [0.35, 0, 0.2, 0, 0.45, 0, 0], [0, 0, 0, 0, 0, 0, 1]),
    ]
    return torch.from_numpy(np.sqrt(shares)[kinds.ravel()].T), kinds


def test_parts_lie_in_parts():
    features, kinds = scene()
    masks, parents = divide_and_conquer(features, GRID, tau=0.1, min_patches=4)
    whole = maskcut(features, GRID, tau=0.1).masks.numpy()
    whole = whole[whole.any(axis=(1, 2))]
    np.testing.assert_array_equal(masks[: len(whole)], whole)
    assert (parents[: len(whole)] == -1).all()
    for mask, parent in zip(masks[len(whole) :], parents[len(whole) :], strict=True):
        assert not (mask & ~masks[parent]).any()
        assert mask.sum() < masks[parent].sum()
    named = {mask.tobytes(): number for number, mask in enumerate(masks)}
    whole, half, quarter = (np.isin(kinds, of).tobytes() for of in ([1, 2, 3], [2, 3], [2]))
    assert parents[named[quarter]] == named[half]
    assert parents[named[half]] == named[whole]
    assert parents[named[whole]] == -1


def test_small_parts_are_left_out_and_alike_patches_have_no_object(caplog):
    features, _ = scene()
    masks, parents = divide_and_conquer(features, GRID, tau=0.1, min_patches=20)
    assert masks[parents >= 0].sum(axis=(1, 2)).tolist() == [24, 24]
    masks, parents = divide_and_conquer(torch.ones(3, 168), GRID, name="grey.png")
    assert "grey.png: constant image" in caplog.text
    assert (masks.shape, parents.shape) == ((0, *GRID), (0,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_patches": 0}, "min_patches"),
        ({"max_masks": 0}, "max_masks"),
        ({"tau": 2}, "tau"),
        ({"grid_size": (3, 3)}, "9"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        divide_and_conquer(**{"features": torch.ones(2, 20), "grid_size": (4, 5)} | arguments)


def test_the_segmenter_gives_objects_and_parts():
    observer = Observer(load_backbone("demo_vit"), size=48)
    rgb = np.random.default_rng(0).integers(0, 60, (60, 80, 3), np.uint8)
    rgb[10:40, 20:50] = (220, 180, 30)
    segmenter = SEGMENTERS["divide-and-conquer"](tau=0.8).for_model(observer.model)
    (activations,) = observer.each([rgb], segmenter.sites, segmenter.blocks)
    geometry = observer.geometry(rgb.shape[:2])
    features = activations.patch_features("key")[0]
    instances = segmenter(activations, geometry)
    masks = divide_and_conquer(features, geometry.grid_hw, tau=0.8).masks
    assert len(instances)
    np.testing.assert_array_equal(instances.masks, masks)
    scores = mask_scores(features, torch.from_numpy(masks), 0.8, "cut")
    np.testing.assert_array_equal(instances.scores, scores)
