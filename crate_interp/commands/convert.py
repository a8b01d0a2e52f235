"""The command `convert`: a weight file of any layout to safetensors that know their model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from crate_interp.config import ConvertConfig
from crate_interp.errors import InputError
from crate_interp.hooks import Site, count_units
from crate_interp.runs.inference import loading_options, statistics_of
from crate_interp.weights import (
    Checkpoint,
    ModelName,
    ModelRecord,
    architecture_of,
    create_on_meta,
    load_backbone,
    read_checkpoint,
    resolve_name,
    weight_source,
    weights_checksum,
    write_safetensors,
)
from crate_interp.weights.arguments import check_arguments
from crate_interp.weights.checkpoint import errors_of

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
    checkpoint = read_checkpoint(config.input, allow_nonfinite=config.allow_nonfinite)
    sha256 = weights_checksum(config.input)
    asked = resolve_name(config.model)
    check_arguments(config.model_args, str(asked))
    name = _recorded_name(config.model, asked, checkpoint, sha256)
    model_args = _model_args(asked, name, checkpoint, config.model_args)
    model = load_backbone(config.model, checkpoint, **model_args, **loading_options(config))
    record = ModelRecord(
        model=str(name),
        model_args=model_args,
        num_classes=model.num_classes,
        **{key: tuple(values) for key, values in statistics_of(model).items()},
    )
    source = {"file": config.input.name, "sha256": sha256}
    metadata = record.to_metadata() | {"source": json.dumps(source)} | _kept_metadata(checkpoint)
    # A text tower or a decoder is no part of the backbone: such a file keeps its names, and all of
    # its tensors, so that `load_clip` and `load_mae` take it too.
    is_whole = set(checkpoint.renamed.keys.values()) == checkpoint.state_dict.keys()
    tensors = model.state_dict() if is_whole else checkpoint.state_dict
    with errors_of(config.input):
        checkpoint.check_numbers(tensors)
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


def _recorded_name(given: str, asked: ModelName, checkpoint: Checkpoint, sha256: str) -> ModelName:
    """The name with its tag where file or user say so, or the file is the release of that tag."""
    source, record = weight_source(asked), checkpoint.record
    is_release = source is not None and source.sha256 == sha256
    says_so = "." in given or (record is not None and record.model == str(asked))
    return asked if is_release or says_so else ModelName(asked.architecture, None)


def _model_args(
    asked: ModelName, name: ModelName, checkpoint: Checkpoint, given: dict[str, Any]
) -> dict[str, Any]:
    """The arguments that make the model of a file, where the recorded name's would be another."""
    told = dict(checkpoint.record.model_args) if checkpoint.record else {}
    found = {**architecture_of(checkpoint), **told, **given}
    found.pop("num_classes")  # `load_backbone` takes what the file has
    meant, usual = _sizes_of(asked), _sizes_of(name)
    if "num_heads" not in found:
        if found.get("embed_dim", meant["embed_dim"]) != meant["embed_dim"]:
            raise InputError(
                f"{checkpoint.path}: has embed_dim {found['embed_dim']} where {asked} has "
                f"{meant['embed_dim']}, and weights do not tell the number of heads; give it with "
                "--model-args '{\"num_heads\": ...}'"
            )
        found["num_heads"] = meant["num_heads"]
    return {key: value for key, value in found.items() if usual.get(key) != value}


def _sizes_of(name: ModelName) -> dict[str, int]:
    model: Any = create_on_meta(name)
    return {
        "embed_dim": model.embed_dim,
        "depth": len(model.blocks),
        "num_heads": count_units(model, Site.HEADS, 0),
        "patch_size": model.patch_embed.patch_size[0],
        "img_size": model.patch_embed.img_size[0],
    }


def _kept_metadata(checkpoint: Checkpoint) -> dict[str, str]:
    """What a file says of its training and classes: ours again, or the values beside weights."""
    theirs = checkpoint.metadata
    if checkpoint.record:
        return {key: theirs[key] for key in KEPT if key in theirs}
    return {"training": json.dumps(theirs)} if theirs else {}
