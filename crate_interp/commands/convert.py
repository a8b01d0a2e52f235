"""A weight file of any layout, or a checkpoint of a training run, as our own safetensors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from crate_interp import hooks, models, training, weights
from crate_interp.errors import InputError
from crate_interp.options import check_ranges, option
from crate_interp.runs.command import Command
from crate_interp.runs.options import WeightsOptions

if TYPE_CHECKING:
    from crate_interp.weights import Checkpoint, ModelName

__all__ = ["Convert"]

KEPT = ("classes", "training", "normalised_target")  # what our files say beside their record


@dataclass(frozen=True)
class Convert(Command, WeightsOptions):
    """Turn a weight file of any layout into safetensors.

    Sizes in which the file differs from the named model are read off its weights and recorded, so
    that `load_backbone(OUTPUT)` makes the same model again. A checkpoint in the folder of its
    training run becomes what the run would have exported: its recipe names the model.
    """

    group: ClassVar[str] = "manage"

    input: Path = option(
        "weight file (.npz, .pth, .pth.tar, safetensors), or RUN/checkpoints/step-NUMBER.pt",
        positional=True,
    )
    output: Path = option("the safetensors file to write", positional=True)
    model: str | None = option(
        "model name or alias of the weights (required, but not of a checkpoint of a run)", None
    )
    model_args: dict[str, Any] = option(
        "sizes that differ from the named model's and that the file does not tell (JSON, for "
        "instance '{\"num_heads\": 3}')",
        {},
    )
    raw: bool = option(
        "of a checkpoint of a run: the weights themselves, not their moving average", False
    )

    def __post_init__(self) -> None:
        check_ranges(self)

    def run(self) -> int:
        """Convert the file and say what was written.

        Raises:
            InputError: The output is the input, or no safetensors; an unknown model, or none; an
                option that a checkpoint of a run does not have, or has alone.
            CheckpointError: The input cannot be read, or is not of that model.
        """
        from crate_interp.runs.inference import loading_options, statistics_of

        _check_output(self.input, self.output)
        if training.is_run_checkpoint(self.input):
            return self._export_checkpoint()
        if self.raw:
            raise InputError(f"--raw: {self.input} is no checkpoint in the folder of a run")
        if self.model is None:
            raise InputError(f"--model: required, as {self.input} is no checkpoint of a run")
        checkpoint = weights.read_checkpoint(self.input, allow_nonfinite=self.allow_nonfinite)
        sha256 = weights.weights_checksum(self.input)
        asked = weights.resolve_name(self.model)
        weights.check_arguments(self.model_args, str(asked))
        name = _recorded_name(self.model, asked, checkpoint, sha256)
        model_args = _model_args(asked, name, checkpoint, self.model_args)
        model = weights.load_backbone(self.model, checkpoint, **model_args, **loading_options(self))
        record = weights.ModelRecord(
            model=str(name),
            model_args=model_args,
            num_classes=model.num_classes,
            **{key: tuple(values) for key, values in statistics_of(model).items()},
        )
        source = {"file": self.input.name, "sha256": sha256}
        metadata = record.to_metadata() | {"source": json.dumps(source)}
        metadata |= _kept_metadata(checkpoint)
        # A text tower or a decoder is no part of the backbone: such a file keeps its names, and all
        # of its tensors, so that `load_clip` and `load_mae` take it too.
        is_whole = set(checkpoint.renamed.keys.values()) == checkpoint.state_dict.keys()
        tensors = model.state_dict() if is_whole else checkpoint.state_dict
        with weights.errors_of(self.input):
            checkpoint.check_numbers(tensors)
        weights.write_safetensors(self.output, tensors, metadata)
        values = sum(tensor.numel() for tensor in tensors.values()) / 1e6
        print(
            f"{self.output}: {name}, {len(tensors)} tensors of {values:.2f} M values, "
            f"{model.num_classes} outputs, from {self.input.name}"
        )
        return 0

    def _export_checkpoint(self) -> int:
        names = ("model", "model_args", "mean", "std", "allow_nonfinite")
        given = [name.replace("_", "-") for name in names if getattr(self, name)]
        if given:
            raise InputError(f"--{given[0]}: not of a checkpoint of a run, whose recipe says it")
        model = training.export_checkpoint(self.input, self.output, self.raw)
        values = sum(tensor.numel() for tensor in model.state_dict().values()) / 1e6
        print(f"{self.output}: {type(model).__name__} of {values:.2f} M values")
        return 0


def _check_output(source: Path, output: Path) -> None:
    if output.suffix != ".safetensors":
        raise InputError(f"{output}: expected a name that ends in .safetensors")
    if output.exists() and source.exists() and output.samefile(source):
        raise InputError(f"{output}: is the input; give the output another name")


def _recorded_name(given: str, asked: ModelName, checkpoint: Checkpoint, sha256: str) -> ModelName:
    """The name with its tag where file or user say so, or the file is the release of that tag."""
    source, record = weights.weight_source(asked), checkpoint.record
    is_release = source is not None and source.sha256 == sha256
    says_so = "." in given or (record is not None and record.model == str(asked))
    return asked if is_release or says_so else weights.ModelName(asked.architecture, None)


def _model_args(
    asked: ModelName, name: ModelName, checkpoint: Checkpoint, given: dict[str, Any]
) -> dict[str, Any]:
    """The arguments that make the model of a file, where the recorded name's would be another."""
    recorded = checkpoint.record.model_args if checkpoint.record else {}
    sizes = {**weights.architecture_of(checkpoint), **recorded, **given}
    sizes.pop("num_classes")  # `load_backbone` takes what the file has
    asked_sizes, default_sizes = _sizes_of(asked), _sizes_of(name)
    if "num_heads" not in sizes:
        if sizes.get("embed_dim", asked_sizes["embed_dim"]) != asked_sizes["embed_dim"]:
            raise InputError(
                f"{checkpoint.path}: has embed_dim {sizes['embed_dim']} where {asked} has "
                f"{asked_sizes['embed_dim']}, and weights do not tell the number of heads; give it "
                "with --model-args '{\"num_heads\": ...}'"
            )
        sizes["num_heads"] = asked_sizes["num_heads"]
    return {key: value for key, value in sizes.items() if default_sizes.get(key) != value}


def _sizes_of(name: ModelName) -> dict[str, int]:
    model: Any = weights.create_on_meta(name)
    return {
        "embed_dim": model.embed_dim,
        "depth": len(hooks.blocks_of(model)),
        "num_heads": hooks.count_units(model, hooks.Site.HEADS, 0),
        "patch_size": models.embedding_of(model).patch_size[0],
        "img_size": models.input_hw_of(model)[0],
    }


def _kept_metadata(checkpoint: Checkpoint) -> dict[str, str]:
    """Record of training and classes in a file: ours again, or the values beside weights."""
    metadata = checkpoint.metadata
    if checkpoint.record:
        return {key: metadata[key] for key in KEPT if key in metadata}
    return {"training": json.dumps(metadata)} if metadata else {}
