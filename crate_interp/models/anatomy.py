"""Anatomy of a block of a vision transformer: what can be read and changed in it.

A block has a method `anatomy`; blocks of timm are described by the tables `ATTENTIONS` and `MLPS`,
by the exact type of their parts. Everything that looks into a model asks `anatomy_of`, and knows no
class of a block.

Shapes: B images, N tokens (prefix tokens first, then patches row by row), K heads, d head dim,
D embed dim, A atoms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import Attention, AttentionRope, GluMlp, Mlp, SwiGLU, apply_rot_embed_cat
from timm.models.eva import EvaAttention
from torch import Tensor, nn

__all__ = [
    "ATTENTIONS",
    "DERIVED",
    "MLPS",
    "Anatomy",
    "Atoms",
    "Derived",
    "Heads",
    "Place",
    "QueryKeyValue",
    "Site",
    "anatomy_of",
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
    """(B, K, N, N) attention after the softmax; each row sums to one. Quadratic memory."""
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
    """(B, N, A) activations of the MLP of timm's blocks, gated where it has gates: what its second
    layer reads. CRATE families have none."""

    @classmethod
    def _missing_(cls, value: object) -> Site | None:
        name = str(value).lower()
        return next((site for site in cls if site.value == name), None)


class Place(NamedTuple):
    """A tensor of a block that can be recorded and changed.

    Attributes:
        path: Submodule of the block; empty for the block itself.
        enters: Whether the tensor is the first argument of the submodule; otherwise its output.
        units: Number of heads, atoms or channels that the last dimension consists of; `None` for
            the D channels of the residual stream.
        width: Number of adjacent channels per unit.
    """

    path: str
    enters: bool = False
    units: int | None = None
    width: int = 1


_TO_PROJECTION = Place("attn.proj", enters=True)


class QueryKeyValue(NamedTuple):
    """Queries, keys and values of attention, normalised and rotated as the block does it."""

    query: Float[Tensor, "B K N d"]
    key: Float[Tensor, "B K N d"]
    value: Float[Tensor, "B K N d"]


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
    """Heads of a block, which attends by softmax(q kT / sqrt(d)) v per head.

    Attributes:
        num_heads: Number of heads K.
        head_dim: Width d of a head.
        source: Tensor that queries, keys and values are made from.
        split: Makes queries, keys and values from that tensor and the keyword arguments of the
            submodule that it enters or leaves. A factor other than 1 / sqrt(d) is in the queries.
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
    attention, mlp = getattr(block, "attn", None), getattr(block, "mlp", None)
    # By exact type: a subclass may compute something else.
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


def _attention_rows(
    query: Float[Tensor, "B K R d"], key: Float[Tensor, "B K N d"]
) -> Float[Tensor, "B K R N"]:
    scores: Tensor = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    return scores.softmax(dim=-1)


DERIVED: dict[Site, Derived] = {
    Site.QUERY: Derived(lambda heads: _joined(heads.query)),
    Site.KEY: Derived(lambda heads: _joined(heads.key)),
    Site.VALUE: Derived(lambda heads: _joined(heads.value)),
    Site.ATTENTION: Derived(lambda heads: _attention_rows(heads.query, heads.key), is_masked=True),
    Site.CLS_ATTENTION: Derived(
        lambda heads: _attention_rows(heads.query[:, :, :1], heads.key)[:, :, 0], is_masked=True
    ),
}
"""Sites of every block that has heads."""


def _plain_heads(attention: Any) -> Heads:
    """Heads of timm's `Attention`, which has one projection to queries, keys and values."""

    def split(projected: Tensor, _: Mapping[str, Any]) -> QueryKeyValue:
        query, key, value = split_heads(projected, 3, attention.head_dim)
        return QueryKeyValue(attention.q_norm(query), attention.k_norm(key), value)

    return Heads(attention.num_heads, attention.head_dim, Place("attn.qkv"), split)


def _rotary_heads(attention: Any) -> Heads:
    """Heads of `EvaAttention` and `AttentionRope`, which rotate by the position of a patch.

    They have one projection or three, and may use the weight of one without calling the module, so
    that no hook sees its output: the tokens that enter are projected a second time.
    """

    def split(tokens: Tensor, arguments: Mapping[str, Any]) -> QueryKeyValue:
        query, key, value = _projected_again(attention, tokens)
        query, key = attention.q_norm(query), attention.k_norm(key)
        rope = arguments.get("rope")
        if rope is not None:
            query, key = (_rotated(attention, side, rope).type_as(value) for side in (query, key))
        groups = getattr(attention, "num_kv_groups", 1)  # heads that share a key and a value
        if groups > 1:
            key, value = (side.repeat_interleave(groups, dim=1) for side in (key, value))
        return QueryKeyValue(query, key, value)

    source = Place("attn", enters=True)
    return Heads(attention.num_heads, attention.head_dim, source, split, arguments=("rope",))


def _projected_again(attention: Any, tokens: Float[Tensor, "B N D"]) -> tuple[Tensor, ...]:
    if attention.qkv is None:
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        return tuple(split_heads(one(tokens), 1, attention.head_dim)[0] for one in projections)
    bias = attention.qkv.bias
    if getattr(attention, "q_bias", None) is not None:
        bias = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
    projected = F.linear(tokens, attention.qkv.weight, bias)
    return split_heads(projected, 3, attention.head_dim)


def _rotated(attention: Any, heads: Float[Tensor, "B K N d"], rope: Tensor) -> Tensor:
    prefix = attention.num_prefix_tokens
    half = getattr(attention, "rotate_half", False)  # older releases of timm have one way only
    patches = apply_rot_embed_cat(heads[:, :, prefix:], rope, half=half)
    return torch.cat([heads[:, :, :prefix], patches], dim=2)


def _neurons(block: Any, mlp: Any) -> Atoms:
    """Neurons of an MLP whose last layer is `fc2`, scaled where the block has LayerScale."""

    def dictionary() -> Float[Tensor, "D A"]:
        weight: Tensor = mlp.fc2.weight.detach()
        scale = getattr(getattr(block, "ls2", None), "gamma", getattr(block, "gamma_2", None))
        return weight if scale is None else scale.detach()[:, None] * weight

    count, place = mlp.fc2.in_features, Place("mlp.fc2", enters=True)
    return Atoms(Site.NEURONS, count, place, dictionary, rectified=type(mlp) is Mlp)


ATTENTIONS: dict[type, Callable[[Any], Heads]] = {
    Attention: _plain_heads,
    AttentionRope: _rotary_heads,
    EvaAttention: _rotary_heads,
}
"""Heads of timm's attention modules, by type; called with the module at `attn`."""

MLPS: dict[type, Callable[[Any, Any], Atoms]] = {Mlp: _neurons, GluMlp: _neurons, SwiGLU: _neurons}
"""Neurons of timm's MLPs, by type; called with the block and its MLP at `mlp`."""
