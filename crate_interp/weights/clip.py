"""Weight files of the whole CRATE-alpha-CLIPA, image and text towers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from crate_interp.errors import CheckpointError, InputError, errors_of
from crate_interp.models.clipa import CrateClip, TextTower
from crate_interp.models.crate_alpha import CrateAlpha
from crate_interp.weights.fit import load_part
from crate_interp.weights.layout import depth_of, rename_part
from crate_interp.weights.layouts.open_clip import TEXT_TOWER
from crate_interp.weights.load import load_with_file

__all__ = ["load_clip"]

_DIMENSIONS = {
    "token_embedding.weight": 2,
    "positional_embedding": 2,
    "text_projection": 2,
    "logit_scale": 0,
}


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
        weights: Weight file in the official layout; `None` for the published weights.
        text_num_heads: Attention heads of the text tower; `None` for heads of 64 dimensions.
        allow_nonfinite: Take weights that are NaN or infinite, too. The text projection, which the
            release's code never sets in an untrained model, is taken anyway, with a warning.
        **timm_arguments: Arguments of the vision tower, as for `load_backbone`.

    Returns:
        The model in evaluation mode.

    Raises:
        CheckpointError: The weights cannot be had, read, or do not fit.
        InputError: The name is not that of a CLIPA model, or the heads do not divide the width.
    """
    visual, checkpoint = load_with_file(
        name, weights, allow_nonfinite=allow_nonfinite, **timm_arguments
    )
    if not isinstance(visual, CrateAlpha) or not visual.projection_head:
        raise InputError(f"{name}: expected a CRATE-alpha-CLIPA model")
    with errors_of(checkpoint.path):
        _check_text_tower(checkpoint.state_dict)
        renamed = rename_part(checkpoint.state_dict, TEXT_TOWER)
    vocabulary, width = renamed.tensors["token_embedding.weight"].shape
    text = TextTower(
        vocabulary=vocabulary,
        context=len(renamed.tensors["pos_embed"]),
        width=width,
        depth=depth_of(renamed.tensors),
        num_heads=max(width // 64, 1) if text_num_heads is None else text_num_heads,
        embedding=len(renamed.tensors["projection.weight"]),
    )
    load_part(text, checkpoint, renamed)
    with errors_of(checkpoint.path):
        scale = {"logit_scale": checkpoint.state_dict["logit_scale"]}
        checkpoint.check_numbers(scale)
    model = CrateClip(visual, text)
    with torch.no_grad():
        model.logit_scale.copy_(scale["logit_scale"])
    return model.eval()


def _check_text_tower(state_dict: Mapping[str, Tensor]) -> None:
    for name, dims in _DIMENSIONS.items():
        if name not in state_dict:
            raise CheckpointError(f"no text tower in it: {name} is missing")
        if state_dict[name].ndim != dims:
            shape = tuple(state_dict[name].shape)
            raise CheckpointError(f"{name}: expected {dims} dimensions, found shape {shape}")
