"""CRATE-MAE's release, encoder and decoder; and the decoder in our own files, beside the encoder.

Our own safetensors have the encoder's tensors under the names of the model, and the decoder's with
`decoder.` before them.
"""

from crate_interp.weights.layout import Layout, Rule, register_layout
from crate_interp.weights.layouts.operations import layer_rules

__all__ = ["OUR_DECODER", "OUR_PREFIX", "RELEASED_DECODER"]

register_layout(
    Layout(
        "CRATE-MAE",
        ("blocks.{i}.layers.0.0.fn.qkv.weight",),
        (
            Rule("cls_token", "cls_token"),
            # the released encoder adds the positions that are named the decoder's
            Rule("decoder_pos_embed", "pos_embed"),
            Rule("patch_embed.proj.{p}", "patch_embed.proj.{p}"),
            *layer_rules("blocks.{i}.layers.0"),
            Rule("norm.{p}", "norm.{p}"),
        ),
        aside=(r"pos_embed", r"mask_token", r"decoder_(embed|blocks|norm|pred)\..*"),
    )
)
RELEASED_DECODER = Layout(
    "decoder",
    (),
    (
        Rule("mask_token", "mask_token"),
        Rule("decoder_blocks.{i}.layers.0.0.norm.{p}", "blocks.{i}.norm1.{p}"),
        Rule("decoder_blocks.{i}.layers.0.0.fn.weight", "blocks.{i}.linear.weight"),
        Rule("decoder_blocks.{i}.layers.0.1.norm.{p}", "blocks.{i}.norm2.{p}"),
        Rule("decoder_blocks.{i}.layers.0.1.fn.qkv.weight", "blocks.{i}.attn.qkv.weight"),
        Rule("decoder_blocks.{i}.layers.0.1.fn.to_out.0.{p}", "blocks.{i}.attn.proj.{p}"),
        Rule("decoder_norm.{p}", "norm.{p}"),
        Rule("decoder_pred.{p}", "pred.{p}"),
    ),
)
OUR_PREFIX = "decoder."
OUR_DECODER = Layout("decoder", (), (Rule(OUR_PREFIX + "{any}", "{any}"),))
