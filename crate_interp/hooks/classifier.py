"""A backbone as a classifier: its class scores, also from the middle of a forward pass on.

Shapes: B images, N tokens, D embed dim, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn

from crate_interp.errors import InputError
from crate_interp.models.anatomy import anatomy_of
from crate_interp.models.backbones import blocks_of, trunk_of
from crate_interp.models.patch_head import scores_of_patches
from crate_interp.structures import Activations

__all__ = ["check_classifier", "choose_classes", "head_input", "patch_classes", "scores_from"]


def check_classifier(model: nn.Module, number: int | None = None) -> None:
    """Refuse a model without class scores.

    Args:
        model: Any module.
        number: Number of a class that it must have, from 0; `None`: any classes.

    Raises:
        InputError: It has no head, one that maps to the embedding space of a CLIP, or no class of
            that number.
    """
    count = int(getattr(model, "num_classes", 0))
    if count < 1:
        raise InputError(
            f"{type(model).__name__} gives no class scores: expected a model with a classifier, "
            "found num_classes 0"
        )
    if getattr(model, "projection_head", False):
        raise InputError(
            f"{type(model).__name__} gives no class scores: expected a model with a classifier, "
            "found the image tower of a CLIP"
        )
    if number is not None and not 0 <= number < count:
        raise InputError(f"class {number}: expected 0 to {count - 1}")


def choose_classes(scores: Float[Tensor, "B C"], number: int | None) -> Int[Tensor, " B"]:
    """The class to look at for each image: the one that is asked for, or the predicted one.

    Raises:
        InputError: There is no class of that number.
    """
    if number is None:
        return scores.argmax(dim=1)
    if not 0 <= number < scores.shape[1]:
        raise InputError(f"class {number}: expected 0 to {scores.shape[1] - 1}")
    return torch.full_like(scores[:, 0], number, dtype=torch.long)


@torch.inference_mode()
def head_input(model: nn.Module, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B D"]:
    """What the classifier of a model reads: its tokens, pooled and normalised as it does it.

    Args:
        model: A CRATE family model or a timm vision transformer; it may be without a classifier.
        tokens: The residual stream that leaves the last block, on any device.

    Raises:
        InputError: The model pools no tokens, as autoencoders do not.
    """
    vit: Any = model
    parameter = next(model.parameters())
    pooled: Tensor = vit.forward_head(_leaving_trunk(vit, tokens.to(parameter)), pre_logits=True)
    return pooled


@torch.inference_mode()
def patch_classes(model: nn.Module, output: Activations) -> Int64[np.ndarray, " n"]:
    """Class of each patch of an image: the one to which the head gives its token most.

    Args:
        model: A CRATE family model or a timm vision transformer, with a classifier.
        output: Activations of the image, a batch of one, with the tokens that leave the last block.
    """
    tokens = output["tokens", -1][:, output.num_prefix_tokens :]
    normed = _leaving_trunk(model, tokens.to(next(model.parameters())))
    classes: Int64[np.ndarray, " n"] = scores_of_patches(model, normed)[0].argmax(1).cpu().numpy()
    return classes


def scores_from(
    model: nn.Module,
    tokens: Float[Tensor, "B N D"],
    block: int,
    arguments: Mapping[int, Mapping[str, Any]] | None = None,
) -> Float[Tensor, "B C"]:
    """Class scores of a forward pass that goes on from the middle.

    Args:
        model: A CRATE family model or a timm vision transformer, with a classifier.
        tokens: The residual stream that enters `block`.
        block: Number of the block, from 0; the number of blocks for what leaves the last one.
        arguments: Arguments of blocks beside the tokens, as `Activations.arguments` has it;
            blocks with rotary position need it.

    Raises:
        InputError: As `check_classifier`; arguments of a block that needs them are missing; a head
            that reads no tokens, as that of SAM.
    """
    check_classifier(model)
    arguments = arguments or {}
    for number, module in list(enumerate(blocks_of(model)))[block:]:
        heads = anatomy_of(module).heads
        if heads is not None and heads.arguments and number not in arguments:
            raise InputError(
                f"{type(model).__name__}: block {number} is run with {', '.join(heads.arguments)}, "
                "which was not recorded: record tokens or tokens_in in a whole forward pass"
            )
        tokens = module(tokens, **arguments.get(number, {}))
    vit: Any = model
    scores: Tensor = vit.forward_head(_leaving_trunk(vit, tokens))
    return scores


def _leaving_trunk(vit: Any, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
    """Tokens as the head gets them; a classifier around an encoder has a norm in its head."""
    trunk: Any = trunk_of(vit)
    needed = ("forward_head", "head", *(["norm"] if trunk is vit else []))
    if not all(hasattr(vit, name) for name in needed):
        raise InputError(f"{type(vit).__name__}: expected a model with a head, found none")
    normalised: Tensor = trunk.norm(tokens) if hasattr(trunk, "norm") else tokens
    return normalised
