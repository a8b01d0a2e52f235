"""One cut against LAPACK's eigenvector and parts grown patch by patch."""

import numpy as np
import pytest
import scipy.linalg
import torch

from crate_interp.errors import InputError
from crate_interp.hooks import Observer
from crate_interp.segmentation import mask_scores, one_cut
from crate_interp.segmentation.segmenter import SEGMENTERS
from crate_interp.weights import load_backbone

GRID = (10, 13)


def scene(noise, seed=0):
    """Three objects of one kind on a background, as an image of three horses has them."""
    labels = np.zeros(GRID, dtype=int)
    labels[1:4, 1:5], labels[6:9, 3:6], labels[2:6, 8:12] = 1, 2, 3
    rng = np.random.default_rng(seed)
    features = np.eye(5)[np.minimum(labels.ravel(), 1)].T + noise * rng.normal(size=(5, 130))
    return torch.from_numpy(features), labels


def parts_by_growing(features, tau, min_area):
    unit = features.numpy() / np.linalg.norm(features.numpy(), axis=0)
    weights = np.where(unit.T @ unit > tau, 1, 1e-5)
    degree = np.diag(weights.sum(axis=1))
    vector = scipy.linalg.eigh(degree - weights, degree, subset_by_index=(1, 1))[1][:, 0]
    vector = (vector * np.sign(vector[np.abs(vector).argmax()])).reshape(GRID)
    inside = vector > vector.mean()
    if sum(inside[row, column] for row in (0, -1) for column in (0, -1)) >= 3:
        vector, inside = -vector, ~inside
    waiting = {(int(row), int(column)) for row, column in zip(*inside.nonzero(), strict=True)}
    parts = []
    while waiting:
        edge, part = [max(waiting, key=lambda patch: vector[patch])], set()
        while edge:
            row, column = edge.pop()
            if (row, column) in waiting:
                waiting.remove((row, column))
                part.add((row, column))
                edge += [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
        if len(part) > min_area * inside.size:
            parts.append(sorted(part))
    return parts


@pytest.mark.parametrize(("noise", "seed"), [(0.2, 0), (0.4, 1), (0.6, 2)])
@pytest.mark.parametrize("min_area", [0, 0.03])
def test_masks_are_the_parts_of_the_exact_cut(noise, seed, min_area):
    features, _ = scene(noise, seed)
    masks = one_cut(features, GRID, tau=0.3, max_masks=100, min_area=min_area).numpy()
    parts = [sorted(zip(*map(np.ndarray.tolist, mask.nonzero()), strict=True)) for mask in masks]
    assert parts == parts_by_growing(features, 0.3, min_area)


def test_one_cut_finds_all_objects_of_a_kind():
    features, labels = scene(0)
    masks = one_cut(features, GRID)
    found = {mask.numpy().tobytes() for mask in masks}
    assert found == {(labels == number).tobytes() for number in (1, 2, 3)}
    assert len(one_cut(features, GRID, max_masks=2)) == 2


def test_alike_patches_have_no_part():
    assert one_cut(torch.ones(3, 130), GRID).shape == (0, *GRID)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_masks": 0}, "at least 1 mask"),
        ({"min_area": 1}, "area in"),
        ({"tau": 2}, "tau"),
        ({"features": torch.zeros(2, 0), "grid_size": (0, 0)}, "0 x 0"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        one_cut(**{"features": torch.ones(2, 20), "grid_size": (4, 5)} | arguments)


def test_the_segmenter_gives_the_parts_and_their_scores():
    observer = Observer(load_backbone("demo_vit"), size=48)
    rgb = np.random.default_rng(0).integers(0, 60, (60, 80, 3), np.uint8)
    rgb[10:40, 20:50] = (220, 180, 30)
    segmenter = SEGMENTERS["one-cut"](tau=0.8, scores="contrast").for_model(observer.model)
    (activations,) = observer.each([rgb], segmenter.sites, segmenter.blocks)
    geometry = observer.geometry(rgb.shape[:2])
    features = activations.patch_features("key")[0]
    masks = one_cut(features, geometry.grid_hw, tau=0.8)
    instances = segmenter(activations, geometry)
    assert len(instances)
    np.testing.assert_array_equal(instances.masks, masks)
    expected = mask_scores(features, masks, 0.8, "contrast")
    np.testing.assert_array_equal(instances.scores, expected)
