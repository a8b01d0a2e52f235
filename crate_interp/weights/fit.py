"""Loads weight files of every layout into models.

To load a file into a model call `load_checkpoint_into`; `file_sizes.architecture_of` tells what
model to build for it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, Literal

from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from crate_interp.errors import CheckpointError
from crate_interp.models.families import PretrainedFiles
from crate_interp.models.subspace import SubspaceAttention
from crate_interp.weights.file_sizes import classes_of, first_of, outputs_of, unknown_layout
from crate_interp.weights.files import Checkpoint, read_checkpoint
from crate_interp.weights.layouts import LAYOUTS, Layout, Renamed, rename, rename_backbone
from crate_interp.weights.resampling import (
    Way,
    patch_size_of,
    resample_patches,
    resample_positions,
)

__all__ = [
    "convert_state_dict",
    "load_checkpoint_into",
    "load_initial_into",
    "load_part",
    "load_pretrained_into",
]

logger = logging.getLogger(__name__)

# What timm's conversion raises for tensors that are not of the shapes that it takes for granted.
_TIMM_REFUSALS = (
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    ArithmeticError,
)
CLASSIFIER = ("head.", "head_dist.")
OtherClasses = Literal["follow", "refuse", "start anew"]


def load_checkpoint_into(
    model: nn.Module, source: str | os.PathLike[str] | Checkpoint, num_classes_given: bool
) -> Checkpoint:
    """Load a weight file of any layout into a model, every parameter of which it must fit.

    Position embeddings of another grid are resampled as timm does, bicubic; the log says so.
    Patches of another size are an error. A file without a classifier leaves that of the model.

    Args:
        model: A CRATE family model or a timm VisionTransformer of the file's sizes; changed.
        source: The file, or what `read_checkpoint` read from it.
        num_classes_given: Whether the user asked for the model's number of classes. If not, the
            model's classifier becomes one of the file's number of classes, or none. If so, another
            number in the file is an error, but 0 in the model, which drops the classifier.

    Returns:
        What the file holds.

    Raises:
        CheckpointError: The file cannot be read or does not fit: the message names the file, its
            keys, and the expected and the found shapes.
    """
    checkpoint = source if isinstance(source, Checkpoint) else read_checkpoint(source)
    _load(model, checkpoint, "refuse" if num_classes_given else "follow")
    return checkpoint


def load_pretrained_into(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load a weight file as timm loads pretrained weights.

    Other classes start anew, and a patch kernel of another size is resampled.

    Args:
        model: A CRATE family model or a timm VisionTransformer of the file's sizes; changed.
        path: The file.

    Raises:
        CheckpointError: The file cannot be read or does not fit.
    """
    _load(model, read_checkpoint(path), "start anew")


def load_initial_into(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load a weight file to train on from, as CRATE-alpha's training goes from L/32 to L/14 to L/8.

    A patch kernel of another size is resampled bilinear, antialiased where it shrinks; positions of
    another grid linear between its corners, the class token's kept. The head begins anew if the
    number of classes or the patch size is another.

    Args:
        model: A CRATE family model or a timm VisionTransformer of the file's sizes; changed.
        path: The file.

    Raises:
        CheckpointError: The file cannot be read or does not fit.

    Reference:
        Scaling White-Box Transformers for Vision, arXiv 2405.20299, and its released code.
    """
    _load(model, read_checkpoint(path), "start anew", "linear")


def load_part(part: nn.Module, checkpoint: Checkpoint, layout: Layout) -> None:
    """Load what a released file holds beside the backbone, a text tower for instance.

    Args:
        part: The module; changed.
        checkpoint: The file.
        layout: Rules for the part's parameters; keys without a rule are not the part's.

    Raises:
        CheckpointError: A parameter is missing or of another size.
    """
    try:
        found = Renamed(layout, *rename(checkpoint.state_dict, layout), [], None)
        problems = _problems(part, found)
        if problems:
            raise CheckpointError(f"its {layout.name} does not fit: {problems}")
        _check_numbers(checkpoint, found)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.path}: {error}") from error.__cause__
    part.load_state_dict(found.tensors)


def convert_state_dict(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Give the weights of any layout the keys and sizes of a model; timm's `pretrained_filter_fn`.

    Args:
        state_dict: Tensors by the file's keys.
        model: What they are for; a CRATE gets or loses its layer before the classifier.

    Returns:
        Tensors by the model's keys, position embedding and patch kernel resampled if need be.

    Raises:
        CheckpointError: The layout is unknown, or a tensor but the classifier's does not fit.
    """
    found = _fitted(state_dict, model)
    _fit_pre_logits(model, found)
    problems = _problems(model, found, ignored=CLASSIFIER)
    if problems:
        raise CheckpointError(f"{found.layout.name} weights do not fit the model: {problems}")
    if not getattr(model, "num_classes", True):  # a model without a classifier takes any file
        return {key: v for key, v in found.tensors.items() if not key.startswith(CLASSIFIER)}
    return found.tensors


def _load(
    model: nn.Module,
    checkpoint: Checkpoint,
    other_classes: OtherClasses,
    way: Way = "preserving",
) -> None:
    try:
        if other_classes != "start anew":
            _refuse_other_patches(checkpoint.state_dict, model)
        found = _fitted(checkpoint.state_dict, model, way)
        _fit_pre_logits(model, found)
        _fit_classifier(model, found, other_classes)
        problems = _problems(model, found)
        if problems:
            raise CheckpointError(
                f"{found.layout.name} weights do not fit {type(model).__name__}: {problems}"
            )
        _check_numbers(checkpoint, found)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.path}: {error}") from error.__cause__
    model.load_state_dict(found.tensors)


def _check_numbers(checkpoint: Checkpoint, found: Renamed) -> None:
    checkpoint.check_numbers({found.their_name(key): v for key, v in found.tensors.items()})


def _fitted(state_dict: Mapping[str, Tensor], model: Any, way: Way = "preserving") -> Renamed:
    """Rename a state dict for a model, and resample what depends on the image's size."""
    found = rename_backbone(state_dict)
    if not isinstance(getattr(model.blocks[0], "attn", None), SubspaceAttention):
        return _fitted_by_timm(state_dict, model, found, way)
    if found is None:
        raise CheckpointError(unknown_layout(state_dict))
    # The grids of official files are square; ours need not be.
    _resample(found.tensors, model, way, any_grid=found.layout is LAYOUTS[-1])
    return found


def _resample(tensors: dict[str, Tensor], model: Any, way: Way, any_grid: bool) -> None:
    other_patches = resample_patches(tensors, model, way)
    if "pos_embed" in tensors:
        tensors["pos_embed"] = resample_positions(tensors["pos_embed"], model, way, any_grid)
    if other_patches and way == "linear":  # as CRATE-alpha's training has it
        for key in [key for key in tensors if key.startswith(CLASSIFIER)]:
            del tensors[key]


def _fitted_by_timm(
    state_dict: Mapping[str, Tensor], model: Any, found: Renamed | None, way: Way
) -> Renamed:
    tensors = dict(state_dict) if found is None else found.tensors
    if way == "linear":
        _resample(tensors, model, way, any_grid=False)
    try:
        tensors = dict(checkpoint_filter_fn(tensors, model))
    except _TIMM_REFUSALS as error:
        raise CheckpointError(f"timm cannot convert it: {error!r}") from error
    if found is None:
        found = Renamed(Layout("converted by timm", (), ()), {}, {}, [], None)
    return Renamed(found.layout, tensors, found.theirs, found.unknown, found.num_heads)


def _refuse_other_patches(state_dict: Mapping[str, Tensor], model: Any) -> None:
    found = rename_backbone(state_dict)
    tensors = state_dict if found is None else found.tensors
    side = patch_size_of(tensors, model.in_chans)
    rows, columns = model.patch_embed.patch_size
    if side is not None and (side, side) != (rows, columns):
        parts = ("patch_embed.proj.weight", "patch_embed.proj.norm.weight")
        key = next(key for key in parts if key in tensors)
        key = key if found is None else found.their_name(key)
        raise CheckpointError(
            f"{key}: expected patches of {rows}x{columns} pixels, found {side}x{side}: make the "
            f"model with patch_size={side}; `set_input_size` changes it afterwards"
        )


def _fit_pre_logits(model: Any, found: Renamed) -> None:
    """Let the layer before the classifier of a CRATE be there if the file has it, and only then."""
    weight = found.tensors.get("pre_logits.weight")
    if not hasattr(model, "pre_logits") or (
        isinstance(model.pre_logits, nn.Linear) == (weight is not None)
    ):
        return
    logger.info("the file has %s layer before the classifier", "no" if weight is None else "a")
    if weight is not None and model.blocks[0].attn.num_heads != 6:
        logger.warning(
            "a layer before the classifier is a mark of the segmentation demo's weights: they have "
            "6 heads, which the file does not tell, and the model has others"
        )
    width, like = model.embed_dim, model.pos_embed
    model.pre_logits = (
        nn.Identity()
        if weight is None
        else nn.Linear(width, width, device=like.device, dtype=like.dtype)
    )


def _fit_classifier(model: Any, found: Renamed, other_classes: OtherClasses) -> None:
    classes = outputs_of(found.tensors)
    if classes == model.num_classes:
        return
    if other_classes == "follow":
        model.reset_classifier(classes)
        return
    may_differ = other_classes == "start anew" or classes_of(found) is None
    if model.num_classes and not may_differ:
        raise CheckpointError(
            f"{found.their_name('head.weight')}: expected {model.num_classes} classes, "
            f"found {classes}"
        )
    for key in [key for key in found.tensors if key.startswith(CLASSIFIER)]:
        del found.tensors[key]
    if model.num_classes:
        logger.warning(
            "no classifier of %d classes is taken from the file: the model's stays untrained",
            model.num_classes,
        )
        own = model.state_dict()
        found.tensors.update({key: own[key] for key in own if key.startswith(CLASSIFIER)})


def _problems(model: nn.Module, found: Renamed, ignored: tuple[str, ...] = ("\0",)) -> str:
    """Say how a file's tensors differ from a model's parameters; nothing if they do not."""
    own = {key: value for key, value in model.state_dict().items() if not key.startswith(ignored)}
    theirs = {key: value for key, value in found.tensors.items() if not key.startswith(ignored)}
    wrong = [
        f"{found.their_name(key)}: expected {tuple(own[key].shape)}, found {tuple(value.shape)}"
        for key, value in theirs.items()
        if key in own and own[key].shape != value.shape
    ]
    missing = [found.their_name(key) for key in own if key not in theirs]
    unknown = [*found.unknown, *(found.their_name(key) for key in theirs if key not in own)]
    heads = {block.attn.num_heads for block in getattr(model, "blocks", ()) if found.num_heads}
    if heads - {found.num_heads}:
        wrong.insert(0, f"num_heads: expected {heads.pop()}, found {found.num_heads}")
    parts = (("wrong sizes", wrong), ("missing", missing), ("unknown", unknown))
    return "; ".join(f"{what}: {first_of(keys)}" for what, keys in parts if keys)


PretrainedFiles.convert = convert_state_dict
PretrainedFiles.load = load_pretrained_into
