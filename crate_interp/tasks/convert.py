"""The command `convert`: a weight file of any layout to safetensors that know their model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm

from crate_interp.config import ConvertConfig
from crate_interp.errors import InputError
from crate_interp.models import (
    Checkpoint,
    ModelName,
    ModelRecord,
    create_on_meta,
    load_backbone,
    read_checkpoint,
    resolve_name,
    weights_checksum,
    write_safetensors,
)
from crate_interp.models.file_sizes import architecture_of
from crate_interp.models.key_maps import rename_backbone

__all__ = ["run"]

KEPT = ("classes", "training", "normalised_target")  # what our files say beside their record


def run(config: ConvertConfig) -> int:
    """Convert one weight file and say what was written.

    Sizes in which the file differs from the named model are read off its weights and recorded, so
    that `load_backbone(OUTPUT)` makes the same model again.

    Returns:
        0.

    Raises:
        InputError: The output is the input, or no safetensors; an unknown model.
        CheckpointError: The input cannot be read, or is not of that model.
    """
    _check_output(config.input, config.output)
    name = resolve_name(config.model)
    checkpoint = read_checkpoint(config.input)
    model_args = _model_args(name, checkpoint, config.model_args)
    model = load_backbone(str(name), weights=config.input, **model_args)
    data_config = timm.data.resolve_model_data_config(model)
    record = ModelRecord(
        model=str(name),
        model_args=model_args,
        num_classes=model.num_classes,
        mean=data_config["mean"],
        std=data_config["std"],
    )
    source = {"file": config.input.name, "sha256": weights_checksum(config.input)}
    metadata = record.to_metadata() | {"source": json.dumps(source)} | _kept_metadata(checkpoint)
    # A text tower or a decoder is no part of the backbone: such a file keeps its names, and all of
    # its tensors, so that `load_clip` and `load_mae` take it too.
    found = rename_backbone(checkpoint.state_dict)
    whole = found is None or set(found.theirs.values()) == checkpoint.state_dict.keys()
    tensors = model.state_dict() if whole else checkpoint.state_dict
    write_safetensors(config.output, tensors, metadata)
    values = sum(tensor.numel() for tensor in tensors.values()) / 1e6
    print(
        f"{config.output}: {name}, {len(tensors)} tensors of {values:.2f} M values, "
        f"{model.num_classes} outputs, from {config.input.name}"
    )
    return 0


def _check_output(source: Path, output: Path) -> None:
    if output.suffix != ".safetensors":
        raise InputError(f"{output}: expected a name that ends in .safetensors")
    if output.exists() and source.exists() and output.samefile(source):
        raise InputError(f"{output}: is the input; give the output another name")


def _model_args(name: ModelName, checkpoint: Checkpoint, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments that make the model of a file, where the named model would be another."""
    record = ModelRecord.of(checkpoint)
    told = dict(record.model_args) if record else {}
    found = {**architecture_of(checkpoint), **told, **given}
    found.pop("num_classes")  # `load_backbone` takes what the file has
    named: Any = create_on_meta(name)
    usual = {
        "embed_dim": named.embed_dim,
        "depth": len(named.blocks),
        "num_heads": named.blocks[0].attn.num_heads,
        "patch_size": named.patch_embed.patch_size[0],
        "img_size": named.patch_embed.img_size[0],
    }
    if (
        found.get("embed_dim", usual["embed_dim"]) != usual["embed_dim"]
        and "num_heads" not in found
    ):
        raise InputError(
            f"{checkpoint.path}: has embed_dim {found['embed_dim']} where {name} has "
            f"{usual['embed_dim']}, and weights do not tell the number of heads; give it with "
            "--model-args '{\"num_heads\": ...}'"
        )
    return {key: value for key, value in found.items() if usual.get(key) != value}


def _kept_metadata(checkpoint: Checkpoint) -> dict[str, str]:
    """What a file says of its training and classes: ours again, or the values beside weights."""
    theirs = checkpoint.metadata
    if ModelRecord.of(checkpoint):
        return {key: theirs[key] for key in KEPT if key in theirs}
    return {"training": json.dumps(theirs)} if theirs else {}
