"""Scores of masks against sums over the dense matrix of weights, and in the segmenters."""

import numpy as np
import pytest
import scipy.linalg
import torch

from crate_interp.errors import InputError
from crate_interp.segmentation import MaskCut, affinity, mask_scores
from crate_interp.segmentation.normalized_cut import eigengap
from crate_interp.segmentation.segmenter import SEGMENTERS
from crate_interp.weights import load_backbone

GRID = (6, 7)


def features_and_masks(seed, count=4):
    rng = np.random.default_rng(seed)
    return (
        torch.from_numpy(rng.normal(size=(5, 42))).float(),
        torch.from_numpy(rng.random((count, *GRID)) < rng.uniform(0.2, 0.8, (count, 1, 1))),
    )


def weights_of(features, tau):
    unit = features.double().numpy()
    unit = unit / np.linalg.norm(unit, axis=0)
    return np.where(unit.T @ unit > tau, 1, 1e-5)


def expected_cut(weights, mask):
    """Shi and Malik, equation 2, with the sums spelt out."""
    cut = sum(weights[i, j] for i in np.flatnonzero(mask) for j in np.flatnonzero(~mask))
    volumes = weights[mask].sum(), weights[~mask].sum()
    return 1 - (cut / volumes[0] + cut / volumes[1]) / 2


def expected_contrast(weights, mask):
    return weights[np.ix_(mask, mask)].mean() - weights[np.ix_(mask, ~mask)].mean()


@pytest.mark.parametrize("tau", [-0.3, 0.15])
@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_the_dense_weights(seed, tau):
    features, masks = features_and_masks(seed)
    weights = weights_of(features, tau)
    flat = masks.flatten(1).numpy()
    for by, expected in (("cut", expected_cut), ("contrast", expected_contrast)):
        scores = mask_scores(features, masks, tau, by)
        np.testing.assert_allclose(scores, [expected(weights, mask) for mask in flat], atol=1e-12)
    np.testing.assert_array_equal(mask_scores(features, masks, tau, "one"), np.ones(4))


def test_a_perfect_cut_scores_one_by_all():
    halves = torch.zeros(GRID, dtype=torch.bool)
    halves[:, 3:] = True
    features = torch.stack([halves, ~halves]).flatten(1).float()
    for by in ("one", "cut", "contrast"):
        np.testing.assert_allclose(mask_scores(features, halves[None], 0.5, by), 1, atol=2e-5)


@pytest.mark.parametrize("by", ["cut", "contrast", "eigengap"])
def test_masks_of_nothing_and_of_all_score_zero(by):
    masks = torch.stack([torch.zeros(GRID), torch.ones(GRID)]).bool()
    assert mask_scores(torch.randn(5, 42), masks, 0.1, by).tolist() == [0, 0]


@pytest.mark.parametrize("by", ["one", "cut", "contrast", "eigengap"])
def test_no_mask_has_no_score(by):
    assert mask_scores(torch.randn(5, 42), torch.zeros(0, *GRID).bool(), 0.1, by).shape == (0,)


def dense_gap(connected):
    """Third minus second generalised eigenvalue, of scipy."""
    weights = np.where(connected, 1, 1e-5)
    degrees = np.diag(weights.sum(axis=1))
    values = scipy.linalg.eigh(degrees - weights, degrees, eigvals_only=True)
    return values[2] - values[1]


def blobs(patches, parts, seed=0, noise=0.5):
    """Features of so many directions, with noise."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(16, parts))[:, np.arange(patches) * parts // patches]
    return torch.from_numpy(directions + noise * rng.normal(size=(16, patches)))


@pytest.mark.parametrize("tau", [-0.3, 0.15])
@pytest.mark.parametrize("patches", [42, 300, 400])  # the dense solver, and Lanczos
def test_an_eigengap_is_that_of_the_dense_solver(patches, tau):
    for parts in (2, 3, 5):
        connected = affinity(blobs(patches, parts), tau)
        np.testing.assert_allclose(eigengap(connected), dense_gap(connected), atol=1e-9)


def test_the_eigengap_of_two_parts_is_large_and_of_equally_good_cuts_none():
    two, four = (torch.eye(parts).repeat_interleave(400 // parts, 0) for parts in (2, 4))
    assert eigengap((two @ two.T).bool()) == pytest.approx(1, abs=1e-2)
    assert eigengap((four @ four.T).bool()) == 0
    for constant in (torch.ones(9, 9), torch.zeros(300, 300), torch.eye(2), torch.ones(1, 1)):
        assert eigengap(constant.bool()) == 0


@pytest.mark.parametrize("tau", [-0.3, 0.15])
def test_the_eigengap_of_a_mask_is_that_of_the_graph_it_is_cut_from(tau):
    features = blobs(300, 4)
    masks = torch.zeros(3, 15, 20, dtype=torch.bool)
    for number, mask in enumerate(masks):
        mask[4 * number : 4 * number + 3] = True
    painted, expected = features.clone(), []
    for mask in masks:
        expected.append(dense_gap(affinity(painted, tau)))
        painted[:, mask.flatten()] = 0
    scores = mask_scores(features, masks, tau, "eigengap")
    assert len(set(scores)) == 3
    np.testing.assert_allclose(scores, expected, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"by": "luck"},
            r"scores: expected one of \('one', 'cut', 'contrast', 'eigengap'\), found 'luck'",
        ),
        ({"masks": torch.zeros(2, 5, 5).bool()}, r"of 42 patches, found torch.bool of .*2, 5, 5"),
        ({"masks": torch.zeros(1, 6, 7)}, r"found torch.float32"),
        ({"tau": 2}, "tau: expected a cosine"),
    ],
)
def test_mask_scores_refuses(change, message):
    masks = torch.ones(1, *GRID).bool()
    arguments = {"features": torch.randn(5, 42), "masks": masks, "tau": 0.1, "by": "cut"}
    with pytest.raises(InputError, match=message):
        mask_scores(**(arguments | change))


@pytest.mark.parametrize("name", ["maskcut", "tokencut"])
def test_a_segmenter_scores_its_masks_as_asked(name):
    rgb = np.random.default_rng(0).integers(0, 60, (60, 80, 3), np.uint8)
    rgb[10:40, 20:50] = (220, 180, 30)
    predictor = MaskCut(load_backbone("demo_vit"), tau=0.8, size=48, scores="cut")
    activations = predictor.observer.activations([rgb], ["key"], [-1])
    features = activations.patch_features("key")[0].float()
    for by in ("one", "contrast", "eigengap", "cut"):
        segmenter = SEGMENTERS[name](tau=0.8, feature="key", scores=by)
        instances = segmenter(activations, predictor.observer.geometry((60, 80)))
        expected = mask_scores(features, torch.from_numpy(instances.masks), 0.8, by)
        assert len(instances)
        np.testing.assert_array_equal(instances.scores, expected)
    if name == "maskcut":
        np.testing.assert_array_equal(predictor(rgb).scores, expected)
        assert repr(predictor).endswith("solver='lanczos', scores='cut')")
