"""Anatomy of timm's blocks, by the exact type of the block, its attention and its MLP.

Shapes: as in `anatomy.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import Attention, AttentionRope, GluMlp, Mlp, SwiGLU, apply_rot_embed_cat
from timm.models import beit, eva, vision_transformer, vision_transformer_sam, vitamin
from timm.models.vision_transformer_relpos import RelPosAttention, ResPostRelPosBlock
from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.models.anatomy import (
    ATTENTIONS,
    BLOCKS,
    MLPS,
    Anatomy,
    Atoms,
    Heads,
    Place,
    QueryKeyValue,
    Site,
    split_heads,
)
from crate_interp.structures import AttentionTerms

__all__ = ["refuse_dictionary"]

# Blocks that normalise what attention and MLP write, not what they read.
_POST_NORM = (
    vision_transformer.ResPostBlock,
    ResPostRelPosBlock,
    eva.EvaBlockPostNorm,
)


def _plain_heads(attention: Any) -> Heads:
    """Heads of timm's `Attention`, which has one projection to queries, keys and values."""

    def split(projected: Tensor, _: Mapping[str, Any]) -> QueryKeyValue:
        query, key, value = split_heads(projected, 3, attention.head_dim)
        return QueryKeyValue(attention.q_norm(query), attention.k_norm(key), value)

    return Heads(attention.num_heads, attention.head_dim, Place("attn.qkv"), split)


def _relative_heads(attention: Any) -> Heads:
    """Heads of `RelPosAttention`, which adds a bias of relative positions, its own or a shared."""

    def split(tokens: Tensor, arguments: Mapping[str, Any]) -> QueryKeyValue:
        query, key, value = _projected_again(attention, tokens)
        own, shared = attention.rel_pos, arguments.get("shared_rel_pos")
        return QueryKeyValue(
            attention.q_norm(query),
            attention.k_norm(key),
            value,
            lambda: AttentionTerms(shared if own is None else own.get_bias()),
        )

    source, names = Place("attn", enters=True), ("shared_rel_pos",)
    return Heads(attention.num_heads, attention.head_dim, source, split, arguments=names)


def _beit_heads(attention: Any) -> Heads:
    """Heads of BEiT, which may add two biases of relative positions: its own and a shared one."""
    head_dim = attention.proj.in_features // attention.num_heads

    def split(tokens: Tensor, arguments: Mapping[str, Any]) -> QueryKeyValue:
        def terms() -> AttentionTerms:
            bias = arguments.get("shared_rel_pos_bias")
            if attention.relative_position_bias_table is not None:
                own = attention._get_rel_pos_bias()
                bias = own if bias is None else own + bias
            return AttentionTerms(bias)

        query, key, value = _projected_again(attention, tokens, head_dim)
        return QueryKeyValue(query, key, value, terms)

    source, names = Place("attn", enters=True), ("shared_rel_pos_bias",)
    return Heads(attention.num_heads, head_dim, source, split, arguments=names)


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


def _projected_again(
    attention: Any, tokens: Float[Tensor, "B N D"], head_dim: int | None = None
) -> tuple[Tensor, ...]:
    head_dim = head_dim or attention.head_dim
    if attention.qkv is None:
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        return tuple(split_heads(one(tokens), 1, head_dim)[0] for one in projections)
    bias = attention.qkv.bias
    if getattr(attention, "q_bias", None) is not None:
        bias = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
    projected = F.linear(tokens, attention.qkv.weight, bias)
    return split_heads(projected, 3, head_dim)


def _rotated(attention: Any, heads: Float[Tensor, "B K N d"], rope: Tensor) -> Tensor:
    prefix = attention.num_prefix_tokens
    half = getattr(attention, "rotate_half", False)  # older releases of timm have one way only
    patches = apply_rot_embed_cat(heads[:, :, prefix:], rope, half=half)
    return torch.cat([heads[:, :, :prefix], patches], dim=2)


def _differential_heads(attention: Any) -> Heads:
    """Heads of `DiffAttention`, each of which subtracts one map from another."""
    head_dim = 2 * attention.head_dim  # timm counts that of one map

    def split(projected: Tensor, _: Mapping[str, Any]) -> QueryKeyValue:
        return _two_maps(attention, *split_heads(projected, 3, head_dim))

    return Heads(attention.num_heads, head_dim, Place("attn.qkv"), split)


def _two_maps(attention: Any, query: Tensor, key: Tensor, value: Tensor) -> QueryKeyValue:
    query, key = (
        torch.cat([norm(half) for half in side.chunk(2, dim=-1)], dim=-1)
        for norm, side in ((attention.q_norm, query), (attention.k_norm, key))
    )
    return QueryKeyValue(
        query, key, value, lambda: AttentionTerms(subtracted=attention._compute_lambda().detach())
    )


def _neurons(block: Any, mlp: Any, last: str = "fc2") -> Atoms:
    """Neurons of an MLP, scaled where the block has LayerScale.

    Args:
        block: The block.
        mlp: Its MLP.
        last: Name of the last layer.
    """
    layer = getattr(mlp, last)

    def dictionary() -> Float[Tensor, "D A"]:
        scale = getattr(getattr(block, "ls2", None), "gamma", getattr(block, "gamma_2", None))
        return _scaled(layer.weight, scale)

    return Atoms(
        Site.NEURONS,
        layer.in_features,
        Place(f"mlp.{last}", enters=True),
        refuse_dictionary if type(block) in _POST_NORM else dictionary,
        rectified=type(mlp) is Mlp,
    )


def refuse_dictionary() -> NoReturn:
    """Say why a block that normalises what its MLP writes has no dictionary of neurons."""
    raise InputError(
        "expected a block that adds what its MLP writes, found one that normalises it first: a "
        "neuron adds no vector of its own"
    )


def _scaled(weight: Float[Tensor, "D A"], scale: Float[Tensor, " D"] | None) -> Tensor:
    return weight.detach() if scale is None else scale.detach()[:, None] * weight.detach()


def _parallel_block(block: Any) -> Anatomy:
    """A `ParallelScalingBlock`: one projection for attention and MLP, which run side by side."""
    head_dim = block.in_split[1] // block.num_heads  # of both maps, if attention is differential

    def split(projected: Tensor, _: Mapping[str, Any]) -> QueryKeyValue:
        parts = torch.split(projected, block.in_split, dim=-1)[1:]
        query, key, value = (split_heads(part, 1, head_dim)[0] for part in parts)
        if hasattr(block, "sub_norm"):
            return _two_maps(block, query, key, value)
        return QueryKeyValue(block.q_norm(query), block.k_norm(key), value)

    def dictionary() -> Float[Tensor, "D A"]:
        scale = getattr(block.ls, "gamma", None)
        return _scaled(writing.weight[:, neurons.start :], scale)

    width, count = block.in_split[1], block.in_split[0]
    if getattr(block, "out_proj", None) is not None:  # heads first, then neurons
        output, neurons = (Place("out_proj", enters=True, start=first) for first in (0, width))
        writing = block.out_proj
    else:
        output, neurons = (Place(f"{name}_out_proj", enters=True) for name in ("attn", "mlp"))
        writing = block.mlp_out_proj
    heads = Heads(
        block.num_heads,
        head_dim,
        Place("in_proj"),
        split,
        output,
        module="",
        norm="in_norm",
    )
    return Anatomy(heads, Atoms(Site.NEURONS, count, neurons, dictionary))


def _sam_block(block: Any) -> Anatomy:
    """A block of SAM; one that attends within windows has no attention between all patches."""
    attention, neurons = block.attn, MLPS.get(type(block.mlp))
    atoms = neurons(block, block.mlp) if neurons else None
    if block.window_size or attention.rope is not None:
        return Anatomy(atoms=atoms)

    def split(grid: Float[Tensor, "B h w D"], _: Mapping[str, Any]) -> QueryKeyValue:
        query, key, value = _projected_again(attention, grid.flatten(1, 2))
        query, key = attention.q_norm(query), attention.k_norm(key)
        return QueryKeyValue(
            query,
            key,
            value,
            partial(_along_axes, attention, query, (grid.shape[1], grid.shape[2])),
        )

    source = Place("attn", enters=True)
    return Anatomy(Heads(attention.num_heads, attention.head_dim, source, split), atoms)


def _along_axes(attention: Any, query: Tensor, grid_hw: tuple[int, int]) -> AttentionTerms:
    """Relative positions of SAM: a query's product with the vectors of each row and column."""
    if not attention.use_rel_pos:
        return AttentionTerms()
    down, across = (
        vision_transformer_sam.get_rel_pos(size, size, vectors).to(query)
        for size, vectors in zip(grid_hw, (attention.rel_pos_h, attention.rel_pos_w), strict=True)
    )
    on_grid = query.unflatten(2, grid_hw)
    rows = torch.einsum("bkhwd,hyd->bkhwy", on_grid, down).flatten(2, 3)
    columns = torch.einsum("bkhwd,wxd->bkhwx", on_grid, across).flatten(2, 3)
    return AttentionTerms(along_axes=(rows, columns))


def _block_of_parallel_things(block: Any) -> Anatomy:
    """A `ParallelThingsBlock`: several attentions side by side, then several MLPs."""
    attentions = [one.attn for one in block.attns]
    mlps = [one.mlp for one in block.ffns]
    if {type(one) for one in attentions} != {Attention} or {type(one) for one in mlps} != {Mlp}:
        return Anatomy()

    def split(tokens: Tensor, _: Mapping[str, Any]) -> QueryKeyValue:
        queries, keys, values = [], [], []
        for one in block.attns:
            query, key, value = _projected_again(one.attn, one.norm(tokens))
            queries.append(one.attn.q_norm(query))
            keys.append(one.attn.k_norm(key))
            values.append(value)
        return QueryKeyValue(torch.cat(queries, 1), torch.cat(keys, 1), torch.cat(values, 1))

    def dictionary() -> Float[Tensor, "D A"]:
        scaled = [_scaled(one.mlp.fc2.weight, getattr(one.ls, "gamma", None)) for one in block.ffns]
        return torch.cat(scaled, dim=1)

    output, *outputs = (f"attns.{number}.attn.proj" for number in range(len(attentions)))
    neurons, *others = (f"ffns.{number}.mlp.fc2" for number in range(len(mlps)))
    heads = Heads(
        sum(one.num_heads for one in attentions),
        attentions[0].head_dim,
        Place("", enters=True),
        split,
        Place(output, enters=True, others=tuple(outputs)),
        module="",
        norm="attns.0.norm",
    )
    count, place = sum(one.fc2.in_features for one in mlps), Place(neurons, True, others=(*others,))
    return Anatomy(heads, Atoms(Site.NEURONS, count, place, dictionary))


ATTENTIONS |= {
    Attention: _plain_heads,
    AttentionRope: _rotary_heads,
    beit.Attention: _beit_heads,
    eva.EvaAttention: _rotary_heads,
    RelPosAttention: _relative_heads,
}
MLPS |= {
    Mlp: _neurons,
    GluMlp: _neurons,
    SwiGLU: _neurons,
    vitamin.GeGluMlp: partial(_neurons, last="w2"),
}
BLOCKS |= {
    vision_transformer.ParallelScalingBlock: _parallel_block,
    vision_transformer.ParallelThingsBlock: _block_of_parallel_things,
    vision_transformer_sam.Block: _sam_block,
}
if hasattr(vision_transformer, "DiffAttention"):  # not in older releases of timm
    ATTENTIONS[vision_transformer.DiffAttention] = _differential_heads
    BLOCKS[vision_transformer.DiffParallelScalingBlock] = _parallel_block
