"""Backbones by name: CRATE, CRATE-alpha, CRATE-MAE and CLIPA as timm models, and their weights."""

from crate_interp.models import crate, crate_alpha, vit  # noqa: F401  (registers the timm models)
from crate_interp.models.checkpoint_files import Checkpoint, read_checkpoint, write_safetensors
from crate_interp.models.clipa import CrateClip, load_clip, tokenize
from crate_interp.models.cost import ForwardCost, forward_cost
from crate_interp.models.loading import (
    RANDOM,
    create_backbone,
    create_on_meta,
    load_backbone,
    names_a_file,
    resolve_weights,
)
from crate_interp.models.mae import CrateMaeAutoencoder
from crate_interp.models.mae_files import load_mae
from crate_interp.models.names import ModelName, resolve_name
from crate_interp.models.onednn import fast_inference, has_fast_bfloat16, inference_precision
from crate_interp.models.records import ModelRecord
from crate_interp.models.weights import (
    is_available_locally,
    parameters_checksum,
    weight_source,
    weights_checksum,
)
from crate_interp.models.zero_shot import embed_classes

__all__ = [
    "RANDOM",
    "Checkpoint",
    "CrateClip",
    "CrateMaeAutoencoder",
    "ForwardCost",
    "ModelName",
    "ModelRecord",
    "create_backbone",
    "create_on_meta",
    "embed_classes",
    "fast_inference",
    "forward_cost",
    "has_fast_bfloat16",
    "inference_precision",
    "is_available_locally",
    "load_backbone",
    "load_clip",
    "load_mae",
    "names_a_file",
    "parameters_checksum",
    "read_checkpoint",
    "resolve_name",
    "resolve_weights",
    "tokenize",
    "weight_source",
    "weights_checksum",
    "write_safetensors",
]
