"""Weight files of the whole CRATE-MAE, encoder and decoder: the release's and our own.

Our own safetensors have the encoder's tensors under the names that `load_backbone` knows, and the
decoder's with `decoder.` before them.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.models.mae import CrateMae, CrateMaeAutoencoder, CrateMaeDecoder
from crate_interp.weights.files import Checkpoint, read_checkpoint
from crate_interp.weights.fit import load_part
from crate_interp.weights.layouts import Layout, Rule
from crate_interp.weights.load import load_backbone, resolve_weights

__all__ = ["load_decoder_into", "load_mae", "mae_file_of"]

RELEASED = Layout(
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
OURS = Layout("decoder", (), (Rule(OUR_PREFIX + "{any}", "{any}"),))


def load_mae(
    name: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    *,
    allow_nonfinite: bool = False,
    **timm_arguments: Any,
) -> CrateMaeAutoencoder:
    """Load CRATE-MAE with its decoder.

    Args:
        name: A CRATE-MAE model, or the path of one of our safetensors files, as for
            `load_backbone`.
        weights: Its weight file in the official layout or ours; `None` for the published weights.
        allow_nonfinite: Take weights that are NaN or infinite, too.
        **timm_arguments: For the encoder, as for `load_backbone`.

    Returns:
        The model in evaluation mode. Our files tell whether the target was normalised; of others
        it is taken that it was not.

    Raises:
        CheckpointError: The weights cannot be had, read, or do not fit.
        InputError: The name is not that of a CRATE-MAE.
    """
    encoder = load_backbone(name, weights, allow_nonfinite=allow_nonfinite, **timm_arguments)
    if not isinstance(encoder, CrateMae):
        raise InputError(f"{name} is a {type(encoder).__name__}; expected a CRATE-MAE")
    path = resolve_weights(name, weights)
    checkpoint = read_checkpoint(path, allow_nonfinite=allow_nonfinite)
    found = (re.match(r"decoder[._]blocks\.(\d{1,3})\.", key) for key in checkpoint.state_dict)
    depth = 1 + max((int(match[1]) for match in found if match), default=-1)
    decoder = CrateMaeDecoder.of(encoder, depth)
    load_decoder_into(decoder, checkpoint)
    normalised_target = checkpoint.metadata.get("normalised_target") == "true"
    return CrateMaeAutoencoder(encoder, decoder, normalised_target).eval()


def load_decoder_into(decoder: CrateMaeDecoder, checkpoint: Checkpoint) -> None:
    """Load the decoder of a file, of the release's layout or ours.

    Args:
        decoder: Changed.
        checkpoint: The file, encoder and decoder.

    Raises:
        CheckpointError: The file has no decoder, or one of other sizes.
    """
    ours = any(key.startswith(OUR_PREFIX) for key in checkpoint.state_dict)
    load_part(decoder, checkpoint, OURS if ours else RELEASED)


def mae_file_of(model: CrateMaeAutoencoder) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Give what our file of a model holds: its tensors, and what `load_mae` needs to be told.

    Returns:
        Tensors by name, and metadata beside those of `ModelRecord`.
    """
    decoder = {OUR_PREFIX + key: value for key, value in model.decoder.state_dict().items()}
    told = {"normalised_target": json.dumps(model.normalised_target)}
    return {**model.encoder.state_dict(), **decoder}, told
