"""Content of a weight file: its tensors, and what it says of its model."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crate_interp.errors import CheckpointError, errors_of, shorten
from crate_interp.weights.layout import Renamed, depth_of, rename, unknown_layout
from crate_interp.weights.records import ModelRecord
from crate_interp.weights.resampling import patch_size_of

__all__ = ["Checkpoint", "architecture_of"]

logger = logging.getLogger(__name__)

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The weights of a file, their keys as the file has them (less wrappers and prefixes).

    Attributes:
        state_dict: Tensors on the CPU; those of a PyTorch file may be mapped from it, not copied.
        metadata: The safetensors metadata, or what numbers and texts lay beside the weights.
        path: The file.
        allow_nonfinite: Whether weights may be NaN or infinite.
    """

    state_dict: dict[str, Tensor] = field(repr=False)
    metadata: dict[str, str]
    path: Path
    allow_nonfinite: bool = False

    @cached_property
    def renamed(self) -> Renamed:
        """The backbone's tensors under the names of parameters; not to be changed.

        Raises:
            CheckpointError: A tensor is not of the form of its layout; the file is not named.
        """
        return rename(self.state_dict)

    @cached_property
    def record(self) -> ModelRecord | None:
        """Record of the model in one of our files; `None` in files of others.

        Raises:
            CheckpointError: There is a record, but not a whole one, or one with other arguments
                than sizes in their ranges.
        """
        with errors_of(f"{self.path}: its metadata are not those of crate_interp"):
            return ModelRecord.of(self.metadata)

    def check_numbers(self, tensors: Mapping[str, Tensor], unset: Collection[str] = ()) -> None:
        """Refuse tensors that are no weights: not floating-point, or with NaN or infinity.

        Args:
            tensors: Tensors of the file that are about to be used, by the file's keys.
            unset: Keys of tensors that may have NaN or infinity, with a warning.

        Raises:
            CheckpointError: One of them is not; the message names it, but not the file.
        """
        for key, tensor in tensors.items():
            if tensor.dtype not in _FLOATS:
                raise CheckpointError(
                    f"{shorten(key)}: expected float16, bfloat16, float32 or float64, found "
                    f"{tensor.dtype}"
                )
            if self.allow_nonfinite or not tensor.numel():
                continue
            # NaN if there is one: no copy of the tensor
            if not torch.stack(torch.aminmax(tensor)).isfinite().all():
                count = int(tensor.numel() - tensor.isfinite().sum())
                fault = f"{shorten(key)}: {count} of {tensor.numel()} weights are NaN or infinite"
                if key not in unset:
                    raise CheckpointError(
                        f"{fault}; `--allow-nonfinite` takes them (in Python: allow_nonfinite=True)"
                    )
                logger.warning("%s: %s", self.path, fault)


def architecture_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Read the sizes of a backbone off its weights, of any layout.

    Returns:
        Keyword arguments for `timm.create_model`: `embed_dim`, `depth`, `patch_size`, `img_size`
        (of a square image), `num_classes` (outputs of the head, 0 without one), and where the
        weights say it, `num_heads` (JAX files) and `pre_logits` (CRATE). What they do not say is
        missing.

    Raises:
        CheckpointError: The layout is unknown, or a tensor is not of the form that it has.
    """
    with errors_of(checkpoint.path):
        renamed = checkpoint.renamed
        if not renamed.layout.marks:
            raise unknown_layout(checkpoint.state_dict)
        tensors = renamed.tensors
        sizes: dict[str, Any] = {"depth": depth_of(tensors), "num_classes": renamed.outputs}
        if renamed.num_heads is not None:
            sizes["num_heads"] = renamed.num_heads
        if "pre_logits.weight" in tensors:
            sizes["pre_logits"] = True
        if patch_size := patch_size_of(tensors):
            sizes["patch_size"] = patch_size
        positions = tensors.get("pos_embed")
        if positions is not None and positions.ndim == 3:
            count, sizes["embed_dim"] = positions.shape[1:]
            side = math.isqrt(count)
            if side and patch_size and side**2 in (count, count - 1):  # with a class token
                sizes["img_size"] = side * patch_size
    return sizes
