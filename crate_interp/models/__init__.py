"""CRATE, CRATE-alpha, CRATE-MAE and CLIPA as timm models; what they cost, and their speed."""

import timm.models  # noqa: F401  (first: what it makes us register needs this room importable)

from crate_interp.models import gemma_blocks, timm_blocks  # noqa: F401  (fill tables of anatomy)

# isort: split
from crate_interp.models import crate, crate_alpha, vit  # noqa: F401  (registers the timm models)
from crate_interp.models.backbones import (
    embedding_of,
    input_hw_of,
    patch_hw_of,
    prefix_tokens_of,
)
from crate_interp.models.clipa import CrateClip, tokenize
from crate_interp.models.cost import ForwardCost, forward_cost
from crate_interp.models.mae import CrateMaeAutoencoder
from crate_interp.models.masking import draw_mask
from crate_interp.models.memory import usable_memory
from crate_interp.models.onednn import fast_inference, has_fast_bfloat16, inference_precision
from crate_interp.models.zero_shot import embed_classes

__all__ = [
    "CrateClip",
    "CrateMaeAutoencoder",
    "ForwardCost",
    "draw_mask",
    "embed_classes",
    "embedding_of",
    "fast_inference",
    "forward_cost",
    "has_fast_bfloat16",
    "inference_precision",
    "input_hw_of",
    "patch_hw_of",
    "prefix_tokens_of",
    "tokenize",
    "usable_memory",
]
