"""The eigenvector that splits a graph of patches in two."""

from __future__ import annotations

import logging
from typing import NamedTuple, get_args

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.options.choices import Solver
from crate_interp.segmentation.affinity import BACKGROUND_WEIGHT
from crate_interp.segmentation.lanczos import MIN_GAP, LanczosResult, lanczos

__all__ = [
    "NormalizedCut",
    "check_solver",
    "eigengap",
    "first_largest",
    "is_constant",
    "normalized_cut",
    "second_eigenpairs",
]

logger = logging.getLogger(__name__)

_DENSE_BELOW = 256  # patches; there the dense solver is as fast
_TIE = 1e-9  # relative


class NormalizedCut(NamedTuple):
    """The second smallest generalised eigenpair of (D - W) x = lambda D x.

    Attributes:
        eigenvector: x, D-normalised (x^T D x = 1), its entry of largest magnitude positive; on the
            CPU, where what follows a cut is done.
        eigenvalue: lambda, the relaxed value of the normalized cut, in [0, 2].
        iterations: Lanczos steps, products with a block of vectors; 0 for the dense solver.
        residual: |S v - (1 - lambda) v| of S = D^-1/2 W D^-1/2 and the unit vector v = D^1/2 x.
    """

    eigenvector: Float[Tensor, " n"]
    eigenvalue: float
    iterations: int
    residual: float


def normalized_cut(connected: Bool[Tensor, "n n"], solver: Solver = "lanczos") -> NormalizedCut:
    """Relax the normalized cut of a graph: the second eigenvector of (D - W) x = lambda D x.

    An eigenvector is defined up to its sign, and eigensolvers return either: here the entry of
    largest magnitude (of the lowest index, among ties of relative 1e-9) is positive.

    Args:
        connected: Symmetric; True where W is 1, False where it is `BACKGROUND_WEIGHT`.
        solver: `lanczos` needs some milliseconds, and hands over to `dense`, with a warning in the
            log, when it does not converge to 1e-10, for instance where two eigenvalues coincide.
            `dense` is LAPACK's float64 solver of the generalised problem, cubic in the number of
            patches.

    Returns:
        The eigenpair.

    Raises:
        InputError: Not a symmetric square bool matrix; all weights equal, so that there is no cut;
            an unknown solver.

    Reference:
        Shi and Malik, Normalized Cuts and Image Segmentation (PAMI 2000), section 2.
    """
    check_solver(solver)
    if connected.ndim != 2 or connected.dtype != torch.bool or not connected.equal(connected.T):
        raise InputError(
            "connected: expected a symmetric bool matrix (n, n), "
            f"found {connected.dtype} of shape {tuple(connected.shape)}"
        )
    if is_constant(connected[None])[0]:
        raise InputError(f"connected: all pairs of {len(connected)} patches weigh the same: no cut")
    return second_eigenpairs(connected[None], solver)[0]


def second_eigenpairs(connected: Bool[Tensor, "B n n"], solver: Solver) -> list[NormalizedCut]:
    """Do what `normalized_cut` does for graphs known to be symmetric and not constant, together."""
    if solver == "dense" or not len(connected) or connected.shape[-1] < _DENSE_BELOW:
        return [_dense(graph) for graph in connected]
    return [
        _checked(result, graph) for result, graph in zip(lanczos(connected), connected, strict=True)
    ]


def eigengap(connected: Bool[Tensor, "n n"]) -> float:
    """Measure how well a graph falls into two parts: the gap behind its second eigenvalue.

    Of the eigenvalues 0 = lambda_1 <= lambda_2 <= lambda_3 ... of (D - W) x = lambda D x, it is
    lambda_3 - lambda_2, in [0, 2]. Where it is large, there is one good cut and no other as good,
    and the second eigenvector hardly moves when weights do; where it is 0, two cuts are as good.

    Args:
        connected: As for `normalized_cut`, known to be symmetric.

    Returns:
        The gap, to about 1e-10, and 0 below 1e-6; 0 also for a graph of which all pairs weigh the
        same, or that has fewer than three patches.

    Reference:
        Von Luxburg, A Tutorial on Spectral Clustering (arXiv 0711.0189), sections 7.1 and 8.3, for
        the gap; Shi and Malik (PAMI 2000) for the problem.
    """
    if len(connected) < 3 or is_constant(connected[None])[0]:
        return 0.0
    if len(connected) >= _DENSE_BELOW:
        (result,) = lanczos(connected[None], exact_gap=True)
        if result.converged:
            return result.gap
        if result.gap < MIN_GAP:
            return 0.0
    weights, degree = (side.cpu() for side in _weights_of(connected))
    laplacian = (torch.diag(degree) - weights).numpy()
    second, third = scipy.linalg.eigh(
        laplacian, np.diag(degree.numpy()), subset_by_index=[1, 2], eigvals_only=True
    )
    gap = float(third - second)
    return gap if gap >= MIN_GAP else 0.0


def _checked(result: LanczosResult, connected: Bool[Tensor, "n n"]) -> NormalizedCut:
    if result.converged:
        vector = _oriented(result.eigenvector)
        return NormalizedCut(vector, result.eigenvalue, result.iterations, result.residual)
    logger.warning(
        "Lanczos did not converge for %d patches (%d steps, residual %.1e, distance to the "
        "next eigenvalue %.1e): using the dense solver",
        *(len(connected), result.iterations, result.residual, result.gap),
    )
    return _dense(connected)


def check_solver(solver: str) -> None:
    """Raise `InputError` for the name of a solver that there is not."""
    if solver not in get_args(Solver):
        raise InputError(f"solver: expected one of {get_args(Solver)}, found {solver!r}")


def is_constant(connected: Bool[Tensor, "B n n"]) -> list[bool]:
    """Whether all pairs of different patches weigh the same, so that no cut is better than another.

    A graph of a single patch is constant.
    """
    num_patches = connected.shape[-1]
    loops = connected.diagonal(dim1=1, dim2=2).count_nonzero(dim=1)
    if not len(connected):
        return []
    # One graph after the other: torch counts along dimensions 20 times slower on a CPU.
    pairs = torch.stack([graph.count_nonzero() for graph in connected]) - loops
    return [count in (0, num_patches * (num_patches - 1)) for count in pairs.tolist()]


def first_largest(values: Float[Tensor, " n"]) -> int:
    """Index of the largest value; the lowest one, among ties of relative 1e-9."""
    largest = values.max()
    return int((values >= largest - _TIE * largest.abs()).nonzero()[0])


def _oriented(eigenvector: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    return eigenvector * eigenvector[first_largest(eigenvector.abs())].sign()


def _dense(connected: Bool[Tensor, "n n"]) -> NormalizedCut:
    """Solve with LAPACK on the CPU, with the symmetric problem of D^-1/2 W D^-1/2 elsewhere."""
    weights, degree = _weights_of(connected)
    if connected.device.type == "cpu":
        laplacian = (torch.diag(degree) - weights).numpy()
        values, vectors = scipy.linalg.eigh(
            laplacian, np.diag(degree.numpy()), subset_by_index=[1, 1]
        )
        eigenvector, eigenvalue = torch.from_numpy(vectors[:, 0]), float(values[0])
    else:
        scale = degree.rsqrt()
        quotients, unit = torch.linalg.eigh(scale[:, None] * weights * scale)
        eigenvector, eigenvalue = unit[:, -2] * scale, 1 - float(quotients[-2])
    image = (weights @ eigenvector) / degree.sqrt()
    error = image - (1 - eigenvalue) * eigenvector * degree.sqrt()
    residual = float(torch.linalg.vector_norm(error))
    return NormalizedCut(_oriented(eigenvector.cpu()), eigenvalue, 0, residual)


def _weights_of(connected: Bool[Tensor, "n n"]) -> tuple[Tensor, Tensor]:
    """W and the diagonal of D, float64."""
    weights = torch.where(connected, 1.0, torch.tensor(BACKGROUND_WEIGHT, dtype=torch.float64))
    return weights, weights.sum(dim=1)
