"""The places inside a block that can be read, by name.

Shapes: B images, N tokens (prefix tokens first, then patches row by row), K heads, D embed dim.
"""

from __future__ import annotations

from enum import Enum

from timm.layers import Attention
from torch import nn

from crate_interp.errors import InputError
from crate_interp.models.subspace import SubspaceAttention

__all__ = [
    "ATTENTION_SITES",
    "PROJECTION_SITES",
    "Site",
    "available_sites",
    "blocks_of",
    "default_feature",
]


class Site(str, Enum):
    """A place inside a block whose tensor can be recorded."""

    QUERY = "query"
    """(B, N, D) queries as attention uses them, heads adjacent; normalised where a model does."""
    KEY = "key"
    """(B, N, D) keys as attention uses them, heads adjacent."""
    VALUE = "value"
    """(B, N, D) values, heads adjacent."""
    SUBSPACE = "subspace"
    """(B, N, D) the shared projection U(LN(z)) of CRATE families: query, key and value at once."""
    ATTENTION = "attention"
    """(B, K, N, N) attention after the softmax; each row sums to one. Quadratic memory."""
    CLS_ATTENTION = "cls_attention"
    """(B, K, N) the class token's row of ATTENTION, computed alone."""
    TOKENS_IN = "tokens_in"
    """(B, N, D) the residual stream entering the block."""
    TOKENS = "tokens"
    """(B, N, D) the residual stream leaving the block."""
    CODES = "codes"
    """Sparse codes: (B, N, 4D) ODL's a2 in CRATE-alpha, (B, N, D) ISTA's output in CRATE."""

    @classmethod
    def _missing_(cls, value: object) -> Site | None:
        name = str(value).lower()
        return next((site for site in cls if site.value == name), None)


ATTENTION_SITES = frozenset({Site.ATTENTION, Site.CLS_ATTENTION})
PROJECTION_SITES = frozenset({Site.QUERY, Site.KEY, Site.VALUE, Site.SUBSPACE}) | ATTENTION_SITES


def blocks_of(model: nn.Module) -> nn.Sequential | nn.ModuleList:
    """The blocks of a timm-style vision transformer.

    Raises:
        InputError: The model has none.
    """
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, (nn.Sequential, nn.ModuleList)) or not hasattr(model, "patch_embed"):
        raise InputError(
            f"expected a vision transformer with `patch_embed` and `blocks`, found "
            f"{type(model).__name__}; of a model of two towers, pass the vision tower"
        )
    return blocks


def available_sites(model: nn.Module, block: int = -1) -> tuple[Site, ...]:
    """The sites that can be recorded at one block of `model`, in the order of `Site`.

    Raises:
        InputError: The model has no such block, or no blocks.
    """
    blocks = blocks_of(model)
    if not -len(blocks) <= block < len(blocks):
        raise InputError(
            f"block {block} is out of range: the model has blocks 0 to {len(blocks) - 1}"
        )
    module = blocks[block]
    sites = {Site.TOKENS_IN, Site.TOKENS}
    attention = getattr(module, "attn", None)
    # Only these two classes: a subclass may compute its attention otherwise.
    if type(attention) in (Attention, SubspaceAttention):
        sites |= {Site.QUERY, Site.KEY, Site.VALUE, Site.ATTENTION}
        if getattr(model, "cls_token", None) is not None:
            sites.add(Site.CLS_ATTENTION)
        if isinstance(attention, SubspaceAttention):
            sites.add(Site.SUBSPACE)
    if isinstance(getattr(getattr(module, "mlp", None), "codes", None), nn.Module):
        sites.add(Site.CODES)
    return tuple(site for site in Site if site in sites)


def default_feature(model: nn.Module, block: int = -1) -> Site:
    """What the papers compare patches by: CRATE's shared subspace projection, otherwise the keys.

    Raises:
        InputError: As `available_sites`.
    """
    return Site.SUBSPACE if Site.SUBSPACE in available_sites(model, block) else Site.KEY
