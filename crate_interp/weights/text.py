"""Text models by name, with their weights: `load_text_model`."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from crate_interp.errors import CheckpointError, InputError, errors_of, shorten
from crate_interp.files import parse_json_as
from crate_interp.models.memory import usable_memory
from crate_interp.models.text import TEXT_MODELS, TextTransformer
from crate_interp.weights.checkpoint import Checkpoint
from crate_interp.weights.create import parameters_of
from crate_interp.weights.files import read_checkpoint
from crate_interp.weights.fit import load_part
from crate_interp.weights.layout import Renamed, depth_of
from crate_interp.weights.layouts.text import TEXT_LAYOUTS
from crate_interp.weights.load import RANDOM, names_a_file
from crate_interp.weights.model_arguments import check_arguments
from crate_interp.weights.sources import WeightSource, fetch_source

__all__ = [
    "TextRecord",
    "create_text_model",
    "list_text_models",
    "load_text_model",
    "load_text_model_with_record",
    "plan_text_model",
    "text_source",
]

# The vocabulary of a release is GPT-2's.
_RELEASED = {
    "crate_overcomplete_text_base": WeightSource(
        name="crate_overcomplete_text_base",
        hub_id="JackBAI/CRATE-GPT-12L-Pile-600000steps",
        hub_files=("ckpt-crate-12l-overparam-600000.pt",),
        size_mb=983,
    )
}
_RELEASED_VOCABULARY = {"name": "gpt2"}


@dataclass(frozen=True)
class TextRecord:
    """Record of a text model in one of our weight files, in the metadata of its safetensors.

    Attributes:
        model: Name of the model.
        model_args: Sizes that differ from the named model's.
        vocabulary: What `data.open_vocabulary` opens its vocabulary from; `None` if unknown.
    """

    model: str
    model_args: Mapping[str, Any]
    vocabulary: Mapping[str, Any] | None

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> TextRecord | None:
        """Read the record of a file from its metadata, `None` if it has none.

        Raises:
            InputError: There is a record, but not a whole one.
        """
        if "text_model" not in metadata:
            return None
        if "text_model_args" not in metadata:
            raise InputError("expected text_model_args, found none")
        arguments = parse_json_as(metadata["text_model_args"], dict[str, Any], "text_model_args")
        stored, vocabulary = metadata.get("vocabulary", "null"), None
        if stored != "null":
            vocabulary = parse_json_as(stored, dict[str, Any], "vocabulary")
        return cls(metadata["text_model"], arguments, vocabulary)

    def to_metadata(self) -> dict[str, str]:
        """Write the record as safetensors metadata: texts, all but the model's name in JSON."""
        return {
            "text_model": self.model,
            "text_model_args": json.dumps(dict(self.model_args)),
            "vocabulary": json.dumps(self.vocabulary),
        }


def list_text_models(pattern: str | None = None) -> list[str]:
    """List text models by name, with * and ? for any letters; all of them without a pattern."""
    matched = "*" if pattern is None else pattern.strip().lower()
    return [name for name in TEXT_MODELS if fnmatchcase(name, matched)]


def text_source(name: str) -> WeightSource | None:
    """Say where the weights of a text model are; `None` if none are published."""
    return _RELEASED.get(name)


def create_text_model(name: str, **sizes: Any) -> TextTransformer:
    """Make a text model with random weights, in evaluation mode.

    Args:
        name: Name of the model, `crate_text_base` for instance.
        **sizes: Sizes that differ from the named model's: `vocabulary`, `context`, `embed_dim`,
            `depth`, `num_heads`, `mlp_ratio`, `step_size`, `threshold`.

    Raises:
        InputError: There is no such model or size, the heads do not divide the width, or the
            parameters do not fit into the memory.
    """
    planned = plan_text_model(name, **sizes)
    needed, there = 4 * parameters_of(planned), usable_memory()
    if needed > there:
        raise InputError(
            f"{name} with {shorten(sizes)}: expected parameters that fit into the memory, "
            f"{there / 1e9:.1f} GB, found {needed / 1e9:.1f} GB"
        )
    return TextTransformer(**{**_sizes_of(name), **sizes}).eval()


def plan_text_model(name: str, **sizes: Any) -> TextTransformer:
    """Make a text model without memory for its parameters, to look at its sizes.

    Raises:
        InputError: There is no such model or size, or the heads do not divide the width.
    """
    arguments = {**_sizes_of(name), **sizes}
    check_arguments(sizes, name, plain=True)
    with torch.device("meta"):
        return TextTransformer(**arguments)


def load_text_model(
    name: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    *,
    allow_nonfinite: bool = False,
    **sizes: Any,
) -> TextTransformer:
    """Make a text model by name, with its published weights, those of a file, or random ones.

    Args:
        name: Name of a text model (`crate_overcomplete_text_base`), or the path of one of our
            safetensors files, which knows its model.
        weights: A file of the release, `{'model': ..., 'model_args': ...}`, or one of ours; or
            `random`: untrained, the same each time (seed 0). `None`: the published weights.
        allow_nonfinite: Take weights that are NaN or infinite, too.
        **sizes: Sizes, as for `create_text_model`; a file says its own, of which only `num_heads`
            may be missing.

    Returns:
        The model in evaluation mode, float32, on the CPU.

    Raises:
        InputError: Unknown name, or sizes that do not go together.
        CheckpointError: The weights cannot be had, read, or do not fit the model.
    """
    options: dict[str, Any] = {"allow_nonfinite": allow_nonfinite, **sizes}
    return load_text_model_with_record(name, weights, **options)[0]


def load_text_model_with_record(
    name: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    *,
    allow_nonfinite: bool = False,
    **sizes: Any,
) -> tuple[TextTransformer, TextRecord | None]:
    """Load a text model as `load_text_model` does, and say what is known of it, if anything."""
    if weights is not None and Path(weights) == RANDOM:
        if names_a_file(name):
            raise InputError(f"{name} holds its own weights; it cannot take random ones")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return create_text_model(str(name), **sizes), None
    checkpoint = read_checkpoint(_file_of(name, weights), allow_nonfinite=allow_nonfinite)
    with errors_of(checkpoint.path):
        record = TextRecord.of(checkpoint.metadata)
        renamed = checkpoint.renamed
        if names_a_file(name):
            if record is None:
                raise CheckpointError(
                    "does not say which text model it is; name it: load_text_model(NAME, weights)"
                )
            name = record.model
        _check_released(checkpoint, renamed, str(name))
        stored = record.model_args if record else _stored_sizes(checkpoint, renamed)
        model = create_text_model(str(name), **{**stored, **sizes})
    named = replace(renamed, layout=replace(renamed.layout, name="text model"))
    load_part(model, checkpoint, named)
    if record is None and renamed.layout in TEXT_LAYOUTS.values():
        record = TextRecord(str(name), stored, _RELEASED_VOCABULARY)
    return model, record


def _sizes_of(name: str) -> dict[str, Any]:
    if name not in TEXT_MODELS:
        nearest = ", ".join(difflib.get_close_matches(name, TEXT_MODELS, cutoff=0.4)) or "none"
        raise InputError(f"unknown text model {shorten(name)}; nearest names: {nearest}")
    return TEXT_MODELS[name]


def _file_of(name: str | os.PathLike[str], weights: str | os.PathLike[str] | None) -> Path:
    if names_a_file(name):
        if weights is not None:
            raise InputError(f"{name} holds its own weights; it cannot take those of {weights}")
        return Path(name)
    _sizes_of(str(name))
    if weights is not None:
        return Path(weights)
    source = text_source(str(name))
    if source is None:
        raise CheckpointError(
            f"no weights are published for {name}; give a file with `--weights FILE`, or take "
            "random ones with `--weights random` (in Python: weights=PATH)"
        )
    return fetch_source(source)


def _check_released(checkpoint: Checkpoint, renamed: Renamed, name: str) -> None:
    """Refuse a released file of other blocks than the model's, or with a head of its own."""
    kinds = [kind for kind, layout in TEXT_LAYOUTS.items() if layout is renamed.layout]
    expected = _sizes_of(name)["block"]
    if kinds and kinds != [expected]:
        raise CheckpointError(f"expected the blocks {expected} of {name}, found {kinds[0]}")
    head, embedding = (
        checkpoint.state_dict.get(key) for key in ("lm_head.weight", "transformer.wte.weight")
    )
    if head is not None and embedding is not None and not torch.equal(head, embedding):
        raise CheckpointError("lm_head.weight: expected the token embedding, found another matrix")


def _stored_sizes(checkpoint: Checkpoint, renamed: Renamed) -> dict[str, Any]:
    """Read the sizes of a model off its weights, and off the numbers that lie beside them."""
    tensors = renamed.tensors
    for key in ("token_embedding.weight", "pos_embed"):
        if key not in tensors or tensors[key].ndim != 2 or not tensors[key].numel():
            raise CheckpointError(f"expected a text model, with a matrix {renamed.key_of(key)}")
    vocabulary, width = tensors["token_embedding.weight"].shape
    context = len(tensors["pos_embed"])
    sizes: dict[str, Any] = {"vocabulary": vocabulary, "context": context, "embed_dim": width}
    sizes["depth"] = depth_of(tensors)
    dictionary = tensors.get("blocks.0.mlp.D")
    if dictionary is not None and dictionary.ndim == 2:
        sizes["mlp_ratio"] = dictionary.shape[1] / width
    heads = checkpoint.metadata.get("model_args.n_head", "")
    return {**sizes, "num_heads": int(heads)} if heads.isdecimal() else sizes
