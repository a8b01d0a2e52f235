"""Clusters and probes against scikit-learn's own predictions."""

import logging

import numpy as np
import pytest
from sklearn.cluster import MiniBatchKMeans
from sklearn.linear_model import LogisticRegression

from crate_interp.errors import InputError
from crate_interp.evaluation import patch_classifier
from crate_interp.evaluation.patch_classifier import (
    fit_clusters,
    fit_linear_probe,
    sample_patches,
)


@pytest.fixture(scope="module")
def blobs():
    """Noisy features around three directions, of very different lengths."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    features = 3 * np.eye(3, 8)[labels] + rng.normal(size=(600, 8))
    return features * rng.uniform(0.1, 10, (600, 1)), labels


def unit(features):
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def test_clusters_are_those_of_scikit_learn(blobs):
    features, labels = blobs
    found = fit_clusters(features, 3, seed=1)
    reference = MiniBatchKMeans(3, random_state=1, n_init=3, batch_size=4096).fit(unit(features))
    np.testing.assert_array_equal(found.predict(features), reference.predict(unit(features)))
    for cluster in range(3):
        counts = np.bincount(labels[found.predict(features) == cluster], minlength=3)
        assert counts.max() > 0.9 * counts.sum()
    again = fit_clusters(features, 3, seed=1)
    np.testing.assert_array_equal(again.weight, found.weight)


@pytest.mark.parametrize("classes", [[4, 9, 2], [7, 1]])
def test_the_probe_is_that_of_scikit_learn(blobs, classes):
    features, labels = blobs
    kept = labels < len(classes)
    features, labels = features[kept], np.array(classes)[labels[kept]]
    features[:, 7] = 0  # one that does not vary
    found = fit_linear_probe(features, labels)
    plain = unit(features)
    deviation = plain.std(axis=0)
    standard = (plain - plain.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    reference = LogisticRegression(max_iter=2000).fit(standard, labels)
    np.testing.assert_array_equal(found.predict(features), reference.predict(standard))
    assert (found.predict(features) == labels).mean() > 0.9


def test_a_probe_that_does_not_converge_says_so(blobs, monkeypatch, caplog):
    monkeypatch.setattr(patch_classifier, "_MAX_ITERATIONS", 1)
    with caplog.at_level(logging.WARNING):
        fit_linear_probe(*blobs)
    assert "has not converged after 1 steps" in caplog.text


def test_features_that_cannot_be_learnt_from_are_refused(blobs):
    features, labels = blobs
    with pytest.raises(InputError, match="expected 1 to 600, the number of patches, found 601"):
        fit_clusters(features, 601, 0)
    with pytest.raises(InputError, match=r"finite numbers of shape \(S, D\), found shape \(0, 8\)"):
        fit_clusters(features[:0], 1, 0)
    with pytest.raises(InputError, match="finite"):
        fit_linear_probe(np.full_like(features, np.nan), labels)
    with pytest.raises(InputError, match=r"two classes or more, found \[0\]"):
        fit_linear_probe(features, 0 * labels)
    with pytest.raises(InputError, match=r"labels: expected shape \(600,\), found \(9,\)"):
        fit_linear_probe(features, labels[:9])
    with pytest.raises(InputError, match=r"expected shape \(n, 8\), found \(600, 7\)"):
        fit_clusters(features, 2, 0).predict(features[:, :7])


def test_a_feature_of_zeros_has_a_label(blobs):
    found = fit_clusters(blobs[0], 3, 0)
    assert found.predict(np.zeros((1, 8))).tolist() == [int((found.bias).argmax())]
    assert found.predict(np.zeros((0, 8))).shape == (0,)


def test_patches_are_sampled_among_usable_ones_without_repetition():
    usable = np.arange(50) % 2 == 0
    first = sample_patches(usable, 10, seed=0, image_id=1)
    assert len(set(first.tolist())) == 10
    assert (first % 2 == 0).all()
    assert (np.diff(first) > 0).all()
    np.testing.assert_array_equal(first, sample_patches(usable, 10, 0, 1))
    assert first.tolist() != sample_patches(usable, 10, 0, 2).tolist()
    assert first.tolist() != sample_patches(usable, 10, 1, 1).tolist()
    assert sample_patches(usable, 99, 0, 1).tolist() == list(range(0, 50, 2))
    assert sample_patches(usable & False, 5, 0, 1).size == 0
