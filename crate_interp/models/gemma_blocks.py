"""Anatomy of the blocks of Gemma 4's vision encoder, which only newer releases of timm have.

A block normalises what attention and MLP read and what they write. Attention normalises queries,
keys and values, rotates the first two by row and column, and multiplies them without a factor.

Shapes: as in `anatomy.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from timm import models as timm_models  # `timm.models` is not there yet when timm is half imported
from torch import Tensor

from crate_interp.models.anatomy import (
    BLOCKS,
    Anatomy,
    Atoms,
    Heads,
    Place,
    QueryKeyValue,
    Site,
    split_heads,
)
from crate_interp.models.timm_blocks import refuse_dictionary

__all__: list[str] = []

_ROTATION = ("rope_cos", "rope_sin")


def _gemma_block(rotate: Any, block: Any) -> Anatomy:
    attention, written = block.attn, block.mlp.down_proj
    head_dim, groups = attention.head_dim, attention.num_kv_groups

    def split(tokens: Tensor, arguments: Mapping[str, Any]) -> QueryKeyValue:
        layers = (attention.q_proj, attention.k_proj, attention.v_proj)
        query, key, value = (split_heads(layer(tokens), 1, head_dim)[0] for layer in layers)
        rotation = [arguments[name] for name in _ROTATION]
        query = rotate(attention.q_norm(query), *rotation, unsqueeze_dim=1)
        key = rotate(attention.k_norm(key), *rotation, unsqueeze_dim=1)
        value = attention.v_norm(value)
        if groups > 1:  # heads share a key and a value
            key, value = (side.repeat_interleave(groups, dim=1) for side in (key, value))
        return QueryKeyValue(query * head_dim**0.5, key, value)

    heads = Heads(
        attention.num_heads,
        head_dim,
        Place("attn", enters=True),
        split,
        Place("attn.o_proj", enters=True),
        arguments=_ROTATION,
    )
    neurons = Place("mlp.down_proj", enters=True)
    width = written.linear.in_features
    return Anatomy(heads, Atoms(Site.NEURONS, width, neurons, refuse_dictionary, rectified=False))


_gemma: Any = getattr(timm_models, "gemma4_vit", None)
if _gemma is not None:
    BLOCKS[_gemma.Gemma4Block] = partial(_gemma_block, _gemma.apply_multidimensional_rope)
