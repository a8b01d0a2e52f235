"""The sizes of a model, read off its weights."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from crate_interp.errors import CheckpointError, shorten
from crate_interp.weights.files import Checkpoint
from crate_interp.weights.layouts import LAYOUTS, Renamed, rename_backbone
from crate_interp.weights.resampling import patch_size_of

__all__ = [
    "architecture_of",
    "classes_in",
    "classes_of",
    "first_of",
    "outputs_of",
    "unknown_layout",
]

_MOST_CLASSES = 1_000_000


def classes_in(checkpoint: Checkpoint) -> int | None:
    """Count the classes of a checkpoint's classifier; `None` if it has none."""
    return classes_of(rename_backbone(checkpoint.state_dict))


def architecture_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Read the sizes of a backbone off its weights.

    Args:
        checkpoint: Weights of any layout.

    Returns:
        Keyword arguments for `timm.create_model`: `embed_dim`, `depth`, `patch_size`, `img_size`
        (of a square image), `num_classes` (outputs of the head, 0 without one), and where they can
        be told, `num_heads` (JAX files) and `pre_logits` (CRATE). What the weights do not tell is
        missing.

    Raises:
        CheckpointError: The layout is unknown, or a tensor is not of the form that it has.
    """
    try:
        return _sizes_of(rename_backbone(checkpoint.state_dict), checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.path}: {error}") from error


def _sizes_of(found: Renamed | None, checkpoint: Checkpoint) -> dict[str, Any]:
    if found is None:
        raise CheckpointError(unknown_layout(checkpoint.state_dict))
    tensors = found.tensors
    blocks = [int(match[1]) for key in tensors if (match := re.match(r"blocks\.(\d{1,3})\.", key))]
    sizes: dict[str, Any] = {"depth": max(blocks, default=-1) + 1}
    sizes["num_classes"] = outputs_of(tensors)
    if found.num_heads is not None:
        sizes["num_heads"] = found.num_heads
    if "pre_logits.weight" in tensors:
        sizes["pre_logits"] = True
    patch_size = patch_size_of(tensors)
    if patch_size is not None:
        sizes["patch_size"] = patch_size
    if "pos_embed" in tensors and tensors["pos_embed"].ndim == 3:
        sizes["embed_dim"] = tensors["pos_embed"].shape[-1]
        count = tensors["pos_embed"].shape[1]
        side = next((math.isqrt(n) for n in (count, count - 1) if math.isqrt(n) ** 2 == n), None)
        if side and patch_size:
            sizes["img_size"] = side * patch_size
    return sizes


def classes_of(found: Renamed | None) -> int | None:
    """Count the classes of renamed weights; `None` if they have no classifier."""
    if found is None or found.layout.head_is_projection or "head.weight" not in found.tensors:
        return None
    return outputs_of(found.tensors)


def outputs_of(tensors: Mapping[str, Tensor]) -> int:
    """Outputs of a classifier, 0 without one; what its weight is not a matrix of, is refused."""
    weight = tensors.get("head.weight")
    if weight is None:
        return 0
    if weight.ndim != 2 or len(weight) > _MOST_CLASSES:
        shape = shorten(tuple(weight.shape))
        raise CheckpointError(f"head.weight: expected (classes, embed_dim), found shape {shape}")
    return len(weight)


def first_of(texts: Iterable[str], count: int = 4) -> str:
    """List the first of many keys, and how many more there are."""
    texts = list(texts)
    more = f", and {len(texts) - count} more" if len(texts) > count else ""
    return ", ".join(map(_cut, texts[:count])) + more


def _cut(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:90]}...{text[-25:]}"


def unknown_layout(state_dict: Mapping[str, Tensor]) -> str:
    """Say that a file is of no layout that we know."""
    known = ", ".join(layout.name for layout in LAYOUTS)
    return f"unknown layout, with keys {first_of(state_dict)}; known ones: {known}"
