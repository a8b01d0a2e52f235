"""Multi-head subspace self-attention (MSSA), the attention step of every CRATE family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import use_fused_attn
from torch import Tensor, nn

from crate_interp.errors import InputError
from crate_interp.models.anatomy import (
    Anatomy,
    Atoms,
    Heads,
    Place,
    QueryKeyValue,
    Site,
    split_heads,
)

__all__ = ["SubspaceAttention", "anatomy_of_crate", "refuse_arguments"]

# Options of timm's VisionTransformer that would change what a block computes and that no CRATE has.
UNSUPPORTED = ("qk_norm", "init_values", "scale_attn_norm", "scale_mlp_norm")


def refuse_arguments(arguments: dict[str, Any]) -> None:
    """Refuse the block options of timm that CRATE families cannot honour, when one is set.

    The remaining ones (`act_layer`, `mlp_layer`, ..., more with each release of timm) say how an
    ordinary block is built, are always passed, and mean nothing here.

    Raises:
        InputError: `qk_norm`, `init_values` or a scale norm is asked for.
    """
    for name in UNSUPPORTED:
        if arguments.get(name):
            raise InputError(f"{name}={arguments[name]!r}: a CRATE block has no such option")


class SubspaceAttention(nn.Module):
    """Self-attention whose query, key and value are one projection onto the heads' subspaces.

    With w = U x split into heads, out = proj(softmax(w wT / sqrt(d)) w).

    Args:
        dim: Width D of the tokens.
        num_heads: Number K of subspaces; divides D.
        proj_bias: Whether the output projection has a bias (CRATE has, CRATE-alpha has not).
        attn_drop: Dropout rate of the attention map.
        proj_drop: Dropout rate of the output.
        device: Where the parameters are made.
        dtype: Type of the parameters.

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
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise InputError(f"embed_dim {dim} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.scale = self.head_dim**-0.5
        self.fused_attn = bool(use_fused_attn())
        self.qkv = nn.Linear(dim, dim, bias=False, device=device, dtype=dtype)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim, bias=proj_bias, device=device, dtype=dtype)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Attend within each head's subspace.

        Args:
            x: Normalised tokens.

        Returns:
            What the attention step adds to the residual stream.
        """
        subspace = self.qkv(x).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
        if self.fused_attn:  # (B, K, N, d)
            dropout = self.attn_drop.p if self.training else 0.0
            out = F.scaled_dot_product_attention(subspace, subspace, subspace, dropout_p=dropout)
        else:
            attention = (subspace * self.scale) @ subspace.transpose(-2, -1)
            out = self.attn_drop(attention.softmax(dim=-1)) @ subspace
        added: Tensor = self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))
        return added


def anatomy_of_crate(attention: SubspaceAttention, atoms: Atoms) -> Anatomy:
    """Anatomy of a block that attends with `SubspaceAttention` at `attn`.

    Args:
        attention: Attention of the block.
        atoms: Sparse codes of the block.
    """

    def split(subspace: Tensor, _: Mapping[str, Any]) -> QueryKeyValue:
        (heads,) = split_heads(subspace, 1, attention.head_dim)
        return QueryKeyValue(heads, heads, heads)

    source = Place("attn.qkv", units=attention.num_heads, width=attention.head_dim)
    heads = Heads(attention.num_heads, attention.head_dim, source, split)
    return Anatomy(heads, atoms, {Site.SUBSPACE: source})
