"""Principal components of features that need not fit into memory together.

Shapes: n features of D dimensions, C components.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jaxtyping import Float

from crate_interp.errors import InputError

__all__ = ["PrincipalComponents", "principal_components"]

_ROUNDING = 1e-12  # share of the squared mean: less variance than this is rounding


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """The directions along which features vary most.

    Attributes:
        mean: Mean of the features.
        directions: Vectors of unit length, the largest variance first. Their sign, which the
            definition leaves open, makes the coordinate of largest magnitude positive.
        shares: Share of the variance that lies along each direction, in [0, 1].
    """

    mean: Float[np.ndarray, " D"]
    directions: Float[np.ndarray, "C D"]
    shares: Float[np.ndarray, " C"]

    def project(self, features: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n C"]:
        """Coordinates of features along the directions, float64; their mean over all is 0."""
        coordinates: Float[np.ndarray, "n C"] = (features - self.mean) @ self.directions.T
        return coordinates


def principal_components(
    chunks: Iterable[Float[np.ndarray, "_ D"]], count: int = 3
) -> PrincipalComponents:
    """Find the principal components of features that need not fit into memory together.

    One pass adds up mean and covariance in float64, D x D numbers, by the update of Chan et al.
    that loses no digits to a large mean; an eigensolver does the rest. So the components are those
    of all the features at once, to rounding, however these are cut into chunks.

    Two components of the same variance may be any two directions of their plane.

    Args:
        chunks: Features, one per row; a chunk may be empty.
        count: Number of components, C.

    Raises:
        InputError: Chunks of different D or of numbers that are not finite; fewer than two features
            or fewer dimensions than `count`; features that are all the same.

    Reference:
        Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample
        variances, 1979.
    """
    seen, mean, scatter = _moments(chunks)
    if seen < 2 or not 1 <= count <= mean.size:
        raise InputError(
            f"expected 2 features or more of {count} dimensions or more, found {seen} of "
            f"{mean.size}"
        )
    variance = np.trace(scatter)
    if variance <= _ROUNDING * seen * (mean @ mean):
        raise InputError(f"expected features that differ, found {seen} times the same")
    last = mean.size - 1
    values, vectors = scipy.linalg.eigh(scatter, subset_by_index=(last - count + 1, last))
    directions = vectors[:, ::-1].T
    largest = np.abs(directions).argmax(axis=1)
    directions *= np.sign(directions[np.arange(count), largest])[:, None]
    return PrincipalComponents(mean, directions, values[::-1].clip(0) / variance)


def _moments(
    chunks: Iterable[Float[np.ndarray, "_ D"]],
) -> tuple[int, Float[np.ndarray, " D"], Float[np.ndarray, "D D"]]:
    """Number, mean and sum of squared deviations of features."""
    seen, mean, scatter = 0, np.zeros(0), np.zeros((0, 0))
    for chunk in chunks:
        features = np.asarray(chunk, dtype=np.float64)
        if features.ndim != 2 or (seen and features.shape[1] != mean.size):
            expected = mean.size if seen else "D"
            raise InputError(f"features: expected shape (n, {expected}), found {features.shape}")
        if not np.isfinite(features).all():
            raise InputError("features: expected finite numbers, found NaN or infinity")
        if not len(features):
            continue
        if not seen:
            mean = np.zeros(features.shape[1])
            scatter = np.zeros((mean.size, mean.size))
        own_mean = features.mean(axis=0)
        centred, shift = features - own_mean, own_mean - mean
        total = seen + len(features)
        scatter += centred.T @ centred
        scatter += np.outer(shift, shift) * (seen * len(features) / total)
        mean = mean + shift * (len(features) / total)
        seen = total
    return seen, mean, scatter
