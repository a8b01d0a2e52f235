"""Fits the tensors of a weight file to a model, compares the two, and loads them.

`Checkpoint.renamed` gives the tensors of a file the names of parameters. What remains here: sizes
that follow from the image's and the patches', the classifier, and to say what does not fit.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from torch import Tensor, nn

from crate_interp.errors import CheckpointError, errors_of
from crate_interp.models.backbones import embedding_of
from crate_interp.models.families import PretrainedFiles
from crate_interp.weights.checkpoint import Checkpoint
from crate_interp.weights.files import read_checkpoint
from crate_interp.weights.layout import Renamed, Way, first_of, rename
from crate_interp.weights.resampling import CLASSIFIER, patch_size_of, resample

__all__ = ["convert_state_dict", "load_checkpoint_into", "load_part"]

logger = logging.getLogger(__name__)

OtherClasses = Literal["follow", "refuse", "start anew"]


def load_checkpoint_into(
    model: nn.Module,
    source: str | os.PathLike[str] | Checkpoint,
    other_classes: OtherClasses = "start anew",
    way: Way = "preserving",
) -> Checkpoint:
    """Load a weight file of any layout into a model, every parameter of which it must fit.

    Position embeddings of another grid are resampled; the log says so.

    Args:
        model: A CRATE family model or a timm VisionTransformer of the file's sizes; changed.
        source: The file, or what `read_checkpoint` read from it.
        other_classes: Treatment of a classifier of another number of classes than the file's.
            `follow`: it becomes one of the file's number, or none. `refuse`: an error, unless the
            model or the file has none. `start anew`: it stays as it is, as timm loads pretrained
            weights. Patches of another size are resampled in the last case, else an error.
        way: Way to resample positions and patches: see `resampling.py`.

    Returns:
        The content of the file.

    Raises:
        CheckpointError: The file cannot be read or does not fit: the message names the file, its
            keys, and the expected and the found shapes.
    """
    checkpoint = source if isinstance(source, Checkpoint) else read_checkpoint(source)
    with errors_of(checkpoint.path):
        if other_classes != "start anew":
            _refuse_other_patches(checkpoint.renamed, model)
        fitted = _fitted(checkpoint.renamed, model, way)
        _fit_classifier(model, fitted, other_classes)
        what = f"{fitted.layout.name} weights do not fit {type(model).__name__}"
        _refuse_problems(model, fitted, what)
        _check_numbers(checkpoint, fitted)
    model.load_state_dict(fitted.tensors)
    return checkpoint


def load_part(part: nn.Module, checkpoint: Checkpoint, renamed: Renamed) -> None:
    """Load what a released file holds beside the backbone, a text tower for instance.

    Args:
        part: The module; changed.
        checkpoint: The file.
        renamed: Tensors of the part, as `rename_part` gives them.

    Raises:
        CheckpointError: A parameter is missing or of another size.
    """
    with errors_of(checkpoint.path):
        _refuse_problems(part, renamed, f"its {renamed.layout.name} does not fit")
        _check_numbers(checkpoint, renamed)
    part.load_state_dict(renamed.tensors)


def convert_state_dict(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Give the weights of any layout the names and sizes of a model; timm's `pretrained_filter_fn`.

    Args:
        state_dict: Tensors by the file's keys.
        model: Model that they are for; a CRATE gets or loses its layer before the classifier.

    Returns:
        Tensors by the model's names, position embedding and patch kernel resampled if need be.

    Raises:
        CheckpointError: The layout is unknown, or a tensor but the classifier's does not fit.
    """
    fitted = _fitted(rename(state_dict), model)
    what = f"{fitted.layout.name} weights do not fit the model"
    _refuse_problems(model, fitted, what, ignored=CLASSIFIER)
    if not getattr(model, "num_classes", True):  # a model without a classifier takes any file
        return {key: v for key, v in fitted.tensors.items() if not key.startswith(CLASSIFIER)}
    return fitted.tensors


def _check_numbers(checkpoint: Checkpoint, fitted: Renamed) -> None:
    tensors = {fitted.key_of(name): tensor for name, tensor in fitted.tensors.items()}
    checkpoint.check_numbers(tensors, fitted.layout.unset)


def _fitted(renamed: Renamed, model: Any, way: Way = "preserving") -> Renamed:
    """Resample what depends on the image's size, and let the model change itself for the file."""
    tensors, layout = dict(renamed.tensors), renamed.layout
    if layout.fit:
        tensors = layout.fit(tensors, model, way)
    else:
        resample(tensors, model, way, any_grid=not layout.square_grids)
    if hasattr(model, "fit_to"):
        model.fit_to(tensors)
    return replace(renamed, tensors=tensors)


def _refuse_other_patches(renamed: Renamed, model: Any) -> None:
    side = patch_size_of(renamed.tensors, model.in_chans)
    rows, columns = embedding_of(model).patch_size
    if side is not None and (side, side) != (rows, columns):
        parts = ("patch_embed.proj.weight", "patch_embed.proj.norm.weight")
        key = renamed.key_of(next(part for part in parts if part in renamed.tensors))
        raise CheckpointError(
            f"{key}: expected patches of {rows}x{columns} pixels, found {side}x{side}: make the "
            f"model with patch_size={side}; `set_input_size` changes it afterwards"
        )


def _fit_classifier(model: Any, fitted: Renamed, other_classes: OtherClasses) -> None:
    outputs = fitted.outputs
    if outputs == model.num_classes:
        return
    if other_classes == "follow":
        model.reset_classifier(outputs)
        return
    if model.num_classes and other_classes == "refuse" and fitted.classes is not None:
        raise CheckpointError(
            f"{fitted.key_of('head.weight')}: expected {model.num_classes} classes, found {outputs}"
        )
    for name in [name for name in fitted.tensors if name.startswith(CLASSIFIER)]:
        del fitted.tensors[name]
    if model.num_classes:
        logger.warning(
            "no classifier of %d classes is taken from the file: the model's stays untrained",
            model.num_classes,
        )
        own = model.state_dict()
        fitted.tensors.update({name: own[name] for name in own if name.startswith(CLASSIFIER)})


def _refuse_problems(
    model: nn.Module, fitted: Renamed, what: str, ignored: tuple[str, ...] = ("\0",)
) -> None:
    """Refuse tensors of other names or sizes than those of the model's parameters."""
    own, tensors = (
        {name: value for name, value in all_of.items() if not name.startswith(ignored)}
        for all_of in (model.state_dict(), fitted.tensors)
    )
    wrong = [
        f"{fitted.key_of(name)}: expected {tuple(own[name].shape)}, found {tuple(value.shape)}"
        for name, value in tensors.items()
        if name in own and own[name].shape != value.shape
    ]
    missing = [fitted.key_of(name) for name in own if name not in tensors]
    unknown = [*fitted.unknown, *(fitted.key_of(name) for name in tensors if name not in own)]
    if fitted.num_heads:
        heads = {block.attn.num_heads for block in getattr(model, "blocks", ())}
        if heads - {fitted.num_heads}:
            wrong.insert(0, f"num_heads: expected {heads.pop()}, found {fitted.num_heads}")
    parts = (("wrong sizes", wrong), ("missing", missing), ("unknown", unknown))
    problems = "; ".join(f"{part}: {first_of(keys)}" for part, keys in parts if keys)
    if problems:
        raise CheckpointError(f"{what}: {problems}")


PretrainedFiles.convert = convert_state_dict
PretrainedFiles.load = load_checkpoint_into
