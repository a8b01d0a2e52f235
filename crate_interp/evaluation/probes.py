"""Probes of frozen features of images: logistic regression, and weighted nearest neighbours.

Shapes: S training images, n images, D feature, C classes.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from crate_interp.errors import InputError

__all__ = [
    "LinearProbe",
    "NeighbourProbe",
    "choose_strength",
    "fit_linear",
    "logistic_regression",
    "unit_length",
]

_logger = logging.getLogger(__name__)

_STEPS = 1000  # of L-BFGS
_STRENGTHS = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)  # decades of C that are tried first
_FINEST = 0.125  # of a decade
_HELD_OUT = 5  # every fifth image of a class chooses C


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A linear classifier of features.

    Attributes:
        weight: Weights of each class.
        bias: Bias of each class.
    """

    weight: Float[np.ndarray, "C D"]
    bias: Float[np.ndarray, " C"]

    def scores(self, features: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n C"]:
        """Compute the logits of the classes."""
        return np.asarray(features @ self.weight.T + self.bias)


@dataclass(frozen=True, eq=False)
class NeighbourProbe:
    """The k nearest training images vote, weighted by exp(cosine / temperature).

    Attributes:
        features: Features of the training images, of length one.
        labels: Class of each training image, from 0.
        num_classes: Number of classes, C.
        neighbours: Number of votes, k; all training images vote where there are fewer.
        temperature: Cosine by which a vote counts e times as much; above 0.

    Reference:
        Caron et al., Emerging Properties in Self-Supervised Vision Transformers (arXiv 2104.14294),
        section 3.2 and appendix; after Wu et al. (arXiv 1805.01978).
    """

    features: Float[np.ndarray, "S D"]
    labels: Integer[np.ndarray, " S"]
    num_classes: int
    neighbours: int = 20
    temperature: float = 0.07

    def scores(self, features: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n C"]:
        """Add up the votes for each class; among equal cosines the earlier image votes."""
        scores = np.zeros((len(features), self.num_classes))
        for image, feature in enumerate(unit_length(features)):
            cosines = self.features @ feature
            nearest = np.argsort(-cosines, kind="stable")[: self.neighbours]
            # Of the nearest one, the vote is 1: exp(1 / temperature) may be too large a number.
            votes = np.exp((cosines[nearest] - cosines[nearest[0]]) / self.temperature)
            np.add.at(scores[image], self.labels[nearest], votes)
        return scores

    @classmethod
    def of(
        cls,
        features: Float[np.ndarray, "S D"],
        labels: Integer[np.ndarray, " S"],
        neighbours: int = 20,
        temperature: float = 0.07,
    ) -> NeighbourProbe:
        """Remember training images.

        Args:
            features: Features of the images.
            labels: Class of each image, from 0; the largest one says the number of classes.
            neighbours: See `neighbours`.
            temperature: See `temperature`.

        Raises:
            InputError: As `fit_linear`.
        """
        _check(features, labels)
        return cls(unit_length(features), labels, int(labels.max()) + 1, neighbours, temperature)


def fit_linear(
    features: Float[np.ndarray, "S D"], labels: Integer[np.ndarray, " S"], strength: float
) -> LinearProbe:
    """Fit scikit-learn's logistic regression, by at most 1000 steps of L-BFGS, to plain features.

    Args:
        features: Features of images.
        labels: Class of each image; every number from 0 to the largest one occurs.
        strength: Inverse strength of the L2 penalty, scikit-learn's `C`.

    Raises:
        InputError: Fewer than two classes, one without an image, not one label per feature, or a
            feature that is not finite.

    Reference:
        Radford et al., Learning Transferable Visual Models from Natural Language Supervision (arXiv
        2103.00020), appendix A.3.
    """
    _check(features, labels)
    return logistic_regression(features.astype(np.float64), labels, strength)


def choose_strength(features: Float[np.ndarray, "S D"], labels: Integer[np.ndarray, " S"]) -> float:
    """Choose `strength` of `fit_linear` by the accuracy on every fifth training image of a class.

    From 1e-6 to 1e6 in steps of two decades; then beside the best one, in half the steps each time,
    down to an eighth of a decade. Of equally good ones the smallest is chosen.

    Args:
        features: Features of images.
        labels: Class of each image.

    Raises:
        InputError: As `fit_linear`; or no class has as many images that one could be held out.

    Reference:
        As `fit_linear`.
    """
    _check(features, labels)
    held_out = _held_out(labels)
    if not held_out.any():
        raise InputError(
            f"regularization: expected a class of {_HELD_OUT} images or more to choose it on, "
            "found none: give a number"
        )
    features = features.astype(np.float64)
    accuracy: dict[float, float] = {}

    def try_out(decades: tuple[float, ...]) -> float:
        for decade in decades:
            if decade not in accuracy:
                probe = logistic_regression(
                    features[~held_out], labels[~held_out], 10.0**decade, tell=False
                )
                predicted = probe.scores(features[held_out]).argmax(axis=1)
                accuracy[decade] = float((predicted == labels[held_out]).mean())
        return min(accuracy, key=lambda decade: (-accuracy[decade], decade))

    best, step = try_out(_STRENGTHS), 1.0
    while step >= _FINEST:
        beside = (best - step, best + step)
        best = try_out(tuple(d for d in beside if abs(d) <= max(_STRENGTHS)))
        step /= 2
    return float(10.0**best)


def logistic_regression(
    features: Float[np.ndarray, "S D"],
    labels: Integer[np.ndarray, " S"],
    strength: float = 1.0,
    steps: int = _STEPS,
    tell: bool = True,
) -> LinearProbe:
    """Fit scikit-learn's logistic regression, and log it if it has not converged.

    Args:
        features: Features.
        labels: Class of each feature, of two classes or more; they become classes 0, 1, ... of the
            probe, in ascending order.
        strength: Inverse strength of the L2 penalty, scikit-learn's `C`.
        steps: Number of steps of L-BFGS at most.
        tell: Whether it is logged.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        fitted = LogisticRegression(C=strength, max_iter=steps).fit(features, labels)
    if tell and any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        _logger.warning("the linear probe has not converged after %d steps", steps)
    weight, bias = fitted.coef_, fitted.intercept_
    if len(weight) == 1:  # of two classes, scikit-learn keeps the score of the second one alone
        weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
    return LinearProbe(weight, bias)


def _held_out(labels: Integer[np.ndarray, " S"]) -> Bool[np.ndarray, " S"]:
    """Every fifth image of each class."""
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        held_out[np.flatnonzero(labels == label)[_HELD_OUT - 1 :: _HELD_OUT]] = True
    return held_out


def unit_length(features: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n D"]:
    """Divide features by their length; zero stays zero."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(length > 0, length, 1))


def _check(features: Float[np.ndarray, "S D"], labels: Integer[np.ndarray, " S"]) -> None:
    if features.ndim != 2 or 0 in features.shape or not np.isfinite(features).all():
        raise InputError(
            f"features: expected finite numbers of shape (S, D), found shape {features.shape}"
        )
    if labels.shape != features.shape[:1]:
        raise InputError(f"labels: expected shape ({len(features)},), found {labels.shape}")
    classes = np.unique(labels)
    if len(classes) < 2 or classes[0] != 0 or classes[-1] != len(classes) - 1:
        raise InputError(
            "labels: expected two classes or more, numbered from 0, each with an image, found "
            f"{len(classes)} of them, {classes[0]} to {classes[-1]}"
        )
