"""Labels of patches from their features: k-means clusters, and a linear probe.

Shapes: S sampled patches, D feature, n patches of an image, P labels that can be predicted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64, Integer
from sklearn.cluster import MiniBatchKMeans

from crate_interp.errors import InputError
from crate_interp.evaluation.probes import logistic_regression, unit_length

__all__ = ["PatchClassifier", "fit_clusters", "fit_linear_probe", "sample_patches"]

_PATCHES_IN_BATCH = 4096  # k-means
_MAX_ITERATIONS = 2000  # linear probe


@dataclass(frozen=True, eq=False)
class PatchClassifier:
    """Gives a patch the label of the highest score, a linear function of its unit-length feature.

    The nearest of several centres c is such a label, too: that of the highest c x - |c|^2 / 2.

    Attributes:
        weight: Weights of each label.
        bias: Bias of each label.
        labels: Numbers of the clusters, or of the classes, that are predicted.
    """

    weight: Float[np.ndarray, "P D"]
    bias: Float[np.ndarray, " P"]
    labels: Int64[np.ndarray, " P"]

    def predict(self, features: Float[np.ndarray, "n D"]) -> Int64[np.ndarray, " n"]:
        """Label patches; equal scores give the first label.

        Raises:
            InputError: The features are of another size.
        """
        if features.ndim != 2 or features.shape[1] != self.weight.shape[1]:
            raise InputError(
                f"features: expected shape (n, {self.weight.shape[1]}), found {features.shape}"
            )
        scores = unit_length(features) @ self.weight.T + self.bias
        return np.asarray(self.labels[scores.argmax(axis=1)])


def fit_clusters(
    features: Float[np.ndarray, "S D"], num_clusters: int, seed: int
) -> PatchClassifier:
    """Cluster patches by scikit-learn's mini-batch k-means of their unit-length features.

    Args:
        features: Features of at least as many patches as clusters.
        num_clusters: Number of clusters.
        seed: Decides the first centres and the order of the patches.

    Raises:
        InputError: Fewer patches than clusters, or a feature that is not finite.

    Reference:
        Sculley, Web-scale K-means Clustering (WWW 2010).
    """
    unit = unit_length(_checked(features))
    if not 1 <= num_clusters <= len(unit):
        raise InputError(
            f"clusters: expected 1 to {len(unit)}, the number of patches, found {num_clusters}"
        )
    clusters = MiniBatchKMeans(
        num_clusters, random_state=seed, n_init=3, batch_size=_PATCHES_IN_BATCH
    ).fit(unit)
    centres = clusters.cluster_centers_.astype(np.float64)
    return PatchClassifier(centres, -(centres**2).sum(axis=1) / 2, np.arange(num_clusters))


def fit_linear_probe(
    features: Float[np.ndarray, "S D"], labels: Integer[np.ndarray, " S"]
) -> PatchClassifier:
    """Fit scikit-learn's logistic regression (C = 1) to unit-length, then standardised, features.

    Args:
        features: Features of patches of all classes that are to be known.
        labels: Class of each patch.

    Raises:
        InputError: Fewer than two classes, not one label a feature, or a feature that is not
            finite.

    Reference:
        Alain and Bengio, Understanding intermediate layers using linear classifier probes (arXiv
        1610.01644).
    """
    unit = unit_length(_checked(features))
    if labels.shape != unit.shape[:1]:
        raise InputError(f"labels: expected shape ({len(unit)},), found {labels.shape}")
    if len(np.unique(labels)) < 2:
        raise InputError(f"labels: expected two classes or more, found {np.unique(labels)}")
    mean, deviation = unit.mean(axis=0), unit.std(axis=0)
    deviation[deviation == 0] = 1
    standardised = (unit - mean) / deviation
    probe = logistic_regression(standardised, labels, steps=_MAX_ITERATIONS)
    weight = (probe.weight / deviation).astype(np.float64)
    return PatchClassifier(weight, probe.bias - weight @ mean, np.unique(labels).astype(np.int64))


def sample_patches(
    usable: Bool[np.ndarray, " n"], count: int, seed: int, image_id: int
) -> Int64[np.ndarray, " s"]:
    """Choose patches of an image at random, ascending; all usable ones where there are fewer.

    Args:
        usable: True for patches that may be chosen.
        count: Number of patches to choose.
        seed: Decides the choice.
        image_id: Number of the image; the choice is another one in each image.
    """
    numbers = np.flatnonzero(usable)
    rng = np.random.default_rng([seed, image_id])
    return np.sort(rng.choice(numbers, min(count, len(numbers)), replace=False))


def _checked(features: Float[np.ndarray, "S D"]) -> Float[np.ndarray, "S D"]:
    if features.ndim != 2 or 0 in features.shape or not np.isfinite(features).all():
        raise InputError(
            f"features: expected finite numbers of shape (S, D), found shape {features.shape}"
        )
    return features
