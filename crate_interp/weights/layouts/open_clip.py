"""CRATE-alpha-CLIPA's release, under OpenCLIP's keys; and the text tower in our own files.

Our own safetensors have the vision tower's tensors under the names of the model, and the text
tower's with `text.` before them.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from crate_interp.errors import CheckpointError
from crate_interp.weights.layout import Layout, Rule, register_layout
from crate_interp.weights.layouts.operations import transposed

__all__ = ["CLIP_TEXT_TOWER", "OUR_TEXT_PREFIX", "OUR_TEXT_TOWER", "TEXT_TOWER"]

_IMAGE_BLOCK = "visual.transformer.resblocks.{i}."
_TEXT_BLOCK = "transformer.resblocks.{i}."


def _one_third(stacked: Tensor) -> Tensor:
    """Query, key and value of a CLIPA tower, which must be the one shared projection."""
    if stacked.ndim < 1 or len(stacked) % 3:
        raise CheckpointError(f"expected 3 D rows, found shape {tuple(stacked.shape)}")
    query, key, value = stacked.chunk(3)
    if not (torch.equal(query, key) and torch.equal(query, value)):
        raise CheckpointError(
            "its thirds (query, key, value) differ, by up to "
            f"{max((query - key).abs().max().item(), (query - value).abs().max().item()):.3g}; "
            "CRATE has one projection for the three"
        )
    return query


register_layout(
    Layout(
        "CRATE-alpha-CLIPA",
        (_IMAGE_BLOCK + "mlp.c_fc",),
        (
            Rule("visual.class_embedding", "cls_token", lambda tensor: tensor[None, None]),
            Rule("visual.positional_embedding", "pos_embed", lambda tensor: tensor[None]),
            Rule("visual.conv1.weight", "patch_embed.proj.weight"),
            Rule(_IMAGE_BLOCK + "ln_1.{p}", "blocks.{i}.norm1.{p}"),
            Rule(_IMAGE_BLOCK + "attn.in_proj_weight", "blocks.{i}.attn.qkv.weight", _one_third),
            Rule(_IMAGE_BLOCK + "attn.out_proj.weight", "blocks.{i}.attn.proj.weight"),
            Rule(_IMAGE_BLOCK + "ln_2.{p}", "blocks.{i}.norm2.{p}"),
            Rule(_IMAGE_BLOCK + "mlp.c_fc", "blocks.{i}.mlp.D"),
            Rule(_IMAGE_BLOCK + "mlp.c_proj", "blocks.{i}.mlp.D1"),
            Rule("visual.ln_post.{p}", "fc_norm.{p}"),
            Rule("visual.proj", "head.weight", transposed(2)),
        ),
        aside=(
            r"positional_embedding|text_projection|logit_scale|(transformer|ln_final)\..*",
            r"token_embedding\..*",
        ),
        head_is_projection=True,
        bias_free_norms=True,
    )
)
TEXT_TOWER = Layout(
    "text tower",
    (),
    (
        Rule("token_embedding.weight", "token_embedding.weight"),
        Rule("positional_embedding", "pos_embed"),
        Rule(_TEXT_BLOCK + "ln_1.{p}", "blocks.{i}.norm1.{p}"),
        Rule(_TEXT_BLOCK + "attn.in_proj_weight", "blocks.{i}.attn.qkv.weight"),
        Rule(_TEXT_BLOCK + "attn.in_proj_bias", "blocks.{i}.attn.qkv.bias"),
        Rule(_TEXT_BLOCK + "attn.out_proj.{p}", "blocks.{i}.attn.proj.{p}"),
        Rule(_TEXT_BLOCK + "ln_2.{p}", "blocks.{i}.norm2.{p}"),
        Rule(_TEXT_BLOCK + "mlp.c_fc.{p}", "blocks.{i}.mlp.fc1.{p}"),
        Rule(_TEXT_BLOCK + "mlp.c_proj.{p}", "blocks.{i}.mlp.fc2.{p}"),
        Rule("ln_final.{p}", "norm.{p}"),
        Rule("text_projection", "projection.weight"),
    ),
    bias_free_norms=True,
    unset=("text_projection",),  # the release's code never sets it in an untrained model
)
CLIP_TEXT_TOWER = replace(
    TEXT_TOWER,
    rules=(*TEXT_TOWER.rules[:-1], Rule("text_projection", "projection.weight", transposed(2))),
    bias_free_norms=False,
    unset=(),
)
OUR_TEXT_PREFIX = "text."
OUR_TEXT_TOWER = Layout("text tower", (), (Rule(OUR_TEXT_PREFIX + "{any}", "{any}"),))
