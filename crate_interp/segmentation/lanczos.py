"""The second generalised eigenvector of a two-valued affinity, by block Lanczos.

With W = c + (1 - c) B, B the 0/1 matrix of connections and c the background weight, the pencil
(D - W) x = lambda D x is the symmetric problem S v = (1 - lambda) v, where S = D^-1/2 W D^-1/2 and
x = D^-1/2 v. Its largest eigenvalue is 1, with the known eigenvector D^1/2 1: that one is deflated,
and the iteration finds the next. Blocks of two vectors see an eigenvalue that is double, which a
single vector never does.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int8
from torch import Tensor

from crate_interp.segmentation.affinity import BACKGROUND_WEIGHT

__all__ = ["LanczosResult", "lanczos"]

_BLOCK = 2
_MAX_STEPS = 256
_STEPS_PER_CHECK = 4
_MAX_ANGLE = 1e-12  # aimed at: residual / gap, which bounds the error of a unit eigenvector
_MIN_GAP = 1e-6  # below, rounding mixes two eigenvectors by more than 1e-9
_FLOOR = 1e-15  # residuals below are rounding
_ROUNDING = 1e-17

_ALL_128 = int.from_bytes(b"\x80" * 8, "little", signed=True)
_DIGIT_VALUES = 256.0 ** torch.arange(8, dtype=torch.float64)

_Multiply = Callable[[Float[Tensor, "b n"]], Float[Tensor, "b n"]]


class LanczosResult(NamedTuple):
    """What the iteration found, converged or not.

    Attributes:
        eigenvector: x of the generalised problem, any sign, D-norm 1.
        eigenvalue: lambda.
        gap: Distance to the next eigenvalue.
        residual: |S v - (1 - lambda) v| of the unit vector v = D^1/2 x.
        iterations: Block products made.
        converged: Whether residual / gap, which bounds the error of v, is at most 1e-10, or the
            residual is rounding (1e-14) and the gap at least 1e-6.
    """

    eigenvector: Float[Tensor, " n"]
    eigenvalue: float
    gap: float
    residual: float
    iterations: int
    converged: bool


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one thread.

    The iteration consists of operations of some microseconds. Handing half of one to a second
    thread gains nothing, and on a busy machine waits for that thread make it 100 times slower.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


@_one_thread()
def lanczos(connected: Bool[Tensor, "n n"]) -> LanczosResult:
    """Find the second smallest generalised eigenpair of a graph of more than a few hundred patches.

    Full reorthogonalisation in float64; the starting vectors are fixed, so that two runs agree.

    Args:
        connected: Symmetric connections, see `affinity`.

    Returns:
        The eigenpair and how far it can be trusted.
    """
    num_patches = connected.shape[0]
    multiply_connections = _exact_product(connected)
    ones = torch.ones((1, num_patches), dtype=torch.float64, device=connected.device)
    degree = _weighted(multiply_connections, ones)[0]
    scale = degree.rsqrt()

    def multiply(rows: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        return scale * _weighted(multiply_connections, rows * scale)

    max_steps = min(_MAX_STEPS, num_patches // (2 * _BLOCK))
    basis = degree.new_empty((1 + max_steps * _BLOCK, num_patches))
    basis[0] = degree.sqrt() / degree.sum().sqrt()
    # Coefficients stay on the CPU, where the small eigenproblems are solved.
    projected = torch.empty((len(basis), len(basis)), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    block, _ = _orthonormal(_random_rows(generator, degree), basis[:1])
    for step in range(1, max_steps + 1):
        start, stop = 1 + (step - 1) * _BLOCK, 1 + step * _BLOCK
        basis[start:stop] = block
        image = multiply(block)
        projected[start:stop, :stop] = image @ basis[:stop].T
        # Noise of the size of rounding: where the rest of `image` vanishes, the space is invariant,
        # and the search goes on from fresh directions.
        image += _ROUNDING * _random_rows(generator, degree)
        block, coupling = _orthonormal(image, basis[:stop])
        if step % _STEPS_PER_CHECK and step < max_steps:
            continue
        values, vectors = torch.linalg.eigh(projected[1:stop, 1:stop])  # reads the lower triangle
        residuals = torch.linalg.vector_norm(vectors[-_BLOCK:, -2:].T @ coupling, dim=1).tolist()
        gap = float(values[-1] - values[-2])
        if gap < _MIN_GAP:
            settled, finished = False, max(residuals) <= 0.01 * _MIN_GAP
        else:
            settled = residuals[0] <= 0.1 * gap and residuals[1] <= max(_MAX_ANGLE * gap, _FLOOR)
            finished = settled
        if finished:
            break
    vector = vectors[:, -1].to(degree) @ basis[1:stop]
    vector, quotient, residual = _polished(vector, basis[0], multiply)
    return LanczosResult(
        eigenvector=vector * scale,
        eigenvalue=1 - quotient,
        gap=gap,
        residual=residual,
        iterations=step,
        converged=settled and residual <= max(100 * _MAX_ANGLE * gap, 10 * _FLOOR),
    )


def _random_rows(generator: torch.Generator, like: Float[Tensor, " n"]) -> Float[Tensor, "b n"]:
    rows = torch.randn((_BLOCK, len(like)), generator=generator, dtype=torch.float64)
    return rows.to(like.device)


def _polished(
    vector: Float[Tensor, " n"],
    trivial: Float[Tensor, " n"],
    multiply: _Multiply,
) -> tuple[Float[Tensor, " n"], float, float]:
    """Apply the matrix once more; returns the unit vector, its Rayleigh quotient and residual.

    D^-1/2 magnifies the error of weakly connected patches up to 300 times. After a product, such a
    patch has the value that its row of the equation gives it, to the last digits.
    """
    image = multiply(vector[None])[0]
    image = image - (image @ trivial) * trivial
    vector = image / torch.linalg.vector_norm(image)
    image = multiply(vector[None])[0]
    quotient = image @ vector
    residual = torch.linalg.vector_norm(image - quotient * vector)
    return vector, float(quotient), float(residual)


def _orthonormal(
    rows: Float[Tensor, "b n"], basis: Float[Tensor, "m n"]
) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b b"]]:
    """Orthonormalise rows against a basis and each other.

    Returns:
        `block` and `coupling`, with rows = (a combination of the basis) + coupling @ block.
    """
    coupling = torch.eye(len(rows), dtype=torch.float64)
    shrinkage = 0.0
    while shrinkage < 0.5:  # a pass that cancels digits leaves rounding errors to the next one
        rows = rows - (rows @ basis.T) @ basis
        columns, triangle = torch.linalg.qr(rows.T)
        rows, triangle = columns.T, triangle.cpu()
        coupling = coupling @ triangle.T
        shrinkage = float(triangle.diagonal().abs().min())
    return rows.contiguous(), coupling


def _weighted(multiply_connections: _Multiply, rows: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """Rows times W."""
    background = BACKGROUND_WEIGHT * rows.sum(dim=1, keepdim=True)
    return background + (1 - BACKGROUND_WEIGHT) * multiply_connections(rows)


def _exact_product(connected: Bool[Tensor, "n n"]) -> _Multiply:
    """Choose the fastest product of rows with a 0/1 matrix that is exact to float64.

    A product reads the matrix once, and is bound by that. oneDNN multiplies int8 matrices with
    int32 sums: an eighth of the bytes of float64, and no copy of a bool matrix.
    """
    if (
        connected.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and platform.machine().lower() in ("x86_64", "amd64")
    ):
        return partial(_int8_product, connections=connected.view(torch.int8))
    connections = connected.to(torch.float64)
    return lambda rows: rows @ connections


def _int8_product(
    rows: Float[Tensor, "b n"], connections: Int8[Tensor, "n n"]
) -> Float[Tensor, "b n"]:
    """Multiply rows with a 0/1 matrix through eight int8 digits an entry (the Ozaki scheme).

    Each row is scaled to 63-bit integers, finer than float64. Adding 128 to every digit of base 256
    makes the bytes of an integer its digits; taking it off again, as the flip of the sign bit does,
    leaves digits in [-128, 127]. Sums of up to 2^24 of these are exact in int32.
    """
    count, num_patches = rows.shape
    scale = 2.0**62 / rows.abs().amax(dim=1, keepdim=True)
    integers = (rows * scale).to(torch.int64)
    digits = (integers + _ALL_128).bitwise_xor_(_ALL_128).view(torch.int8)
    digits = digits.view(count, num_patches, 8).transpose(1, 2).reshape(count * 8, num_patches)
    sums = torch._int_mm(digits, connections).view(count, 8, num_patches)
    return (_DIGIT_VALUES @ sums.to(torch.float64)) / scale
