"""From the name of a model to its loaded weights."""

import timm.models  # noqa: F401  (first: what it makes us register needs this room importable)

from crate_interp.errors import errors_of
from crate_interp.weights.autoencoder import load_mae
from crate_interp.weights.checkpoint import Checkpoint, architecture_of
from crate_interp.weights.clip import load_clip
from crate_interp.weights.create import create_backbone, create_on_meta
from crate_interp.weights.files import read_checkpoint, write_safetensors
from crate_interp.weights.layout import Layout, Rule, register_layout
from crate_interp.weights.load import (
    RANDOM,
    from_pretrained,
    load_backbone,
    names_a_file,
    resolve_weights,
)
from crate_interp.weights.model_arguments import check_arguments
from crate_interp.weights.names import (
    ALIASES,
    ModelName,
    architectures_to_check,
    list_names,
    resolve_name,
)
from crate_interp.weights.publishing import push_to_hub
from crate_interp.weights.records import ModelRecord
from crate_interp.weights.sources import (
    find_local_weights,
    is_available_locally,
    parameters_checksum,
    weight_source,
    weights_checksum,
)
from crate_interp.weights.text import (
    list_text_models,
    load_text_model,
    load_text_model_with_record,
    plan_text_model,
    text_source,
)

__all__ = [
    "ALIASES",
    "RANDOM",
    "Checkpoint",
    "Layout",
    "ModelName",
    "ModelRecord",
    "Rule",
    "architecture_of",
    "architectures_to_check",
    "check_arguments",
    "create_backbone",
    "create_on_meta",
    "errors_of",
    "find_local_weights",
    "from_pretrained",
    "is_available_locally",
    "list_names",
    "list_text_models",
    "load_backbone",
    "load_clip",
    "load_mae",
    "load_text_model",
    "load_text_model_with_record",
    "names_a_file",
    "parameters_checksum",
    "plan_text_model",
    "push_to_hub",
    "read_checkpoint",
    "register_layout",
    "resolve_name",
    "resolve_weights",
    "text_source",
    "weight_source",
    "weights_checksum",
    "write_safetensors",
]
