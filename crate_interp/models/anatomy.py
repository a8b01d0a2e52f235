"""Anatomy of a block of a vision transformer: what can be read and changed in it.

A block has a method `anatomy`; blocks of timm are described by the tables `BLOCKS`, `ATTENTIONS`
and `MLPS`, by the exact type of the block or of its parts, which `timm_blocks.py` fills. Everything
that looks into a model asks `anatomy_of`, and knows no class of a block.

Shapes: B images, N tokens (prefix tokens first, then patches row by row), K heads, d head dim,
D embed dim, A atoms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from crate_interp.structures import AttentionTerms

__all__ = [
    "ATTENTIONS",
    "BLOCKS",
    "DERIVED",
    "MLPS",
    "Anatomy",
    "Atoms",
    "Derived",
    "Heads",
    "Part",
    "Place",
    "QueryKeyValue",
    "Site",
    "anatomy_of",
    "attention_rows",
    "split_heads",
]


class Site(str, Enum):
    """A place inside a block whose tensor can be recorded."""

    QUERY = "query"
    """(B, N, K*d) queries as attention uses them, normalised and rotated where a model does so;
    heads adjacent."""
    KEY = "key"
    """(B, N, K*d) keys as attention uses them, heads adjacent."""
    VALUE = "value"
    """(B, N, K*d) values, heads adjacent."""
    SUBSPACE = "subspace"
    """(B, N, D) the shared projection U(LN(z)) of CRATE families: query, key and value at once."""
    ATTENTION = "attention"
    """(B, K, N, N) attention after the softmax; each row sums to one, but for the difference of two
    maps that differential attention is. Quadratic memory."""
    CLS_ATTENTION = "cls_attention"
    """(B, K, N) the class token's row of ATTENTION, computed alone."""
    HEADS = "heads"
    """(B, N, K*d) what each head hands to the output projection, heads adjacent; after the gate or
    norm of a model that has one."""
    TOKENS_IN = "tokens_in"
    """(B, N, D) the residual stream entering the block."""
    TOKENS = "tokens"
    """(B, N, D) the residual stream leaving the block."""
    CODES = "codes"
    """Sparse codes: (B, N, 4D) ODL's a2 in CRATE-alpha, (B, N, D) ISTA's output in CRATE."""
    NEURONS = "neurons"
    """(B, N, A) activations of the MLP of timm's blocks, gated where it has gates: what its last
    layer reads. CRATE families have none."""

    @classmethod
    def _missing_(cls, value: object) -> Site | None:
        name = str(value).lower()
        return next((site for site in cls if site.value == name), None)


class Part(NamedTuple):
    """A tensor of the model that holds all channels of a place, or some of them.

    Attributes:
        path: Submodule of the block; empty for the block itself.
        start: First channel of the tensor that is the place's.
        first: The same channel among those of the place.
        channels: Number of channels; `None` for all of the tensor.
    """

    path: str
    start: int = 0
    first: int = 0
    channels: int | None = None


class Place(NamedTuple):
    """A tensor of a block that can be recorded and changed.

    Attributes:
        path: Submodule of the block; empty for the block itself.
        enters: Whether the tensor is the first argument of the submodule; otherwise its output.
        units: Number of heads, atoms or channels that the last dimension consists of; `None` for
            the D channels of the residual stream.
        width: Number of adjacent channels per unit.
        start: First channel of the place in a tensor that has others beside.
        others: Submodules with as many units each, in the order of the units, in a block that has
            several attentions or MLPs side by side.
    """

    path: str
    enters: bool = False
    units: int | None = None
    width: int = 1
    start: int = 0
    others: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[Part, ...]:
        """The tensors that the place consists of."""
        if self.units is None:
            return (Part(self.path),)
        paths = (self.path, *self.others)
        count = self.units * self.width // len(paths)
        return tuple(
            Part(path, self.start, number * count, count) for number, path in enumerate(paths)
        )


_TO_PROJECTION = Place("attn.proj", enters=True)


class QueryKeyValue(NamedTuple):
    """Queries, keys and values of attention, normalised and rotated as the block does it.

    Attributes:
        query: Queries; a factor other than 1 / sqrt(d) is in them.
        key: Keys.
        value: Values.
        terms: Makes what attention has beside queries and keys; `None` for nothing.
    """

    query: Float[Tensor, "B K N d"]
    key: Float[Tensor, "B K N d"]
    value: Float[Tensor, "B K N d"]
    terms: Callable[[], AttentionTerms] | None = None

    def attention_of(self, rows: slice = slice(None)) -> Float[Tensor, "B K R N"]:
        """Attention of some tokens, by their numbers."""
        terms = None if self.terms is None else self.terms()
        return attention_rows(self.query[:, :, rows], self.key, terms, rows)


class Derived(NamedTuple):
    """A tensor that is computed from the heads beside the model: it can be recorded, not changed.

    Attributes:
        compute: Makes it.
        is_masked: Whether a mask on attention, which `compute` does not know, would change it.
    """

    compute: Callable[[QueryKeyValue], Tensor]
    is_masked: bool = False


@dataclass(frozen=True, eq=False)
class Heads:
    """Heads of a block, which attends by softmax(q kT / sqrt(d)) v per head, or with terms beside.

    Attributes:
        num_heads: Number of heads K.
        head_dim: Width d of a head.
        source: Tensor that queries, keys and values are made from.
        split: Makes queries, keys and values from that tensor and the keyword arguments of the
            submodule that it enters or leaves.
        output: Place of the values that the heads hand to the output projection.
        module: Submodule that attends; a mask among its arguments is refused.
        norm: Submodule that normalises the residual stream before it is projected.
        arguments: Keyword arguments that the model passes to each block beside the tokens, and
            without which the block attends otherwise: `rope` for instance.
    """

    num_heads: int
    head_dim: int
    source: Place
    split: Callable[[Tensor, Mapping[str, Any]], QueryKeyValue]
    output: Place = _TO_PROJECTION
    module: str = "attn"
    norm: str = "norm1"
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Atoms:
    """The units of a block's second step: sparse codes of CRATE families, neurons of an MLP.

    Attributes:
        site: `Site.CODES` or `Site.NEURONS`.
        count: Number of atoms A.
        place: Place that their values pass.
        dictionary: Gives what a value of 1 of each atom adds to the residual stream, one column per
            atom.
        threshold: lambda of the white-box objective; `None` for an MLP.
        rectified: Whether an atom is at work only where its value is above zero. The values of a
            gated MLP may have any sign.
    """

    site: Site
    count: int
    place: Place
    dictionary: Callable[[], Float[Tensor, "D A"]]
    threshold: float | None = None
    rectified: bool = True


@dataclass(frozen=True, eq=False)
class Anatomy:
    """What can be read and changed in a block; the residual stream always can.

    Attributes:
        heads: `None` for a block that does not attend, or not in a known way.
        atoms: `None` for a block that has neither codes nor known neurons.
        others: Places beside the residual stream, the output of the heads, and the atoms.
    """

    heads: Heads | None = None
    atoms: Atoms | None = None
    others: Mapping[Site, Place] = field(default_factory=dict)

    @property
    def places(self) -> dict[Site, Place]:
        """Sites that are a tensor of the model itself, and so can be changed."""
        places = {Site.TOKENS_IN: Place("", enters=True), Site.TOKENS: Place(""), **self.others}
        if self.heads is not None:
            places[Site.HEADS] = self.heads.output._replace(
                units=self.heads.num_heads, width=self.heads.head_dim
            )
        if self.atoms is not None:
            places[self.atoms.site] = self.atoms.place._replace(units=self.atoms.count)
        return places

    @property
    def sites(self) -> tuple[Site, ...]:
        """Sites that can be recorded, in the order of `Site`."""
        derived = DERIVED if self.heads is not None else ()
        return tuple(site for site in Site if site in self.places or site in derived)


def anatomy_of(block: nn.Module) -> Anatomy:
    """The anatomy that a block declares, or what the tables know about its attention and MLP."""
    declared = getattr(block, "anatomy", None)
    if declared is not None:
        anatomy: Anatomy = declared()
        return anatomy
    # By exact type: a subclass may compute something else.
    if type(block) in BLOCKS:
        return BLOCKS[type(block)](block)
    attention, mlp = getattr(block, "attn", None), getattr(block, "mlp", None)
    heads_of, atoms_of = ATTENTIONS.get(type(attention)), MLPS.get(type(mlp))
    return Anatomy(
        heads_of(attention) if heads_of else None, atoms_of(block, mlp) if atoms_of else None
    )


def split_heads(
    projected: Float[Tensor, "B N C"], parts: int, head_dim: int
) -> tuple[Float[Tensor, "B K N d"], ...]:
    """Split the output of a projection into its parts, and these into heads.

    Args:
        projected: Parts one after the other, the heads of a part adjacent.
        parts: Number of parts: 3 for a projection to queries, keys and values.
        head_dim: Width d of a head.
    """
    # Not `reshape` with -1, which no empty batch can have.
    heads = projected.unflatten(-1, (parts, -1, head_dim)).permute(2, 0, 3, 1, 4)
    return tuple(heads.unbind(0))


def _joined(heads: Float[Tensor, "B K N d"]) -> Float[Tensor, "B N C"]:
    return heads.transpose(1, 2).flatten(2)


def attention_rows(
    query: Float[Tensor, "B K R d"],
    key: Float[Tensor, "B K N d"],
    terms: AttentionTerms | None = None,
    rows: slice = slice(None),
) -> Float[Tensor, "B K R N"]:
    """Attention of some tokens: softmax(q kT / sqrt(d)), with the terms of the block.

    Args:
        query: Queries of the tokens that attend.
        key: Keys of all tokens.
        terms: As `Activations.attention_terms` has them.
        rows: Numbers of the tokens that attend.
    """
    bias, subtracted, is_causal, along_axes = terms or AttentionTerms()
    if subtracted is not None:
        same = AttentionTerms(bias, is_causal=is_causal)
        sides = zip(query.chunk(2, dim=-1), key.chunk(2, dim=-1), strict=True)
        first, second = (attention_rows(*side, same, rows) for side in sides)
        return first - subtracted.to(second) * second
    scores: Tensor = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias[:, :, rows].to(scores)
    if is_causal:
        later = scores.new_ones(key.shape[-2], key.shape[-2]).triu(1)[rows].bool()
        scores = scores.masked_fill(later, -inf)
    if along_axes is not None:
        down, across = (side[:, :, rows].to(scores) for side in along_axes)
        scores = scores + (down[..., :, None] + across[..., None, :]).flatten(-2)
    return scores.softmax(dim=-1)


DERIVED: dict[Site, Derived] = {
    Site.QUERY: Derived(lambda heads: _joined(heads.query)),
    Site.KEY: Derived(lambda heads: _joined(heads.key)),
    Site.VALUE: Derived(lambda heads: _joined(heads.value)),
    Site.ATTENTION: Derived(QueryKeyValue.attention_of, is_masked=True),
    Site.CLS_ATTENTION: Derived(
        lambda heads: heads.attention_of(slice(1))[:, :, 0], is_masked=True
    ),
}
"""Sites of every block that has heads."""

BLOCKS: dict[type, Callable[[Any], Anatomy]] = {}
"""Anatomy of blocks whose attention or MLP is no module of its own, by type of the block."""

ATTENTIONS: dict[type, Callable[[Any], Heads]] = {}
"""Heads of attention modules, by type; called with the module at `attn`."""

MLPS: dict[type, Callable[[Any, Any], Atoms]] = {}
"""Neurons of MLPs, by type; called with the block and its MLP at `mlp`."""
