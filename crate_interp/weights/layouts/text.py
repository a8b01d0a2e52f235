"""The causal CRATE's release, with one dictionary of D or of 4 D atoms per block."""

from __future__ import annotations

from crate_interp.weights.layout import Layout, Rule, register_layout
from crate_interp.weights.layouts.operations import transposed

__all__ = ["TEXT_LAYOUTS"]

_BLOCK = "transformer.h.{i}."
_COMMON = (
    Rule("transformer.wte.weight", "token_embedding.weight"),
    Rule("transformer.wpe.weight", "pos_embed"),
    Rule(_BLOCK + "prenorm_1.{p}", "blocks.{i}.norm1.{p}"),
    Rule(_BLOCK + "attn.c_attn.weight", "blocks.{i}.attn.qkv.weight"),
    Rule(_BLOCK + "attn.c_proj.{p}", "blocks.{i}.attn.proj.{p}"),
    Rule(_BLOCK + "prenorm_2.{p}", "blocks.{i}.norm2.{p}"),
)
_ASIDE = (r"lm_head\.weight", r"transformer\.h\.\d+\.attn\.bias")  # the embedding; a mask
_MARK = _BLOCK + "ista.weight"

# The kind of blocks of `TextTransformer` that a layout has.
TEXT_LAYOUTS: dict[str, Layout] = {
    "crate": register_layout(
        Layout(
            "causal CRATE",
            (_MARK,),
            (*_COMMON, Rule(_MARK, "blocks.{i}.mlp.weight")),
            aside=_ASIDE,
        )
    ),
    "overcomplete": register_layout(
        Layout(
            "causal CRATE, overcomplete",
            (_MARK, "transformer.ln_f.weight"),
            (
                *_COMMON,
                Rule(_MARK, "blocks.{i}.mlp.D", transposed(2)),
                Rule("transformer.ln_f.{p}", "norm.{p}"),
            ),
            aside=_ASIDE,
        )
    ),
}
