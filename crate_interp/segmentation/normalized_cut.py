"""The eigenvector that splits a graph of patches in two."""

from __future__ import annotations

import logging
from typing import NamedTuple, get_args

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crate_interp.config import Solver
from crate_interp.errors import InputError
from crate_interp.segmentation.affinity import BACKGROUND_WEIGHT
from crate_interp.segmentation.lanczos import lanczos

__all__ = [
    "NormalizedCut",
    "check_solver",
    "first_largest",
    "is_constant",
    "normalized_cut",
    "second_eigenpair",
]

logger = logging.getLogger(__name__)

_DENSE_BELOW = 256  # patches; there the dense solver is as fast
_TIE = 1e-9  # relative


class NormalizedCut(NamedTuple):
    """The second smallest generalised eigenpair of (D - W) x = lambda D x.

    Attributes:
        eigenvector: x, D-normalised (x^T D x = 1), its entry of largest magnitude positive.
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
        The eigenpair, on the device of the connections.

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
    if is_constant(connected):
        raise InputError(f"connected: all pairs of {len(connected)} patches weigh the same: no cut")
    return second_eigenpair(connected, solver)


def second_eigenpair(connected: Bool[Tensor, "n n"], solver: Solver) -> NormalizedCut:
    """Do what `normalized_cut` does, for connections known to be symmetric and not constant."""
    if solver == "lanczos" and len(connected) >= _DENSE_BELOW:
        found = lanczos(connected)
        if found.converged:
            vector = _oriented(found.eigenvector)
            return NormalizedCut(vector, found.eigenvalue, found.iterations, found.residual)
        logger.warning(
            "Lanczos did not converge for %d patches (%d steps, residual %.1e, distance to the "
            "next eigenvalue %.1e): using the dense solver",
            *(len(connected), found.iterations, found.residual, found.gap),
        )
    return _dense(connected)


def check_solver(solver: str) -> None:
    """Raise `InputError` for the name of a solver that there is not."""
    if solver not in get_args(Solver):
        raise InputError(f"solver: expected one of {get_args(Solver)}, found {solver!r}")


def is_constant(connected: Bool[Tensor, "n n"]) -> bool:
    """Whether all pairs of different patches weigh the same, so that no cut is better than another.

    A graph of a single patch is constant.
    """
    pairs = len(connected) * (len(connected) - 1)
    found = int(connected.count_nonzero() - connected.diagonal().count_nonzero())
    return found in (0, pairs)


def first_largest(values: Float[Tensor, " n"]) -> int:
    """Index of the largest value; the lowest one, among ties of relative 1e-9."""
    largest = values.max()
    return int((values >= largest - _TIE * largest.abs()).nonzero()[0])


def _oriented(eigenvector: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    return eigenvector * eigenvector[first_largest(eigenvector.abs())].sign()


def _dense(connected: Bool[Tensor, "n n"]) -> NormalizedCut:
    """Solve with LAPACK on the CPU, with the symmetric problem of D^-1/2 W D^-1/2 elsewhere."""
    weights = torch.where(connected, 1.0, torch.tensor(BACKGROUND_WEIGHT, dtype=torch.float64))
    degree = weights.sum(dim=1)
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
    return NormalizedCut(_oriented(eigenvector), eigenvalue, 0, residual)
