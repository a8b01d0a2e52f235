"""Patches and pixels that speak for a class.

Shapes: B images, K heads, N tokens, n patches, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from crate_interp.errors import InputError
from crate_interp.hooks import Site, check_classifier, record, scores_from
from crate_interp.hooks.sites import blocks_of
from crate_interp.models.backbones import has_class_token

__all__ = [
    "IntegratedGradients",
    "attention_relevance",
    "check_captum",
    "check_class_token",
    "integrated_gradients",
]


class IntegratedGradients(NamedTuple):
    """Parts of the score of a class that each value of the input adds.

    Attributes:
        values: Summed over an image, they are nearly `difference`.
        difference: Score of the image less that of a black one.
    """

    values: Float[Tensor, "B 3 H W"]
    difference: Float[Tensor, " B"]


def attention_relevance(
    model: nn.Module, pixels: Float[Tensor, "B 3 H W"], classes: Int[Tensor, " B"]
) -> Float[Tensor, "B n"]:
    """Relevance of the patches for a class: gradient times attention, through all blocks.

    R = (I + A_L) ... (I + A_1) with A = mean over heads of max(0, attention * its gradient); the
    class token's row of R, at the patches. Only that row is computed, from the last block to the
    first, each of which is run again with attention of its own: memory is that of one block.

    Args:
        model: A CRATE family model or a timm vision transformer, with a classifier that reads the
            class token.
        pixels: Normalised images.
        classes: Number of the class of each image, from 0.

    Returns:
        Not negative, patches row by row.

    Raises:
        InputError: No classifier, no class token or not read by the classifier, or no such class.

    Reference:
        Chefer et al., Generic Attention-model Explainability for Interpreting Bi-Modal and
        Encoder-Decoder Transformers (arXiv 2103.15679), section 3.
    """
    _check_classes(model, pixels, classes)
    check_class_token(model)
    blocks = blocks_of(model)
    sites = [Site.TOKENS_IN, Site.TOKENS]
    record(model, [Site.ATTENTION], range(len(blocks)))  # refuses attention of another kind
    # Not in inference mode, whose tensors cannot take part in a gradient.
    with torch.inference_mode(False), torch.no_grad():
        with record(model, sites, range(len(blocks))) as recorder:
            model(pixels.clone())
        passed = recorder.activations
    with torch.inference_mode(False), torch.enable_grad():
        leaving = passed[Site.TOKENS, -1].requires_grad_()
        scores = scores_from(model, leaving, len(blocks), passed.arguments)
        (gradient,) = torch.autograd.grad(_sum_of(scores, classes), leaving)
        row = torch.zeros_like(leaving[:, :, 0]).detach()
        row[:, 0] = 1
        for number in reversed(range(len(blocks))):
            entering = passed[Site.TOKENS_IN, number].requires_grad_()
            with _ExplicitAttention() as explicit:
                leaving = blocks[number](entering, **passed.arguments.get(number, {}))
            if len(explicit.maps) != 1:
                raise InputError(
                    f"block {number}: expected one map of attention, found {len(explicit.maps)}"
                )
            (attention,) = explicit.maps
            gradient, slope = torch.autograd.grad(leaving, [entering, attention], gradient)
            relevance = (attention.detach() * slope).clamp(min=0).mean(dim=1)
            row = row + (row[:, None] @ relevance)[:, 0]
    return row[:, passed.num_prefix_tokens :]


def integrated_gradients(
    model: nn.Module,
    pixels: Float[Tensor, "B 3 H W"],
    classes: Int[Tensor, " B"],
    steps: int = 50,
    at_once: int | None = None,
) -> IntegratedGradients:
    """Integrate the gradient of a class score on the straight path from a black image to an image.

    By captum, with Gauss-Legendre points. Black, and not the grey that is 0 in normalised pixels:
    CRATE normalises each patch, so that from a patch without any contrast, nearly all of the path
    would lie in its first thousandth.

    Args:
        model: A CRATE family model or a timm vision transformer, with a classifier.
        pixels: Normalised images.
        classes: Number of the class of each image, from 0.
        steps: Points on the path; more bring the sum nearer to the difference.
        at_once: Points of all images in a forward pass; `None`: all.

    Raises:
        InputError: captum is not installed; no classifier, or no such class.

    Reference:
        Sundararajan et al., Axiomatic Attribution for Deep Networks (arXiv 1703.01365).
    """
    check_captum()
    from captum.attr import IntegratedGradients as Integrator

    _check_classes(model, pixels, classes)
    with torch.inference_mode(False), torch.enable_grad():
        pixels, classes = pixels.clone(), classes.clone()
        baseline = _black(model, pixels)
        values = Integrator(model, multiply_by_inputs=True).attribute(
            pixels,
            baseline,
            target=classes,
            n_steps=steps,
            method="gausslegendre",
            internal_batch_size=None if at_once is None else max(at_once, len(pixels)),
        )
        with torch.no_grad():
            scores, base = (
                model(image).gather(1, classes[:, None])[:, 0] for image in (pixels, baseline)
            )
    return IntegratedGradients(values.detach().to(pixels.dtype), scores - base)


def check_captum() -> None:
    """Refuse to go on without captum.

    Raises:
        InputError: It is not installed; the message says how to.
    """
    try:
        import captum.attr  # noqa: F401
    except ImportError as error:
        raise InputError(
            "integrated gradients need captum: pip install 'crate-interp[attribution]'"
        ) from error


def check_class_token(model: nn.Module) -> None:
    """Refuse a model whose classifier does not read a class token.

    Raises:
        InputError: There is none, or the classifier reads the mean of the patches.
    """
    if not has_class_token(model):
        raise InputError(f"{type(model).__name__} has no class token, whose attention is asked for")
    pool = getattr(model, "global_pool", "token")
    if pool != "token":
        raise InputError(
            f"{type(model).__name__}: expected a classifier that reads the class token, found "
            f"global_pool {pool!r}"
        )


def _check_classes(model: nn.Module, pixels: Tensor, classes: Int[Tensor, " B"]) -> None:
    if classes.shape != pixels.shape[:1]:
        raise InputError(
            f"expected a class of each of {len(pixels)} images, found shape {tuple(classes.shape)}"
        )
    check_classifier(model)
    for number in classes.unique().tolist():
        check_classifier(model, number)


def _black(model: nn.Module, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Black images as the model's input has them, normalised."""
    data_config = resolve_model_data_config(model)
    mean, std = (pixels.new_tensor(data_config[name]).view(3, 1, 1) for name in ("mean", "std"))
    return (-mean / std).expand_as(pixels)


def _sum_of(scores: Float[Tensor, "B C"], classes: Int[Tensor, " B"]) -> Tensor:
    return scores.gather(1, classes[:, None]).sum()


class _ExplicitAttention(TorchFunctionMode):
    """Multiplies attention out inside a `with` block, and keeps the maps that gradients lead to.

    Attributes:
        maps: The maps in the order of their computation, each (B, K, N, N).
    """

    def __init__(self) -> None:
        super().__init__()
        self.maps: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            query, key, value = args
            scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
            bias = (kwargs or {}).get("attn_mask")
            self.maps.append((scores if bias is None else scores + bias).softmax(dim=-1))
            return self.maps[-1] @ value
        result = func(*args, **(kwargs or {}))
        if func in (Tensor.softmax, torch.softmax, F.softmax):  # attention that is not fused
            self.maps.append(result)
        return result
