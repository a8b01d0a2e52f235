"""VoteCut against its steps by LAPACK, exact one-dimensional k-means and sets of patches."""

import itertools

import numpy as np
import pytest
import scipy.linalg
import torch

from crate_interp.errors import InputError
from crate_interp.hooks import Observer
from crate_interp.segmentation import votecut
from crate_interp.segmentation.segmenter import SEGMENTERS
from crate_interp.weights import load_backbone

GRID = (9, 11)


def voter(seed, noise=0.3):
    """Features of two objects on a background, seen through noise."""
    labels = np.zeros(GRID, dtype=int)
    labels[2:5, 2:6], labels[5:8, 6:10] = 1, 2
    rng = np.random.default_rng(seed)
    features = np.eye(6)[labels.ravel()].T + noise * rng.normal(size=(6, labels.size))
    return torch.from_numpy(features), labels


def exact_clusters(entries, count):
    """Best split of sorted numbers into `count` runs, by trying all."""
    order = np.argsort(entries)
    ordered = entries[order]

    def spread(cuts):
        return sum(part.var() * len(part) for part in np.split(ordered, cuts))

    cuts = min(itertools.combinations(range(1, len(entries)), count - 1), key=spread)
    return [set(part.tolist()) for part in np.split(order, cuts)]


def connected_sets(patches):
    """Parts of a set of (row, column), by growing them one neighbour after the other."""
    patches = set(patches)
    while patches:
        part, edge = set(), [min(patches)]
        while edge:
            row, column = edge.pop()
            if (row, column) in patches:
                patches.remove((row, column))
                part.add((row, column))
                around = ((1, 0), (-1, 0), (0, 1), (0, -1))
                edge += [(row + down, column + right) for down, right in around]
        yield frozenset(part)


def proposals(features, tau, min_side):
    unit = features.numpy() / np.linalg.norm(features.numpy(), axis=0)
    weights = np.where(unit.T @ unit > tau, 1, 1e-5)
    degree = np.diag(weights.sum(axis=1))
    _, vectors = scipy.linalg.eigh(degree - weights, degree, subset_by_index=(1, 1))
    height, width = GRID
    corners = {(0, 0), (0, width - 1), (height - 1, 0), (height - 1, width - 1)}
    for count in (2, 3):
        for cluster in exact_clusters(vectors[:, 0], count):
            places = {divmod(patch, width) for patch in cluster}
            parts = list(connected_sets(places))
            if len(places & corners) >= 2 or len(parts) > 30:
                continue
            for part in parts:
                sides = [max(side) - min(side) + 1 for side in zip(*part, strict=True)]
                if not all(side < min_side for side in sides):
                    yield part


def iou(one, other):
    return len(one & other) / len(one | other)


def objects(parts, agreement):
    """Groups of parts and the patches of each, in the order in which they are found."""
    near = [{at for at, other in enumerate(parts) if iou(one, other) > 0.6} for one in parts]
    waiting = sorted(range(len(parts)), key=lambda one: -len(near[one]))
    used, results = set(), []
    while waiting:
        pivot = waiting[0]
        group = {pivot}
        for _ in range(5):
            if near[pivot] <= group:
                break
            group |= near[pivot]
            pivot = max(group, key=lambda one: sum(iou(parts[one], parts[at]) for at in group))
        kept = group - used
        if pivot not in used:
            counts = {patch: sum(patch in parts[one] for one in kept) for patch in ALL}
            results.append(({p for p in ALL if counts[p] > agreement * len(kept)}, len(kept)))
        used |= group | {waiting[0]}
        waiting = [one for one in waiting if one not in used]
    return results


ALL = [divmod(patch, GRID[1]) for patch in range(GRID[0] * GRID[1])]


@pytest.mark.parametrize("seed", range(3))
def test_objects_are_those_of_the_steps_by_sets(seed):
    features = [voter(3 * seed + number)[0] for number in range(3)]
    result = votecut(features, [GRID] * 3, tau=0.2, min_side=2, max_masks=50)
    parts = [part for one in features for part in proposals(one, 0.2, 2)]
    expected = sorted(objects(parts, 0.2), key=lambda one: -one[1])
    assert result.votes.tolist() == [votes for _, votes in expected]
    found = sorted(sorted(zip(*mask.nonzero(), strict=True)) for mask in result.masks)
    assert found == sorted(sorted(patches) for patches, _ in expected)
    assert result.votes[0] >= 3


def test_voters_of_several_grids_agree_on_the_largest():
    features, labels = voter(0, noise=0)
    finer = features.reshape(6, *GRID).repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)
    masks, votes = votecut([features, finer], [GRID, (18, 22)], min_side=2)
    assert masks.shape[1:] == (18, 22)
    assert any((mask == np.kron(labels == 1, np.ones((2, 2)))).all() for mask in masks)
    assert (votes[:-1] >= votes[1:]).all()


def test_as_many_masks_as_asked_for_and_none_of_alike_patches():
    features, _ = voter(1)
    assert len(votecut([features], [GRID], tau=0.2, min_side=1, max_masks=1).masks) == 1
    masks, votes = votecut([torch.ones(3, 99)], [GRID])
    assert (masks.shape, votes.shape) == ((0, *GRID), (0,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": [], "grid_sizes": []}, "one voter or more"),
        ({"grid_sizes": [GRID, GRID]}, "found 1 and 2 grids"),
        ({"agreement": 1}, "agreement in"),
        ({"max_masks": 0}, "at least 1 mask"),
        ({"tau": 1}, "tau"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        votecut(**{"features": [torch.ones(2, 99)], "grid_sizes": [GRID]} | arguments)


def test_the_segmenter_lets_blocks_vote():
    observer = Observer(load_backbone("demo_vit"), size=48)
    rgb = np.random.default_rng(0).integers(0, 60, (60, 80, 3), np.uint8)
    rgb[10:40, 20:50] = (220, 180, 30)
    segmenter = SEGMENTERS["votecut"](tau=0.8, voters=2, min_side=2).for_model(observer.model)
    assert segmenter.blocks == [-1, -2]
    (activations,) = observer.each([rgb], segmenter.sites, segmenter.blocks)
    geometry = observer.geometry(rgb.shape[:2])
    features = [activations.patch_features("key", block)[0] for block in (-1, -2)]
    masks, votes = votecut(features, [geometry.grid_hw] * 2, tau=0.8, min_side=2)
    instances = segmenter(activations, geometry)
    assert len(instances)
    np.testing.assert_array_equal(instances.masks, masks)
    np.testing.assert_array_equal(instances.scores, votes / votes.max())


@pytest.mark.parametrize("block", [1, -1])
def test_more_voters_than_blocks_are_refused(block):
    with pytest.raises(InputError, match="voters: 9 blocks up to block"):
        SEGMENTERS["votecut"](block=block, voters=9).for_model(load_backbone("demo_vit"))
