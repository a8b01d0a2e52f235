"""Text models of commands: their options, and how model and vocabulary are opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crate_interp import data, weights
from crate_interp.errors import InputError
from crate_interp.options import check_ranges, option
from crate_interp.options.choices import Pictures

if TYPE_CHECKING:
    from crate_interp.data import Vocabulary
    from crate_interp.models.text import TextTransformer

__all__ = ["TextModelOptions", "load_text_model_of"]


@dataclass(frozen=True, kw_only=True)
class TextModelOptions:
    """Options of commands that put texts through a text model."""

    model: str = option("text model, crate_text_base for instance, or one of our safetensors files")
    weights: Path | None = option(
        "weight file of the release or ours, not the published one; `random`: untrained", None
    )
    model_args: dict[str, Any] = option("sizes that differ from the named model's (JSON)", {})
    tokenizer: str | None = option(
        "tokenizer.json, or a vocabulary of tiktoken, as gpt2 (default: the model's own)", None
    )
    allow_nonfinite: bool = option("load weights with NaN or infinity all the same", False)
    batch_size: Pictures = option("windows of a text in a forward pass", 16)
    device: str = option("cpu, cuda, cuda:1, mps, or auto", "auto")

    def __post_init__(self) -> None:
        check_ranges(self)


def load_text_model_of(options: TextModelOptions) -> tuple[TextTransformer, Vocabulary]:
    """Load the text model of a command, on its device, and its vocabulary.

    Args:
        options: Options of the command.

    Raises:
        InputError: The device or the model cannot be had, or its vocabulary is not known or is
            larger than the model's.
    """
    from crate_interp.runs.inference import device_of

    device = device_of(options.device)
    model, record = weights.load_text_model_with_record(
        options.model,
        options.weights,
        allow_nonfinite=options.allow_nonfinite,
        **options.model_args,
    )
    if options.tokenizer is not None:
        try:
            vocabulary = data.read_vocabulary(options.tokenizer)
        except InputError as error:
            message = str(error).removeprefix(f"{options.tokenizer}: ")
            raise InputError(f"--tokenizer {options.tokenizer}: {message}") from error
    elif record is not None and record.vocabulary is not None:
        with weights.errors_of(options.weights or options.model):
            vocabulary = data.open_vocabulary(record.vocabulary)
    else:
        raise InputError(f"{options.model}: its vocabulary is not known: give --tokenizer")
    if vocabulary.size > model.vocabulary:
        raise InputError(
            f"{options.tokenizer or 'vocabulary'}: expected at most the {model.vocabulary} tokens "
            f"of the model, found {vocabulary.size}"
        )
    return model.to(device), vocabulary
