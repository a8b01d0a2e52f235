"""Spectral clusters: the patches of an image in a few groups, by eigenvectors and k-means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float, Int
from scipy.sparse.linalg import eigsh
from sklearn.cluster import KMeans
from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.models.float64 import to_float64
from crate_interp.segmentation.affinity import unit_columns
from crate_interp.segmentation.partition import checked_grid
from crate_interp.segmentation.segmenters.spectral import SpectralSegmenter

__all__ = ["laplacian_eigenvectors", "spectral_clusters"]

_DENSE_BELOW = 256  # patches; there the dense solver is as fast
_RESTARTS = 10  # of k-means
_TIE = 1e-9  # relative to the largest entry; closer ones are equal
_NO_DEGREE = 1e-12
_ROUNDING = 1e-12


def spectral_clusters(
    features: Float[Tensor, "D n"],
    grid_size: Sequence[int],
    clusters: int | Literal["auto"] = SpectralSegmenter.clusters,
    eigenvectors: int = SpectralSegmenter.eigenvectors,
) -> Int[Tensor, "h w"]:
    """Group the patches by k-means on the eigenvectors of a Laplacian.

    The weight of two patches is the cosine of their features, and 0 where that is negative. The
    eigenvectors x of (D - W) x = lambda D x with the smallest lambda, without the constant one,
    give each patch its coordinates. The cluster that holds most patches of the grid's four sides
    (those of corners count twice) is the background.

    Args:
        features: One feature per patch, of any scale, finite, row-major on the grid.
        grid_size: Rows and columns of patches.
        clusters: Number of clusters, the background included; `auto`: as many as eigenvalues,
            the zero included, lie below their largest gap, that after the first one left aside.
        eigenvectors: Number of eigenvectors, at least 1; with `auto`, at least 2.

    Returns:
        Number of the cluster of each patch: 0 for the background, then in the order of the grid.
        All are 0 where all patches are alike.

    Raises:
        InputError: Features that are not finite or do not fit the grid; numbers out of range.

    Reference:
        Melas-Kyriazi et al., Deep Spectral Methods (arXiv 2205.07839), section 3. The paper adds
        affinities of colours, which its release leaves out by default, as we do. The numbers of
        clusters and eigenvectors are those of the release's commands.
    """
    grid_hw = checked_grid(features, grid_size)
    if eigenvectors < 1 + (clusters == "auto") or (clusters != "auto" and clusters < 1):
        raise InputError(
            "expected at least 1 cluster and 1 eigenvector (2 for auto), "
            f"found {clusters} and {eigenvectors}"
        )
    if not features.isfinite().all():
        raise InputError("features: expected finite numbers, found NaN or infinity")
    unit = unit_columns(to_float64(features.detach())).cpu().numpy()
    weights = np.maximum(unit.T @ unit, 0)
    nothing = torch.zeros(grid_hw, dtype=torch.int64)
    if np.ptp(weights) <= _ROUNDING or len(weights) <= eigenvectors + 1:
        return nothing
    values, vectors = laplacian_eigenvectors(weights, eigenvectors)
    count = int(np.diff(values).argmax()) + 2 if clusters == "auto" else clusters
    rounded = np.round(vectors / (_TIE * np.abs(vectors).max()))
    count = min(count, len(np.unique(rounded, axis=0)))
    means = KMeans(count, n_init=_RESTARTS, random_state=0)
    return torch.from_numpy(_numbered(means.fit_predict(vectors).reshape(grid_hw)))


def laplacian_eigenvectors(
    weights: Float[np.ndarray, "n n"], count: int
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, "n k"]]:
    """Find the smallest eigenpairs of (D - W) x = lambda D x, without the constant x.

    Args:
        weights: W, symmetric, not negative. A patch without any weight counts as of degree 1.
        count: Number of eigenpairs, less than n.

    Returns:
        Eigenvalues in ascending order, and eigenvectors with x^T D x = 1 and their entry of largest
        magnitude positive.
    """
    degree = weights.sum(axis=1)
    degree = np.where(degree < _NO_DEGREE, 1.0, degree)
    scale = 1 / np.sqrt(degree)
    trivial = np.sqrt(degree / degree.sum())
    # Moves the known eigenvalue 1 to -1, so that only the others are found.
    matrix = scale[:, None] * weights * scale - 2 * np.outer(trivial, trivial)
    size = len(matrix)
    if size < _DENSE_BELOW or count > size // 4:
        values, vectors = scipy.linalg.eigh(matrix, subset_by_index=(size - count, size - 1))
    else:
        start = np.random.default_rng(0).standard_normal(size)
        values, vectors = eigsh(matrix, k=count, which="LA", v0=start)
    order = np.argsort(-values, kind="stable")
    vectors = scale[:, None] * vectors[:, order]
    largest = np.abs(vectors).argmax(axis=0)
    return 1 - values[order], vectors * np.sign(vectors[largest, np.arange(count)])


def _numbered(labels: Int[np.ndarray, "h w"]) -> Int[np.ndarray, "h w"]:
    """Give the background the number 0, and the others 1, 2, ... in the order of the grid."""
    sides = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    background = np.bincount(sides).argmax()
    present, first = np.unique(labels, return_index=True)
    others = [label for label in present[np.argsort(first)] if label != background]
    numbers = np.zeros(labels.max() + 1, dtype=np.int64)
    numbers[others] = np.arange(1, len(others) + 1)
    renumbered: Int[np.ndarray, "h w"] = numbers[labels]
    return renumbered
