"""Multi-head subspace self-attention (MSSA), the attention step of every CRATE family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import inf
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import Attention, DropPath, LayerNorm, use_fused_attn
from torch import Tensor, nn

from crate_interp.errors import InputError, shorten
from crate_interp.models.anatomy import (
    ATTENTIONS,
    Anatomy,
    Atoms,
    Heads,
    Place,
    QueryKeyValue,
    Site,
    split_heads,
)
from crate_interp.structures import AttentionTerms

__all__ = ["SubspaceAttention", "SubspaceBlock", "choose", "place_of"]

# Options of timm's VisionTransformer that would change what a block computes and that no CRATE has.
UNSUPPORTED = ("qk_norm", "init_values", "scale_attn_norm", "scale_mlp_norm")


def place_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Pick `device` and `dtype` of the parameters from a block's arguments."""
    return {name: arguments.get(name) for name in ("device", "dtype")}


def choose(argument: str, name: str, table: Mapping[str, Any]) -> Any:
    """Give the entry of a table that an argument names.

    Raises:
        InputError: There is no entry of this name.
    """
    if name not in table:
        raise InputError(f"{argument}: expected {' or '.join(table)}, found {shorten(name)}")
    return table[name]


class SubspaceAttention(nn.Module):
    """Self-attention whose query, key and value are one projection onto the heads' subspaces.

    With w = U x split into heads, out = proj(softmax(w wT / sqrt(d)) w).

    Args:
        dim: Width D of the tokens.
        num_heads: Number K of subspaces; divides D.
        proj_bias: Whether the output projection has a bias (CRATE has, CRATE-alpha has not).
        is_causal: Whether a token attends to itself and those before it alone.
        attn_drop: Dropout rate of the attention map.
        proj_drop: Dropout rate of the output.
        **place: `device` and `dtype` of the parameters.

    Attributes:
        qkv: The shared projection U, (D, D); its output is the subspace tokens, heads adjacent.
        fused_attn: Use PyTorch's fused attention; may be changed on a live module.

    Raises:
        InputError: D is not a multiple of K.

    Reference:
        White-Box Transformers via Sparse Rate Reduction, arXiv 2306.01129, section 2.3.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        proj_bias: bool,
        is_causal: bool = False,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        **place: Any,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise InputError(f"embed_dim {dim} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.scale = self.head_dim**-0.5
        self.is_causal = is_causal
        self.fused_attn = bool(use_fused_attn())
        self.qkv = nn.Linear(dim, dim, bias=False, **place)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim, bias=proj_bias, **place)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """From normalised tokens to what the attention step adds to the residual stream."""
        subspace = self.qkv(x).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
        if self.fused_attn:  # (B, K, N, d)
            dropout = self.attn_drop.p if self.training else 0.0
            causal: Any = {"is_causal": True} if self.is_causal else {}
            out = F.scaled_dot_product_attention(
                subspace, subspace, subspace, dropout_p=dropout, **causal
            )
        else:
            attention = (subspace * self.scale) @ subspace.transpose(-2, -1)
            if self.is_causal:
                attention = attention + attention.new_full(attention.shape[-2:], -inf).triu(1)
            out = self.attn_drop(attention.softmax(dim=-1)) @ subspace
        added: Tensor = self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))
        return added


class _CausalAttention(Attention):
    """A ViT's attention in which a token attends to itself and those before it alone."""

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = True
    ) -> Float[Tensor, "B N D"]:
        attended: Tensor = super().forward(x, attn_mask, is_causal)
        return attended


def _multi_head_attention(
    dim: int, num_heads: int, *, is_causal: bool = False, **arguments: Any
) -> Attention:
    """Make a ViT's attention as CRATE's code would have it: no bias of queries, keys and values."""
    if dim % num_heads:
        raise InputError(f"embed_dim {dim} is not a multiple of num_heads {num_heads}")
    kind = _CausalAttention if is_causal else Attention
    return kind(dim, num_heads, qkv_bias=False, **arguments)


def _causal_terms() -> AttentionTerms:
    return AttentionTerms(is_causal=True)


ATTENTION_STEPS = {"mssa": SubspaceAttention, "mhsa": _multi_head_attention}


class SubspaceBlock(nn.Module):
    """Common part of the blocks of all CRATE families: z_half = z + MSSA(LN(z)), and a second norm.

    Args:
        dim: Width D of the tokens.
        num_heads: Number of subspaces.
        has_bias: Whether the output projection of attention has a bias.
        attention: `mssa`, or `mhsa`: a ViT's attention in its place, with queries, keys and values
            of their own.
        is_causal: Whether a token attends to itself and those before it alone.
        drop_path: Rate of stochastic depth, for each residual branch.
        norm_layer: Makes the normalisation.
        **arguments: Dropout rates `attn_drop` of the attention map and `proj_drop` of its output,
            `device` and `dtype` of the parameters, and what else timm passes to a block.
            `act_layer`, `mlp_layer`, ..., more with each release, say how an ordinary block is
            built, are always passed, and mean nothing here.

    Raises:
        InputError: An option of timm's blocks that CRATE does not have is set, or there is no such
            attention.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        has_bias: bool,
        attention: str = "mssa",
        is_causal: bool = False,
        drop_path: float = 0.0,
        norm_layer: Any = LayerNorm,
        **arguments: Any,
    ) -> None:
        super().__init__()
        for name in UNSUPPORTED:
            if arguments.get(name):
                raise InputError(f"{name}={arguments[name]!r}: a CRATE block has no such option")
        attention_step = choose("attention", attention, ATTENTION_STEPS)
        place = place_of(arguments)
        rates = {name: arguments.get(name, 0.0) for name in ("attn_drop", "proj_drop")}
        self.is_causal = is_causal
        self.norm1 = norm_layer(dim, **place)
        options: Any = {"proj_bias": has_bias, "is_causal": is_causal, **rates}
        self.attn = attention_step(dim, num_heads, **options, **place)
        self.drop_path1 = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = norm_layer(dim, **place)

    def attend(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """From the tokens entering the block to z_half."""
        half: Tensor = x + self.drop_path1(self.attn(self.norm1(x)))
        return half

    def anatomy_with(self, atoms: Atoms) -> Anatomy:
        """Say what can be read and changed in a block that has these sparse codes or neurons."""
        terms = _causal_terms if self.is_causal else None
        if isinstance(self.attn, Attention):
            heads = ATTENTIONS[Attention](self.attn)

            def split_with_terms(projected: Tensor, arguments: Mapping[str, Any]) -> QueryKeyValue:
                return heads.split(projected, arguments)._replace(terms=terms)

            return Anatomy(replace(heads, split=split_with_terms), atoms)

        def split(subspace: Tensor, _: Mapping[str, Any]) -> QueryKeyValue:
            (projected,) = split_heads(subspace, 1, self.attn.head_dim)
            return QueryKeyValue(projected, projected, projected, terms)

        num_heads, head_dim = self.attn.num_heads, self.attn.head_dim
        source = Place("attn.qkv", units=num_heads, width=head_dim)
        return Anatomy(Heads(num_heads, head_dim, source, split), atoms, {Site.SUBSPACE: source})
