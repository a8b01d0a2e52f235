"""Spectral clusters against LAPACK's generalised problem and a plain k-means."""

import numpy as np
import pytest
import scipy.linalg
import torch

from crate_interp.errors import InputError
from crate_interp.hooks import Observer
from crate_interp.segmentation import laplacian_eigenvectors, spectral_clusters
from crate_interp.segmentation.segmenter import SEGMENTERS
from crate_interp.weights import load_backbone

GRID = (12, 15)


def quarters(noise=0.1, seed=0):
    """Features of a background and three objects, and the number of the object of each patch."""
    labels = np.zeros(GRID, dtype=int)
    labels[2:6, 2:6], labels[7:10, 3:8], labels[3:9, 10:13] = 1, 2, 3
    rng = np.random.default_rng(seed)
    features = np.eye(8)[labels.ravel()].T + noise * rng.normal(size=(8, labels.size))
    return torch.from_numpy(features), labels


def cosines(features):
    unit = features.numpy() / np.linalg.norm(features.numpy(), axis=0)
    return np.maximum(unit.T @ unit, 0)


@pytest.mark.parametrize("size", [40, 300])  # both solvers
def test_eigenvectors_are_those_of_the_generalised_problem(size):
    weights = cosines(torch.from_numpy(np.random.default_rng(size).normal(size=(6, size))))
    values, vectors = laplacian_eigenvectors(weights, 3)
    degree = np.diag(weights.sum(axis=1))
    expected, exact = scipy.linalg.eigh(degree - weights, degree, subset_by_index=(1, 3))
    np.testing.assert_allclose(values, expected, atol=1e-10)
    exact *= np.sign((exact * vectors).sum(axis=0))
    np.testing.assert_allclose(vectors, exact, atol=1e-8)
    assert (vectors[np.abs(vectors).argmax(axis=0), range(3)] > 0).all()


def nearest_means(points, labels):
    """Lloyd's steps from a labelling until nothing changes."""
    while True:
        means = np.stack([points[labels == number].mean(axis=0) for number in np.unique(labels)])
        nearest = ((points[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
        if (nearest == labels).all():
            return labels
        labels = nearest


def test_clusters_are_a_fixed_point_of_k_means_on_the_exact_eigenvectors():
    features, truth = quarters(noise=0.25, seed=1)
    labels = spectral_clusters(features, GRID, clusters=4, eigenvectors=3).numpy()
    weights = cosines(features)
    degree = np.diag(weights.sum(axis=1))
    _, vectors = scipy.linalg.eigh(degree - weights, degree, subset_by_index=(1, 3))
    np.testing.assert_array_equal(nearest_means(vectors, labels.ravel()), labels.ravel())
    truth = np.array([0, 1, 3, 2])[truth].ravel()  # in the order of the grid
    np.testing.assert_array_equal(nearest_means(vectors, truth), labels.ravel())


def test_clusters_are_the_objects_and_the_frame_is_the_background():
    features, truth = quarters()
    labels = spectral_clusters(features, GRID, 4, eigenvectors=3).numpy()
    np.testing.assert_array_equal(labels, np.array([0, 1, 3, 2])[truth])


def test_auto_takes_as_many_clusters_as_there_are_eigenvalues_below_the_gap():
    features, _ = quarters()
    values, _ = laplacian_eigenvectors(cosines(features), 6)
    assert values[3] - values[2] > 0.2 > np.delete(np.diff(values), 2).max()
    assert spectral_clusters(features, GRID, "auto", eigenvectors=6).max() == 3


def test_patches_that_are_all_alike_are_background():
    assert not spectral_clusters(torch.ones(3, 20), (4, 5)).any()
    assert not spectral_clusters(torch.ones(3, 1), (1, 1)).any()


def test_zero_features_are_of_no_cluster_with_others():
    features, truth = quarters()
    features[:, truth.ravel() == 2] = 0
    labels = spectral_clusters(features, GRID, eigenvectors=3)
    assert labels.shape == GRID


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clusters": 0}, "at least 1 cluster"),
        ({"eigenvectors": 0}, "1 eigenvector"),
        ({"clusters": "auto", "eigenvectors": 1}, "2 for auto"),
        ({"grid_size": (3, 3)}, "9"),
        ({"features": torch.full((2, 20), torch.nan)}, "finite"),
        ({"features": torch.zeros(2, 0), "grid_size": (0, 0)}, "0 x 0"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        spectral_clusters(**{"features": torch.ones(2, 20), "grid_size": (4, 5)} | arguments)


def test_the_segmenter_gives_a_mask_for_each_cluster_but_the_background():
    observer = Observer(load_backbone("demo_vit"), size=48)
    rgb = np.random.default_rng(0).integers(0, 60, (60, 80, 3), np.uint8)
    rgb[10:40, 20:50] = (220, 180, 30)
    segmenter = SEGMENTERS["spectral"](clusters=3).for_model(observer.model)
    (activations,) = observer.each([rgb], segmenter.sites, segmenter.blocks)
    geometry = observer.geometry(rgb.shape[:2])
    labels = spectral_clusters(activations.patch_features("key")[0], geometry.grid_hw, 3)
    instances = segmenter(activations, geometry)
    assert len(instances) == 2
    np.testing.assert_array_equal((instances.masks * [[[1]], [[2]]]).sum(axis=0), labels)


def test_the_segmenter_refuses_to_count_clusters_by_one_eigenvalue():
    segmenter = SEGMENTERS["spectral"](clusters="auto", eigenvectors=1)
    with pytest.raises(InputError, match="expected 2 or more"):
        segmenter.for_model(load_backbone("demo_vit"))
