"""Weight files of image and text towers: CRATE-alpha-CLIPA's release, our own, and CLIP's."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Int64
from timm.layers.activations import QuickGELU
from torch import Tensor

from crate_interp.data.vocabulary import Vocabulary, open_vocabulary
from crate_interp.errors import CheckpointError, InputError, errors_of, shorten
from crate_interp.files import parse_json_as
from crate_interp.models.backbones import Backbone
from crate_interp.models.clipa import (
    CLIP_TEXT,
    CLIPA_TEXT,
    CrateClip,
    TextStyle,
    TextTower,
    Tokenizer,
    tokenize,
)
from crate_interp.models.crate_alpha import CrateAlpha
from crate_interp.models.memory import usable_memory
from crate_interp.weights.checkpoint import Checkpoint
from crate_interp.weights.create import parameters_of
from crate_interp.weights.fit import load_part
from crate_interp.weights.layout import Renamed, depth_of, rename_part
from crate_interp.weights.layouts.open_clip import (
    CLIP_TEXT_TOWER,
    OUR_TEXT_PREFIX,
    OUR_TEXT_TOWER,
    TEXT_TOWER,
)
from crate_interp.weights.load import load_with_file

__all__ = ["clip_file_of", "create_clip", "load_clip", "load_text_tower_into", "tokens_of"]

_CLIP_TOKENIZER = "ViT-B-32"  # of OpenAI's CLIP, and of all of OpenCLIP's that have its text tower
_CLIP_MLP = "visual.transformer.resblocks.0.mlp.c_fc.weight"  # which CRATE has no such matrix of
_DIMENSIONS = {"token_embedding.weight": 2, "pos_embed": 2, "projection.weight": 2}
_SIZES = {"context": 16_384, "width": 16_384, "depth": 256, "num_heads": 256, "embedding": 16_384}


def load_clip(
    name: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    text_num_heads: int | None = None,
    *,
    allow_nonfinite: bool = False,
    **timm_arguments: Any,
) -> CrateClip:
    """Load CRATE-alpha-CLIPA or a CLIP with its text tower, whose sizes are read off the file.

    Args:
        name: A CLIPA model, or the path of one of our safetensors files, as for `load_backbone`;
            or an image tower of CLIP by timm's name, `vit_base_patch32_clip_224` for instance.
        weights: Weight file in the official layout or ours; of CLIP, one of OpenCLIP's own towers.
            `None` for the published weights, which timm has of image towers alone.
        text_num_heads: Attention heads of the text tower; `None` for those that the file says, or
            heads of 64 dimensions.
        allow_nonfinite: Take weights that are NaN or infinite, too. The text projection, which the
            release's code never sets in an untrained model, is taken anyway, with a warning.
        **timm_arguments: Arguments of the vision tower, as for `load_backbone`.

    Returns:
        The model in evaluation mode, with the tokenizer of the file if it has one.

    Raises:
        CheckpointError: The weights cannot be had, read, or do not fit.
        InputError: The name is not that of such a model, or the heads do not divide the width.
    """
    visual, checkpoint = load_with_file(
        name, weights, allow_nonfinite=allow_nonfinite, **timm_arguments
    )
    is_clipa = isinstance(visual, CrateAlpha) and visual.projection_head
    if not is_clipa and not _is_clip(checkpoint):
        raise InputError(
            f"{name}: expected a CRATE-alpha-CLIPA model, or an image tower of CLIP with a file of "
            "OpenCLIP that has both towers"
        )
    with errors_of(checkpoint.path):
        tensors = _renamed_text_tower(checkpoint).tensors
        stored = checkpoint.metadata.get("vocabulary")
        vocabulary = None
        if stored is not None:
            record = parse_json_as(stored, dict[str, Any], "vocabulary")
            vocabulary = open_vocabulary(record)
    count, width = tensors["token_embedding.weight"].shape
    if vocabulary is not None and vocabulary.size != count:
        raise CheckpointError(
            f"{checkpoint.path}: vocabulary: expected {count} tokens, found {vocabulary.size}"
        )
    text = TextTower(
        vocabulary=count,
        context=len(tensors["pos_embed"]),
        width=width,
        depth=depth_of(tensors),
        num_heads=_stored_heads(checkpoint, width) if text_num_heads is None else text_num_heads,
        embedding=len(tensors["projection.weight"]),
        style=CLIPA_TEXT if is_clipa else _style_beside(visual),
    )
    tokenizer: Tokenizer | None = None if is_clipa else partial(tokenize, model=_CLIP_TOKENIZER)
    if vocabulary is not None:
        tokenizer = partial(tokens_of, vocabulary)
    model = CrateClip(visual, text, tokenizer)
    load_text_tower_into(model, checkpoint)
    return model.eval()


def create_clip(visual: Backbone, sizes: Mapping[str, int], vocabulary: Vocabulary) -> CrateClip:
    """Give a vision tower a text tower with random weights.

    Args:
        visual: Vision tower, with a projection as its head.
        sizes: Sizes of the text tower: `context`, `width`, `depth`, `num_heads`, and `embedding`,
            which is that of the vision tower's head.
        vocabulary: Vocabulary of the texts.

    Raises:
        InputError: It is no such vision tower, a size is missing, unknown or out of its range, the
            heads do not divide the width, or the parameters do not fit into the memory.
    """
    if not isinstance(visual, CrateAlpha) or not visual.projection_head:
        raise InputError(
            f"expected a CRATE-alpha with projection_head, found a {type(visual).__name__}"
        )
    for name, value in sizes.items():
        if name not in _SIZES:
            raise InputError(f"unknown size {shorten(name)}; expected {', '.join(_SIZES)}")
        if not 1 <= value <= _SIZES[name]:
            raise InputError(f"{name}: expected 1 to {_SIZES[name]}, found {shorten(value)}")
    if missing := [name for name in _SIZES if name not in sizes]:
        raise InputError(f"expected {', '.join(_SIZES)}, found no {missing[0]}")
    arguments: Any = {**sizes, "vocabulary": vocabulary.size}
    with torch.device("meta"):
        needed = 4 * parameters_of(TextTower(**arguments))
    if needed > usable_memory():
        raise InputError(
            f"{dict(sizes)}: expected parameters that fit into the memory, "
            f"{usable_memory() / 1e9:.1f} GB, found {needed / 1e9:.1f} GB"
        )
    return CrateClip(visual, TextTower(**arguments), partial(tokens_of, vocabulary))


def load_text_tower_into(model: CrateClip, checkpoint: Checkpoint) -> None:
    """Load the text tower of a file, and the factor on cosines; the vision tower stays as it is.

    Raises:
        CheckpointError: The file has no text tower, or one of other sizes.
    """
    with errors_of(checkpoint.path):
        renamed = _renamed_text_tower(checkpoint)
    load_part(model.text, checkpoint, renamed)
    with errors_of(checkpoint.path):
        scale = {"logit_scale": checkpoint.state_dict["logit_scale"]}
        checkpoint.check_numbers(scale)
    with torch.no_grad():
        model.logit_scale.copy_(scale["logit_scale"])


def clip_file_of(model: CrateClip, vocabulary: Vocabulary) -> tuple[dict[str, Tensor], Any]:
    """Give what our file of a model holds: tensors, and metadata beside those of `ModelRecord`."""
    text = {OUR_TEXT_PREFIX + key: value for key, value in model.text.state_dict().items()}
    heads: Any = model.text.blocks[0]
    metadata = {
        "text_num_heads": json.dumps(heads.attn.num_heads),
        "vocabulary": json.dumps(vocabulary.record),
    }
    return {**model.visual.state_dict(), **text, "logit_scale": model.logit_scale}, metadata


def tokens_of(
    vocabulary: Vocabulary, texts: Sequence[str], context: int
) -> Int64[Tensor, "T context"]:
    """Turn texts into token numbers; the end of a text fills the row, and stands last in it.

    Args:
        vocabulary: Vocabulary of the texts.
        texts: The texts; longer ones are cut.
        context: Number of tokens of a row.

    Raises:
        InputError: No text, or a part of one is no token.
    """
    if isinstance(texts, str) or not texts:
        raise InputError(f"texts: expected a list of one text or more, found {texts!r}")
    rows = torch.full((len(texts), context), vocabulary.end or 0)
    for row, text in zip(rows, texts, strict=True):
        tokens = torch.from_numpy(vocabulary.encode(text))[: context - 1]
        row[: len(tokens)] = tokens
    return rows


def _renamed_text_tower(checkpoint: Checkpoint) -> Renamed:
    is_ours = any(key.startswith(OUR_TEXT_PREFIX) for key in checkpoint.state_dict)
    released = CLIP_TEXT_TOWER if _is_clip(checkpoint) else TEXT_TOWER
    renamed = rename_part(checkpoint.state_dict, OUR_TEXT_TOWER if is_ours else released)
    parts = [
        (renamed.key_of(name), renamed.tensors.get(name), n) for name, n in _DIMENSIONS.items()
    ]
    for key, tensor, dims in [*parts, ("logit_scale", checkpoint.state_dict.get("logit_scale"), 0)]:
        if tensor is None:
            raise CheckpointError(f"no text tower in it: {key} is missing")
        if tensor.ndim != dims:
            shape = tuple(tensor.shape)
            raise CheckpointError(f"{key}: expected {dims} dimensions, found shape {shape}")
    return renamed


def _is_clip(checkpoint: Checkpoint) -> bool:
    """Whether a file holds both towers of a CLIP in OpenCLIP's own code, and not CLIPA's."""
    keys = checkpoint.state_dict
    return "visual.proj" in keys and "text_projection" in keys and _CLIP_MLP in keys


def _style_beside(visual: Backbone) -> TextStyle:
    """Style of CLIP's text tower, whose activation is that of the image tower."""
    block: Any = visual.get_submodule("blocks")[0]  # type: ignore[index]
    is_quick = isinstance(block.mlp.act, QuickGELU)
    return CLIP_TEXT._replace(activation=QuickGELU) if is_quick else CLIP_TEXT


def _stored_heads(checkpoint: Checkpoint, width: int) -> int:
    stored = checkpoint.metadata.get("text_num_heads")
    if stored is None:
        return max(width // 64, 1)
    with errors_of(checkpoint.path):
        heads = parse_json_as(stored, int, "text_num_heads")
        if not 1 <= heads <= width:
            raise InputError(f"text_num_heads: expected 1 to {width}, found {shorten(heads)}")
    return heads
