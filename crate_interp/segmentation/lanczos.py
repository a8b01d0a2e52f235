"""The second generalised eigenvector of two-valued affinities, by block Lanczos, for a batch.

With W = c + (1 - c) B, B the 0/1 matrix of connections and c the background weight, the pencil
(D - W) x = lambda D x is the symmetric problem S v = (1 - lambda) v, where S = D^-1/2 W D^-1/2 and
x = D^-1/2 v. Its largest eigenvalue is 1, with the known eigenvector D^1/2 1: that one is deflated,
and the iteration finds the next. Blocks of two vectors see an eigenvalue that is double, which a
single vector never does.

Graphs of a batch go through the same steps together, and leave when they have converged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from crate_interp.segmentation.affinity import BACKGROUND_WEIGHT
from crate_interp.segmentation.exact_product import exact_product, readable

__all__ = ["MIN_GAP", "LanczosResult", "lanczos"]

_BLOCK = 2
_MAX_STEPS = 256
_STEPS_PER_CHECK = 4
_MAX_ANGLE = 1e-12  # aimed at: residual / gap, which bounds the error of a unit eigenvector
MIN_GAP = 1e-6  # below, rounding mixes two eigenvectors by more than 1e-9
_FLOOR = 1e-15  # residuals below are rounding
_MAX_ERROR = 1e-10  # of the next eigenvalue, where it is asked for
_ROUNDING = 1e-17


class LanczosResult(NamedTuple):
    """The eigenpair of a graph that the iteration arrived at, converged or not.

    Attributes:
        eigenvector: x of the generalised problem, any sign, D-norm 1; on the CPU.
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
def lanczos(connected: Bool[Tensor, "B n n"], *, exact_gap: bool = False) -> list[LanczosResult]:
    """Find the second smallest generalised eigenpairs of graphs of more than some hundred patches.

    Full reorthogonalisation in float64; the starting vectors are fixed, so that two runs agree.

    Args:
        connected: Symmetric connections of each graph, see `affinity`.
        exact_gap: Go on until the next eigenvalue, and so the gap, is known to 1e-10, too.

    Returns:
        The eigenpair of each graph, and how far it can be trusted.
    """
    spaces = _Spaces.of(_Graphs.of(connected), _MAX_ERROR if exact_gap else None)
    finished: dict[int, LanczosResult] = {}
    running = list(range(len(connected)))
    while running:
        spaces.grow()
        if spaces.steps % _STEPS_PER_CHECK and not spaces.are_full:
            continue
        results = spaces.results()
        for number, result in zip(running, results, strict=True):
            if result is not None:
                finished[number] = result
        kept = [at for at, result in enumerate(results) if result is None]
        if len(kept) < len(running):
            running = [running[at] for at in kept]
            spaces.keep(kept)
    return [finished[number] for number in range(len(connected))]


@dataclass
class _Spaces:
    """Krylov spaces of the graphs that have not converged.

    Attributes:
        graphs: The problems.
        basis: The known eigenvector, and orthonormal rows of the space; filled as it grows.
        projected: S in this basis, its lower triangle.
        block: The next rows of the basis.
        coupling: S @ last rows = (a combination of the basis) + coupling @ block.
        generator: Source of the random rows, which nothing depends on.
        most_of_next: Residual of the next eigenpair, at most; `None`: a tenth of the gap.
        steps: Block products made.
    """

    graphs: _Graphs
    basis: Float[Tensor, "B m n"]
    projected: Float[Tensor, "B m m"]
    block: Float[Tensor, "B b n"]
    coupling: Float[Tensor, "B b b"]
    generator: torch.Generator
    most_of_next: float | None = None
    steps: int = 0

    @classmethod
    def of(cls, graphs: _Graphs, most_of_next: float | None = None) -> _Spaces:
        count, _, num_patches = graphs.scale.shape
        size = 1 + _BLOCK * min(_MAX_STEPS, num_patches // (2 * _BLOCK))
        basis = graphs.scale.new_empty((count, size, num_patches))
        basis[:, :1] = graphs.trivial
        generator = torch.Generator().manual_seed(0)
        rows = _random_rows(generator, graphs.scale)
        block, coupling = _orthonormal(rows.expand(count, -1, -1), basis[:, :1], 0 * rows)
        projected = basis.new_empty((count, size, size))
        return cls(graphs, basis, projected, block, coupling, generator, most_of_next)

    @property
    def size(self) -> int:
        """Rows of the basis so far."""
        return 1 + self.steps * _BLOCK

    @property
    def are_full(self) -> bool:
        """Whether there is no room for another step."""
        return self.size == self.basis.shape[1]

    def grow(self) -> None:
        """Make one step."""
        start, stop = self.size, self.size + _BLOCK
        self.basis[:, start:stop] = self.block
        image = self.graphs.multiply(self.block)
        self.projected[:, start:stop, :stop] = image @ self.basis[:, :stop].mT
        # Noise of the size of rounding: where the rest of `image` vanishes, the space is invariant,
        # and the search goes on from fresh directions.
        noise = _ROUNDING * _random_rows(self.generator, self.graphs.scale)
        self.block, self.coupling = _orthonormal(image, self.basis[:, :stop], noise)
        self.steps += 1

    def results(self) -> list[LanczosResult | None]:
        """The eigenpair of every graph, or `None` if it is to go on."""
        # Small eigenproblems are solved on the CPU; `eigh` reads the lower triangle.
        projected = self.projected[:, 1 : self.size, 1 : self.size].cpu()
        values, vectors = torch.linalg.eigh(projected)
        gaps = (values[:, -1] - values[:, -2]).tolist()
        rest = vectors[:, -_BLOCK:, -2:].mT @ self.coupling.cpu()
        residuals = torch.linalg.vector_norm(rest, dim=2).tolist()
        judged = [_judged(*pair, self.most_of_next) for pair in zip(gaps, residuals, strict=True)]
        if not (self.are_full or any(finished for _, finished in judged)):
            return [None] * len(gaps)
        ritz = vectors[:, :, -1:].mT.to(self.basis.device) @ self.basis[:, 1 : self.size]
        results: list[LanczosResult | None] = []
        pairs = self.graphs.polished(ritz)
        for (settled, finished), gap, pair in zip(judged, gaps, pairs, strict=True):
            vector, quotient, residual = pair
            converged = settled and residual <= max(100 * _MAX_ANGLE * gap, 10 * _FLOOR)
            result = LanczosResult(vector, 1 - quotient, gap, residual, self.steps, converged)
            results.append(result if finished or self.are_full else None)
        return results

    def keep(self, kept: list[int]) -> None:
        """Go on with some graphs only."""
        self.graphs = _Graphs(*(tensor[kept] for tensor in self.graphs))
        self.basis, self.projected = self.basis[kept], self.projected[kept]
        self.block, self.coupling = self.block[kept], self.coupling[kept]


def _judged(
    gap: float, residuals: list[float], most_of_next: float | None = None
) -> tuple[bool, bool]:
    """Whether an eigenpair is there, and whether to stop; residuals of the next one and of it."""
    if gap < MIN_GAP:
        return False, max(residuals) <= 0.01 * MIN_GAP
    most_of_next = 0.1 * gap if most_of_next is None else most_of_next
    settled = residuals[0] <= most_of_next and residuals[1] <= max(_MAX_ANGLE * gap, _FLOOR)
    return settled, settled


class _Graphs(NamedTuple):
    """The symmetric problems S = D^-1/2 W D^-1/2 of a batch.

    Attributes:
        connections: B, as `exact_product` reads it.
        scale: D^-1/2.
        trivial: The known eigenvector, of unit length.
    """

    connections: Shaped[Tensor, "B n n"]
    scale: Float[Tensor, "B 1 n"]
    trivial: Float[Tensor, "B 1 n"]

    @classmethod
    def of(cls, connected: Bool[Tensor, "B n n"]) -> _Graphs:
        connections = readable(connected)
        ones = connected.new_ones((len(connected), 1, connected.shape[-1]), dtype=torch.float64)
        degree = _weighted(ones, connections)
        trivial = degree.sqrt() / degree.sum(dim=2, keepdim=True).sqrt()
        return cls(connections, degree.rsqrt(), trivial)

    def multiply(self, rows: Float[Tensor, "B b n"]) -> Float[Tensor, "B b n"]:
        """Rows times S."""
        return self.scale * _weighted(rows * self.scale, self.connections)

    def polished(
        self, vectors: Float[Tensor, "B 1 n"]
    ) -> list[tuple[Float[Tensor, " n"], float, float]]:
        """Apply S once more; returns each x of D-norm 1, its Rayleigh quotient and residual.

        D^-1/2 magnifies the error of weakly connected patches up to 300 times. After a product,
        such a patch has the value that its row of the equation gives it, to the last digits.
        """
        image = self.multiply(vectors)
        image = image - (image @ self.trivial.mT) * self.trivial
        vectors = image / torch.linalg.vector_norm(image, dim=2, keepdim=True)
        image = self.multiply(vectors)
        quotients = image @ vectors.mT
        residuals = torch.linalg.vector_norm(image - quotients * vectors, dim=2)
        on_cpu = (vectors * self.scale)[:, 0].cpu()
        return list(
            zip(on_cpu, quotients.flatten().tolist(), residuals.flatten().tolist(), strict=True)
        )


def _random_rows(generator: torch.Generator, like: Float[Tensor, "B 1 n"]) -> Float[Tensor, "b n"]:
    rows = torch.randn((_BLOCK, like.shape[2]), generator=generator, dtype=torch.float64)
    return rows.to(like.device)


def _orthonormal(
    rows: Float[Tensor, "B b n"], basis: Float[Tensor, "B m n"], noise: Float[Tensor, "b n"]
) -> tuple[Float[Tensor, "B b n"], Float[Tensor, "B b b"]]:
    """Orthonormalise rows against a basis and each other; noise takes the place of what vanishes.

    Returns:
        `block` and `coupling`, with rows = (a combination of the basis) + coupling @ block.
    """
    coupling = torch.eye(_BLOCK, dtype=rows.dtype, device=rows.device)
    shrinkage = 0.0
    while shrinkage < 0.5:  # a pass that cancels digits leaves rounding errors to the next one
        rows = torch.baddbmm(rows + noise, torch.bmm(rows, basis.mT), basis, alpha=-1)
        rows, triangle = _gram_schmidt(rows)
        coupling = coupling @ triangle
        shrinkage = float(triangle.diagonal(dim1=1, dim2=2).min())
    return rows, coupling


def _gram_schmidt(
    rows: Float[Tensor, "B 2 n"],
) -> tuple[Float[Tensor, "B 2 n"], Float[Tensor, "B 2 2"]]:
    """Factor rows = triangle @ orthonormal; a GPU would do the QR of one graph after the other."""
    first, second = rows.unbind(dim=1)
    length = torch.linalg.vector_norm(first, dim=1, keepdim=True)
    first = first / length
    overlap = (first * second).sum(dim=1, keepdim=True)
    second = second - overlap * first
    rest = torch.linalg.vector_norm(second, dim=1, keepdim=True)
    triangle = torch.cat([length, torch.zeros_like(rest), overlap, rest], dim=1).view(-1, 2, 2)
    return torch.stack([first, second / rest], dim=1), triangle


def _weighted(
    rows: Float[Tensor, "B b n"], connections: Shaped[Tensor, "B n n"]
) -> Float[Tensor, "B b n"]:
    """Rows times W."""
    background = BACKGROUND_WEIGHT * rows.sum(dim=2, keepdim=True)
    return background + (1 - BACKGROUND_WEIGHT) * exact_product(rows, connections)
