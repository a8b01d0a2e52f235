"""Weight files of the whole CRATE-MAE, encoder and decoder: the release's and our own."""

from __future__ import annotations

import json
import os
from typing import Any

from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.models.mae import CrateMae, CrateMaeAutoencoder, CrateMaeDecoder
from crate_interp.weights.checkpoint import Checkpoint
from crate_interp.weights.fit import load_part
from crate_interp.weights.layout import Renamed, depth_of, rename_part
from crate_interp.weights.layouts.mae import OUR_DECODER, OUR_PREFIX, RELEASED_DECODER
from crate_interp.weights.load import load_with_file

__all__ = ["load_decoder_into", "load_mae", "mae_file_of"]


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
        weights: Weight file in the official layout or ours; `None` for the published weights.
        allow_nonfinite: Take weights that are NaN or infinite, too.
        **timm_arguments: Arguments of the encoder, as for `load_backbone`.

    Returns:
        The model in evaluation mode. Our files tell whether the target was normalised; of others
        it is taken that it was not.

    Raises:
        CheckpointError: The weights cannot be had, read, or do not fit.
        InputError: The name is not that of a CRATE-MAE.
    """
    encoder, checkpoint = load_with_file(
        name, weights, allow_nonfinite=allow_nonfinite, **timm_arguments
    )
    if not isinstance(encoder, CrateMae):
        raise InputError(f"{name} is a {type(encoder).__name__}; expected a CRATE-MAE")
    decoder = CrateMaeDecoder.of(encoder, depth_of(_renamed_decoder(checkpoint).tensors))
    load_decoder_into(decoder, checkpoint)
    normalised_target = checkpoint.metadata.get("normalised_target") == "true"
    return CrateMaeAutoencoder(encoder, decoder, normalised_target).eval()


def load_decoder_into(decoder: CrateMaeDecoder, checkpoint: Checkpoint) -> None:
    """Load the decoder of a file of the whole CRATE-MAE, of the release's layout or ours.

    Raises:
        CheckpointError: The file has no decoder, or one of other sizes.
    """
    load_part(decoder, checkpoint, _renamed_decoder(checkpoint))


def _renamed_decoder(checkpoint: Checkpoint) -> Renamed:
    is_ours = any(key.startswith(OUR_PREFIX) for key in checkpoint.state_dict)
    return rename_part(checkpoint.state_dict, OUR_DECODER if is_ours else RELEASED_DECODER)


def mae_file_of(model: CrateMaeAutoencoder) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Give what our file of a model holds: tensors, and metadata beside those of `ModelRecord`."""
    decoder = {OUR_PREFIX + key: value for key, value in model.decoder.state_dict().items()}
    metadata = {"normalised_target": json.dumps(model.normalised_target)}
    return {**model.encoder.state_dict(), **decoder}, metadata
