"""Probes of images against scikit-learn, and against neighbours counted by hand."""

import logging
import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from crate_interp.errors import InputError
from crate_interp.evaluation import probes
from crate_interp.evaluation.probes import NeighbourProbe, choose_strength, fit_linear


@pytest.fixture(scope="module")
def blobs():
    """Features around directions of their classes, and more that only disturb."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    features = 2 * np.eye(3, 8)[labels] + rng.normal(size=(120, 8))
    return features.astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("strength", [1e-3, 1.0, 50.0])
def test_linear_probe_is_that_of_scikit_learn(blobs, classes, strength):
    features, labels = blobs
    kept = labels < classes
    features, labels = features[kept].astype(np.float64), labels[kept]
    probe = fit_linear(features, labels, strength)
    reference = LogisticRegression(C=strength, max_iter=1000).fit(features, labels)
    scores = probe.scores(features)
    np.testing.assert_array_equal(scores.argmax(axis=1), reference.predict(features))
    logits = np.exp(scores - scores.max(axis=1, keepdims=True))
    expected = reference.predict_proba(features)
    np.testing.assert_allclose(logits / logits.sum(axis=1, keepdims=True), expected, rtol=1e-6)


def test_strength_is_the_best_of_a_search_on_every_fifth_image(blobs):
    features, labels = blobs
    found = choose_strength(features, labels)
    assert math.log10(found) * 8 == pytest.approx(round(math.log10(found) * 8))
    held_out = np.zeros(len(labels), bool)
    for label in range(3):
        held_out[np.flatnonzero(labels == label)[4::5]] = True

    def accuracy(strength):
        fitted = LogisticRegression(C=strength, max_iter=1000)
        fitted.fit(features[~held_out].astype(np.float64), labels[~held_out])
        return (fitted.predict(features[held_out]) == labels[held_out]).mean()

    coarse = [accuracy(10.0**decade) for decade in (-6, -4, -2, 0, 2, 4, 6)]
    assert accuracy(found) >= max(coarse)
    for factor in (10**0.125, 10**-0.125):
        assert accuracy(found) >= accuracy(found * factor)


def test_neighbours_vote_by_hand():
    # Cosines with (1, 0): 1, 0.8, 0.6, 0, -1; lengths do not count.
    training = np.array([[5, 0], [0.8, 0.6], [6, 8], [0, 1], [-2, 0]], np.float32)
    labels = np.array([0, 1, 1, 2, 2])
    query = np.array([[3, 0]], np.float32)
    probe = NeighbourProbe.of(training, labels, neighbours=3, temperature=0.2)
    by_hand = np.array([[1, math.exp(-1) + math.exp(-2), 0]])
    np.testing.assert_allclose(probe.scores(query), by_hand, rtol=1e-5)
    warm = NeighbourProbe.of(training, labels, neighbours=3, temperature=2.0)
    by_hand = np.array([[1, math.exp(-0.1) + math.exp(-0.2), 0]])
    np.testing.assert_allclose(warm.scores(query), by_hand, rtol=1e-5)
    assert (probe.scores(query).argmax(), warm.scores(query).argmax()) == (0, 1)
    everyone = NeighbourProbe.of(training, labels, neighbours=20, temperature=2.0).scores(query)
    np.testing.assert_allclose(everyone[0, 2], math.exp(-0.5) + math.exp(-1), rtol=1e-5)


def test_neighbours_are_those_of_scikit_learn(blobs):
    features, labels = blobs
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    reference = KNeighborsClassifier(
        7, metric="cosine", weights=lambda distances: np.exp((1 - distances) / 0.07)
    ).fit(unit[:90], labels[:90])
    probe = NeighbourProbe.of(features[:90], labels[:90], neighbours=7, temperature=0.07)
    scores = probe.scores(features[90:])
    shares = scores / scores.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, reference.predict_proba(unit[90:]), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("fit", [NeighbourProbe.of, lambda *given: fit_linear(*given, 1.0)])
@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), r"features: expected finite numbers.*\(0, 3\)"),
        (np.full((2, 3), np.nan), np.arange(2), "features: expected finite numbers"),
        (np.zeros((2, 3)), np.arange(3), r"labels: expected shape \(2,\)"),
        (np.zeros((2, 3)), np.zeros(2, int), "labels: expected two classes or more"),
        (np.zeros((2, 3)), np.array([0, 2]), "labels: .*each with an image, found 2 of them"),
    ],
)
def test_wrong_training_images_are_refused(fit, features, labels, message):
    with pytest.raises(InputError, match=message):
        fit(features, labels)


def test_strength_is_not_chosen_on_nothing():
    with pytest.raises(InputError, match="expected a class of 5 images or more"):
        choose_strength(np.eye(2), np.arange(2))


def test_a_probe_that_does_not_converge_says_so(blobs, monkeypatch, caplog):
    with caplog.at_level(logging.WARNING):
        probes.logistic_regression(*blobs, 1e6, steps=1)
    assert "has not converged after 1 steps" in caplog.text
