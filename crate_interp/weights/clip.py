"""Weight files of the whole CRATE-alpha-CLIPA, image and text towers."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from crate_interp.errors import CheckpointError, InputError
from crate_interp.models.clipa import CrateClip, TextTower
from crate_interp.models.crate_alpha import CrateAlpha
from crate_interp.weights.files import Checkpoint, read_checkpoint
from crate_interp.weights.fit import load_part
from crate_interp.weights.layouts import Layout, Rule
from crate_interp.weights.load import load_backbone, resolve_weights

__all__ = ["load_clip"]

_BLOCK = "transformer.resblocks.{i}."
TEXT_TOWER = Layout(
    "text tower",
    (),
    (
        Rule("token_embedding.weight", "token_embedding.weight"),
        Rule("positional_embedding", "pos_embed"),
        Rule(_BLOCK + "ln_1.{p}", "blocks.{i}.norm1.{p}"),
        Rule(_BLOCK + "attn.in_proj_weight", "blocks.{i}.attn.qkv.weight"),
        Rule(_BLOCK + "attn.in_proj_bias", "blocks.{i}.attn.qkv.bias"),
        Rule(_BLOCK + "attn.out_proj.{p}", "blocks.{i}.attn.proj.{p}"),
        Rule(_BLOCK + "ln_2.{p}", "blocks.{i}.norm2.{p}"),
        Rule(_BLOCK + "mlp.c_fc.{p}", "blocks.{i}.mlp.fc1.{p}"),
        Rule(_BLOCK + "mlp.c_proj.{p}", "blocks.{i}.mlp.fc2.{p}"),
        Rule("ln_final.{p}", "norm.{p}"),
        Rule("text_projection", "projection.weight"),
    ),
    bias_free_norms=True,
)


def load_clip(
    name: str,
    weights: str | os.PathLike[str] | None = None,
    text_num_heads: int | None = None,
    *,
    allow_nonfinite: bool = False,
    **timm_arguments: Any,
) -> CrateClip:
    """Load CRATE-alpha-CLIPA with its text tower, whose sizes are read off the file.

    Args:
        name: A CLIPA model, as for `load_backbone`.
        weights: Its weight file in the official layout; `None` for the published weights.
        text_num_heads: Attention heads of the text tower; `None` for heads of 64 dimensions.
        allow_nonfinite: Take weights that are NaN or infinite, too. The text projection, which the
            release's code never sets in an untrained model, is taken anyway, with a warning.
        **timm_arguments: For the vision tower, as for `load_backbone`.

    Returns:
        The model in evaluation mode.

    Raises:
        CheckpointError: The weights cannot be had, read, or do not fit.
        InputError: The name is not that of a CLIPA model, or the heads do not divide the width.
    """
    visual = load_backbone(name, weights, allow_nonfinite=allow_nonfinite, **timm_arguments)
    if not isinstance(visual, CrateAlpha) or not visual.projection_head:
        raise InputError(f"{name}: expected a CRATE-alpha-CLIPA model")
    path = resolve_weights(name, weights)
    checkpoint = read_checkpoint(path, allow_nonfinite=allow_nonfinite)
    text = TextTower(**_text_sizes(checkpoint, text_num_heads))
    load_part(text, replace(checkpoint, told_of=("text_projection",)), TEXT_TOWER)
    model = CrateClip(visual, text)
    with torch.no_grad():
        model.logit_scale.copy_(_logit_scale(checkpoint))
    return model.eval()


def _logit_scale(checkpoint: Checkpoint) -> Tensor:
    scale = {"logit_scale": checkpoint.state_dict["logit_scale"]}
    try:
        checkpoint.check_numbers(scale)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.path}: {error}") from error
    return scale["logit_scale"]


def _text_sizes(checkpoint: Checkpoint, num_heads: int | None) -> dict[str, int]:
    weights = checkpoint.state_dict
    names = ("token_embedding.weight", "positional_embedding", "text_projection", "logit_scale")
    for name, dims in zip(names, (2, 2, 2, 0), strict=True):
        if name not in weights:
            raise CheckpointError(f"{checkpoint.path}: no text tower in it: {name} is missing")
        if weights[name].ndim != dims:
            shape = tuple(weights[name].shape)
            raise CheckpointError(
                f"{checkpoint.path}: {name}: expected {dims} dimensions, found shape {shape}"
            )
    found = (re.match(r"transformer\.resblocks\.(\d{1,3})\.", key) for key in weights)
    vocabulary, width = weights[names[0]].shape
    return {
        "vocabulary": vocabulary,
        "context": len(weights[names[1]]),
        "width": width,
        "depth": 1 + max((int(match[1]) for match in found if match), default=-1),
        "num_heads": max(width // 64, 1) if num_heads is None else num_heads,
        "embedding": len(weights[names[2]]),
    }
