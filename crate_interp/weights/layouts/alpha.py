"""CRATE-alpha's releases: JAX arrays, and PyTorch weights converted from them."""

from crate_interp.weights.layout import Layout, Rule, register_layout
from crate_interp.weights.layouts.operations import OFFICIAL, of_dimensions, transposed

_BLOCK = "Transformer/encoderblock_{i}/"
_MSSA = _BLOCK + "MultiHeadDotProductSubspaceAttention_0/"
_CONVOLUTION = of_dimensions(4, lambda kernel: kernel.permute(3, 2, 0, 1))

register_layout(
    Layout(
        "CRATE-alpha JAX",
        (_MSSA + "proj/kernel",),
        (
            Rule("cls", "cls_token"),
            Rule("pos_embedding", "pos_embed"),
            Rule("embedding/kernel", "patch_embed.proj.weight", _CONVOLUTION),
            Rule("embedding/bias", "patch_embed.proj.bias"),
            Rule(_BLOCK + "LayerNorm_0/scale", "blocks.{i}.norm1.weight"),
            Rule(_BLOCK + "LayerNorm_0/bias", "blocks.{i}.norm1.bias"),
            Rule(_MSSA + "proj/kernel", "blocks.{i}.attn.qkv.weight", transposed(3, (1, 2))),
            Rule(_MSSA + "out/kernel", "blocks.{i}.attn.proj.weight", transposed(3, (0, 1))),
            Rule(_BLOCK + "LayerNorm_1/scale", "blocks.{i}.norm2.weight"),
            Rule(_BLOCK + "LayerNorm_1/bias", "blocks.{i}.norm2.bias"),
            Rule(_BLOCK + "OvercompleteISTABlock_0/D", "blocks.{i}.mlp.D"),
            Rule(_BLOCK + "OvercompleteISTABlock_0/D1", "blocks.{i}.mlp.D1"),
            Rule("encoder_norm/scale", "fc_norm.weight"),
            Rule("encoder_norm/bias", "fc_norm.bias"),
            Rule("head/kernel", "head.weight", transposed(2)),
            Rule("head/bias", "head.bias"),
        ),
        heads=_MSSA + "proj/kernel",
    )
)
register_layout(
    Layout(
        "CRATE-alpha PyTorch",
        ("transformer.layers.{i}.1.fn.D1",),
        (*OFFICIAL, Rule("conv1.{p}", "patch_embed.proj.{p}")),
    )
)
