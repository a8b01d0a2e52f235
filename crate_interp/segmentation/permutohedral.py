"""Gaussian filtering in many dimensions by the permutohedral lattice, all points at once.

Shapes: P points, d dimensions of their features, V vertices that they touch, C channels.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor
from torch.nn.functional import embedding_bag

from crate_interp.errors import InputError

__all__ = ["PermutohedralLattice"]

_CHUNK = 1 << 17  # points: threads share one, and its intermediate results are small
_TOO_SMALL = "the deviations of a kernel are too small for an image of this size"


class PermutohedralLattice:
    """The sum over all points, weighted by about exp(-|f_i - f_j|^2 / 2).

    A point gives its value to the d + 1 vertices of its simplex, the vertices are blurred along the
    d + 1 directions of the lattice, and the point reads the sum off its vertices. Each step is a
    weighted sum of rows, for all channels together.

    Args:
        features: Features of the points, each divided by its deviation.

    Raises:
        InputError: The features are spread so far that the vertices cannot be numbered.

    Reference:
        Adams, Baek and Davis, Fast High-Dimensional Filtering Using the Permutohedral Lattice,
        2010.
    """

    def __init__(self, features: Float[Tensor, "d P"]) -> None:
        dimensions, points = features.shape
        if not features.abs().max() < 2**20:  # beyond, float32 has no places for the shares
            raise InputError(_TOO_SMALL)
        size = _CHUNK if features.device.type == "cpu" else max(1, points)
        parts = [_simplices(part) for part in features.split(size, dim=1)]
        corner, order, weights = (torch.cat(part, dim=-1) for part in zip(*parts, strict=True))
        strides = _strides(corner)
        keys, place = _sorted_with_places(_vertex_keys(corner, order, strides))
        first = torch.ones_like(keys, dtype=torch.bool)
        torch.ne(keys[1:], keys[:-1], out=first[1:])
        vertex = torch.empty_like(place)
        vertex[place] = first.cumsum(0, dtype=torch.int32) - 1
        self._vertex: Int32[Tensor, "P d1"] = vertex.view(dimensions + 1, points).T.contiguous()
        self._read: Float[Tensor, "P d1"] = weights.T.contiguous() / (1 + 2.0**-dimensions)
        self._point: Int32[Tensor, " P*d1"] = place % points
        self._give: Float[Tensor, " P*d1"] = weights.flatten()[place]
        self._start: Int32[Tensor, " V"] = first.nonzero()[:, 0].to(torch.int32)
        self._neighbours: list[Int32[Tensor, "V1 3"]] = _neighbours(keys[first], strides)
        blur = features.new_tensor([1.0, 0.5, 0.5])
        self._blur: Float[Tensor, "V1 3"] = blur.repeat(len(self._start) + 1, 1)

    def normalise(self) -> None:
        """Divide the weight of two points by the roots of both their sums of weights."""
        ones = torch.ones_like(self._read[:, :1])
        factor = self.filter(ones).add_(1e-20).rsqrt_()
        self._read = self._read * factor
        self._give = self._give * factor[self._point, 0]

    def filter(self, values: Float[Tensor, "P C"]) -> Float[Tensor, "P C"]:
        """Sum the values of all points, weighted by their closeness to each; C is at least 1."""
        given = _sum_rows(values, self._point, self._give, self._start)
        rows = torch.cat([given, torch.zeros_like(given[:1])])  # the last one: no such vertex
        for neighbours in self._neighbours:
            rows = _sum_rows(rows, neighbours, self._blur)
        return _sum_rows(rows, self._vertex, self._read)


def _sum_rows(
    rows: Tensor, indices: Tensor, weights: Tensor, start: Tensor | None = None
) -> Tensor:
    return embedding_bag(indices, rows, start, mode="sum", per_sample_weights=weights)


def _simplices(
    features: Float[Tensor, "d P"],
) -> tuple[Int32[Tensor, "d P"], Int32[Tensor, "d1 P"], Float[Tensor, "d1 P"]]:
    """Find the simplex of each point.

    Returns:
        corner: Vertex of remainder 0, in units of d + 1, without the last coordinate.
        order: The coordinate that is the first, second, ... largest beyond the corner.
        weights: Weights of the point on the vertices of remainder 0, 1, ...
    """
    dimensions, points = features.shape
    count = dimensions + 1
    raised = features.new_empty((count, points))  # on the plane where coordinates sum to 0
    total = features.new_zeros(points)
    for axis in range(dimensions, 0, -1):
        along = features[axis - 1] * (math.sqrt(2 / 3) * count / math.sqrt(axis * (axis + 1)))
        raised[axis] = total - axis * along
        total = total + along
    raised[0] = total
    raised /= count
    corner = raised.round()
    beyond = raised - corner
    rank = torch.zeros((count, points), dtype=torch.int8, device=features.device)
    for axis in range(count):  # of two equal ones, the earlier counts as larger
        for other in range(axis + 1, count):
            smaller = beyond[axis] < beyond[other]
            rank[axis] += smaller
            rank[other] += ~smaller
    rank += corner.sum(dim=0).to(torch.int8)  # the corner is off the plane by so many steps
    under, over = rank < 0, rank >= count
    step = under.to(torch.int8) - over.to(torch.int8)
    rank += step * count
    corner += step
    beyond -= step
    order = torch.zeros((count, points), dtype=torch.int32, device=features.device)
    ordered = torch.zeros_like(beyond)
    for axis in range(count):
        for position in range(count):
            here = rank[axis] == position
            order[position].masked_fill_(here, axis)
            torch.where(here, beyond[axis], ordered[position], out=ordered[position])
    weights = torch.empty_like(ordered)
    weights[1:] = (ordered[:-1] - ordered[1:]).flip(0)
    weights[0] = 1 - (ordered[0] - ordered[-1])
    return corner[:dimensions].to(torch.int32), order, weights


def _strides(corner: Int32[Tensor, "d P"]) -> Int64[Tensor, " d1"]:
    """Give each coordinate its part of a 63-bit number; the last one has none.

    A vertex is a corner moved by less than d + 1, and its neighbour by d more.
    """
    count = len(corner) + 1
    low, high = corner.amin(dim=1), corner.amax(dim=1)
    spans = [int(span + 6) * count for span in (high - low).tolist()]
    if math.prod(spans) >= 2**63:
        raise InputError(_TOO_SMALL)
    strides = [math.prod(spans[axis + 1 :]) for axis in range(len(spans))]
    return torch.tensor([*strides, 0], dtype=torch.int64, device=corner.device)


def _vertex_keys(
    corner: Int32[Tensor, "d P"], order: Int32[Tensor, "d1 P"], strides: Int64[Tensor, " d1"]
) -> Int64[Tensor, "d1 P"]:
    """Number the vertices of each simplex, so that moving a coordinate by 1 adds its stride."""
    count = len(order)
    keys = torch.zeros(order.shape, dtype=torch.int64, device=order.device)
    low = corner.amin(dim=1, keepdim=True) - 3
    for coordinate, stride in zip(corner - low, (strides * count).tolist(), strict=False):
        keys[0].add_(coordinate, alpha=stride)
    # From a vertex to the next one, all coordinates grow by 1, the smallest left by 1 - (d + 1).
    step = strides.sum() - count * strides
    for remainder in range(1, count):
        torch.add(keys[remainder - 1], step[order[count - remainder]], out=keys[remainder])
    return keys


def _sorted_with_places(
    keys: Int64[Tensor, "d1 P"],
) -> tuple[Int64[Tensor, " d1*P"], Int32[Tensor, " d1*P"]]:
    """Sort the keys, and say where each one was."""
    flat = keys.flatten()
    bits = max(1, len(flat) - 1).bit_length()
    if flat.device.type == "cpu" and int(flat.max()) < 2 ** (63 - bits):
        # numpy sorts plain numbers several times faster than pairs
        packed = (flat << bits).bitwise_or_(torch.arange(len(flat)))
        packed.numpy().sort()
        return packed >> bits, (packed & ((1 << bits) - 1)).to(torch.int32)
    ordered = flat.sort(stable=True)
    return ordered.values, ordered.indices.to(torch.int32)


def _neighbours(
    keys: Int64[Tensor, " V"], strides: Int64[Tensor, " d1"]
) -> list[Int32[Tensor, "V1 3"]]:
    """Find, along each direction, every vertex, the one before it and the one behind it.

    The number V stands for a vertex that no point touches; it is its own neighbour.
    """
    count, total = len(strides), len(keys)
    own = torch.arange(total + 1, dtype=torch.int32, device=keys.device)
    neighbours = []
    for axis in range(count):
        move = int(count * strides[axis] - strides.sum())
        target = keys + move
        behind = torch.searchsorted(keys, target, out_int32=True).clamp_(max=total - 1)
        behind.masked_fill_(keys[behind] != target, total)
        before = torch.full_like(own, total)
        before[behind] = own[:-1]
        before[-1] = total  # the vertices without one behind them wrote here
        neighbours.append(torch.stack([own, before, torch.cat([behind, own[-1:]])], dim=1))
    return neighbours
