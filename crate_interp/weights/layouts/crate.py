"""CRATE's releases: ImageNet's, and the segmentation demo's with a layer before the classifier."""

from crate_interp.weights.layout import Layout, Rule, register_layout
from crate_interp.weights.layouts.operations import OFFICIAL

_PATCHES = (
    Rule("to_patch_embedding.1.{p}", "patch_embed.proj.norm.{p}"),
    Rule("to_patch_embedding.2.{p}", "patch_embed.proj.linear.{p}"),
    Rule("to_patch_embedding.3.{p}", "patch_embed.norm.{p}"),
)

register_layout(
    Layout(
        "CRATE PyTorch with a layer before the classifier",
        ("to_patch_embedding.1.weight", "head.weight"),
        (
            *_PATCHES,
            *OFFICIAL[:-1],
            Rule("mlp_head.1.{p}", "pre_logits.{p}"),
            Rule("head.{p}", "head.{p}"),
        ),
    )
)
register_layout(Layout("CRATE PyTorch", ("to_patch_embedding.1.weight",), (*_PATCHES, *OFFICIAL)))
