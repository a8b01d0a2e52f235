"""ProMerge against its steps over sets of patches."""

import numpy as np
import pytest
import torch

from crate_interp.errors import InputError
from crate_interp.hooks import Observer
from crate_interp.segmentation import mask_scores, promerge
from crate_interp.segmentation.segmenter import SEGMENTERS
from crate_interp.weights import load_backbone

GRID = (12, 14)
PATCHES = list(np.ndindex(GRID))


def scene(noise, seed=0):
    labels = np.zeros(GRID, dtype=int)
    labels[2:6, 2:6], labels[7:11, 4:11], labels[1:5, 9:12] = 1, 2, 3
    rng = np.random.default_rng(seed)
    features = np.eye(7)[labels.ravel()].T + noise * rng.normal(size=(7, labels.size))
    return torch.from_numpy(features), labels


def connected_sets(patches):
    patches = set(patches)
    while patches:
        part, edge = set(), [min(patches)]
        while edge:
            row, column = edge.pop()
            if (row, column) in patches:
                patches.remove((row, column))
                part.add((row, column))
                edge += [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
        yield frozenset(part)


def by_sets(features, tau, spacing):
    """Objects as sets of patches, by the release's order of steps."""
    unit = dict(zip(PATCHES, (features / np.linalg.norm(features, axis=0)).T, strict=True))

    def mean(part):
        return np.mean([unit[patch] for patch in part], axis=0)

    rows, columns = range(GRID[0]), range(GRID[1])
    sides = [
        *([(row, column) for row in rows] for column in (0, GRID[1] - 1)),
        *([(row, column) for column in columns] for row in (0, GRID[0] - 1)),
    ]
    votes, candidates = [], []
    for prompt in [(row, column) for row in rows[::spacing] for column in columns[::spacing]]:
        mask = {patch for patch in PATCHES if unit[patch] @ unit[prompt] > tau}
        if sum(len(mask.intersection(side)) * 2 > len(side) for side in sides) > 1:
            votes.append(mask)
            continue
        parts = sorted(connected_sets(mask), key=lambda part: (-len(part), min(part)))
        (own,) = [len(part) for part in parts if prompt in part]
        candidates += [part for part in parts if len(part) >= own / 2]
    behind = {patch for patch in PATCHES if sum(patch in v for v in votes) * 2 > len(votes)}
    if len(behind) * 10 < len(PATCHES):
        return set()
    taken, front = set(), []
    for mask in sorted(candidates, key=len):
        new = mask - taken
        if new and len(new & behind) / len(new) < 0.8 and mean(mask) @ mean(behind) < 0.1:
            taken |= mask
            front.append(mask)
    objects = set()
    for mask in sorted(front, key=len, reverse=True):
        shares = {other: len(other & mask) / len(mask) for other in objects}
        joined = {
            other
            for other, share in shares.items()
            if share > 0.5 or (share > 0.1 and mean(mask) @ mean(other) >= 0.1)
        }
        objects = (objects - joined) | {mask.union(*joined)}
    return objects


@pytest.mark.parametrize("spacing", [2, 3])
@pytest.mark.parametrize(("noise", "seed"), [(0.1, 0), (0.25, 1), (0.35, 2), (0.45, 3)])
def test_objects_are_those_of_the_steps_by_sets(noise, seed, spacing):
    features, _ = scene(noise, seed)
    masks = promerge(features, GRID, tau=0.2, spacing=spacing)
    expected = by_sets(features.numpy(), 0.2, spacing)
    assert {frozenset(zip(*mask.nonzero(), strict=True)) for mask in masks} == expected
    areas = masks.sum(axis=(1, 2)).tolist()
    assert areas == sorted(areas, reverse=True)


def test_objects_on_a_background_are_masks():
    features, labels = scene(0)
    masks = promerge(features, GRID, spacing=2)
    np.testing.assert_array_equal(masks, [labels == number for number in (2, 1, 3)])


@pytest.mark.parametrize("features", [torch.ones(3, 168), torch.zeros(3, 168), torch.eye(168)])
def test_there_is_no_object_without_a_background_or_with_nothing_else(features):
    assert promerge(features, GRID).shape == (0, *GRID)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spacing": 0}, "spacing"),
        ({"tau": 2}, "tau"),
        ({"grid_size": (3, 3)}, "9"),
        ({"features": torch.zeros(2, 0), "grid_size": (0, 0)}, "0 x 0"),
        ({"features": torch.full((2, 20), torch.nan)}, "finite"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        promerge(**{"features": torch.ones(2, 20), "grid_size": (4, 5)} | arguments)


def test_the_segmenter_gives_the_masks_and_their_scores():
    observer = Observer(load_backbone("demo_vit"), size=48)
    rgb = np.random.default_rng(0).integers(0, 60, (60, 80, 3), np.uint8)
    rgb[10:40, 20:50] = (220, 180, 30)
    segmenter = SEGMENTERS["promerge"](tau=0.8, spacing=2).for_model(observer.model)
    (activations,) = observer.each([rgb], segmenter.sites, segmenter.blocks)
    geometry = observer.geometry(rgb.shape[:2])
    features = activations.patch_features("key")[0]
    masks = promerge(features, geometry.grid_hw, tau=0.8, spacing=2)
    instances = segmenter(activations, geometry)
    np.testing.assert_array_equal(instances.masks, masks)
    expected = mask_scores(features, torch.from_numpy(masks), 0.8, "cut")
    np.testing.assert_array_equal(instances.scores, expected)
