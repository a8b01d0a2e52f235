"""Effects of silencing a head or an atom of a model, one image at a time.

Shapes: N tokens, D embed dim, U heads or atoms of a block, A of them that are silenced, h w patch
grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from crate_interp.errors import InputError
from crate_interp.hooks import (
    ScaleEdit,
    Site,
    Target,
    channels_of,
    check_classifier,
    choose_classes,
    count_units,
    default_feature,
    intervene,
    record,
    scores_from,
    written_dictionary,
)
from crate_interp.hooks.sites import blocks_of
from crate_interp.segmentation import maskcut
from crate_interp.segmentation.segmenters.maskcut import MaskCutSegmenter
from crate_interp.structures import Activations

__all__ = ["estimate_logit_effects", "logit_effects", "mask_effects", "mask_of", "written_energy"]


def logit_effects(
    model: nn.Module,
    activations: Activations,
    class_number: int,
    site: Site,
    block: int,
    units: Sequence[int],
    at_once: int = 64,
) -> Float[Tensor, " A"]:
    """Measure how much each head or atom, silenced at all tokens, takes from a class's score.

    Positive: it speaks for the class. Only what follows the tokens is computed, of several
    ablations in one forward pass.

    Args:
        model: A CRATE family model or a timm vision transformer, with a classifier.
        activations: `tokens_in` of the block, of one image; of a whole forward pass.
        class_number: Number of the class, from 0.
        site: `heads`, or another one that `Target` takes.
        block: Number of the block, from 0.
        units: Numbers of heads or atoms.
        at_once: Number of ablations in a forward pass.

    Raises:
        InputError: No such head, atom or class, or none; a model without a classifier.
    """
    tokens = activations[Site.TOKENS_IN, block]

    @torch.inference_mode()
    def score(copies: int) -> Float[Tensor, " copies"]:
        repeated = tokens.expand(copies, -1, -1)
        scores = scores_from(model, repeated, block, activations.arguments)
        return scores.gather(1, choose_classes(scores, class_number)[:, None])[:, 0]

    intact = score(1)
    return intact - torch.cat(list(_each_silenced(model, site, block, units, at_once, score)))


def estimate_logit_effects(
    model: nn.Module,
    pixels: Float[Tensor, "1 3 H W"],
    class_number: int,
    site: Site,
    blocks: Sequence[int],
) -> list[Float[Tensor, " U"]]:
    """`logit_effects` of all heads or atoms of all blocks, to first order, by one gradient.

    The derivative of the score by a factor on the unit, which is 1: sum over tokens of activation
    times gradient. A unit that saturates, or another one that takes over, is misjudged.

    Args:
        model: A CRATE family model or a timm vision transformer, with a classifier.
        pixels: One normalised image.
        class_number: Number of the class, from 0.
        site: `heads`, or another one that `Target` takes.
        blocks: Numbers of the blocks, from 0.

    Returns:
        One row per block.
    """
    factors, edits = [], {}
    place: Any = {"device": pixels.device, "dtype": pixels.dtype}
    with torch.inference_mode(False), torch.enable_grad():
        pixels = pixels.clone()  # of inference mode, perhaps
        check_classifier(model)
        for block in blocks:
            width = len(channels_of(model, site, block))
            factors.append(torch.ones(width, **place, requires_grad=True))
            edits[Target(site, block)] = ScaleEdit(factors[-1])
        with intervene(model, edits):
            scores = model(pixels)
            number = choose_classes(scores, class_number)[0]
            slopes = torch.autograd.grad(scores[0, number], factors)
    return [
        slope.unflatten(0, (count_units(model, site, block), -1)).sum(dim=1)
        for block, slope in zip(blocks, slopes, strict=True)
    ]


def mask_of(
    model: nn.Module, pixels: Float[Tensor, "B 3 H W"], tau: float = MaskCutSegmenter.tau
) -> Bool[Tensor, "B h w"]:
    """The first object that MaskCut finds in each image, empty where it finds none.

    It compares the shared subspace projection of the last block, or the keys where there is none.

    Args:
        model: A CRATE family model or a timm vision transformer.
        pixels: Normalised images.
        tau: Patches are alike above this cosine similarity.
    """
    site = default_feature(model)
    with torch.inference_mode(), record(model, [site], [-1], stop_early=True) as recorder:
        model(pixels)
    recorded = recorder.activations
    masks = torch.zeros(len(pixels), *recorded.grid_hw, dtype=torch.bool, device=pixels.device)
    for mask, features in zip(masks, recorded.patch_features(site), strict=True):
        for first in maskcut(features.float(), recorded.grid_hw, tau, max_masks=1).masks:
            mask[:] = first
    return masks


def mask_effects(
    model: nn.Module,
    pixels: Float[Tensor, "1 3 H W"],
    site: Site,
    block: int,
    units: Sequence[int],
    at_once: int = 64,
    tau: float = MaskCutSegmenter.tau,
) -> Float[Tensor, " A"]:
    """Measure how much each head or atom, silenced at all tokens, changes the mask of an image.

    1 - IoU of the masks (`mask_of`) with and without it: 0 where nothing changes, 1 where nothing
    is left.

    Args:
        model: A CRATE family model or a timm vision transformer.
        pixels: One normalised image.
        site: `heads`, or another one that `Target` takes.
        block: Number of the block, from 0; not the last one, whose heads and atoms come after what
            MaskCut compares.
        units: Numbers of heads or atoms.
        at_once: Number of ablations in a forward pass.
        tau: As for `mask_of`.

    Raises:
        InputError: No such head or atom, the last block, or no object is found in the image.
    """
    last = len(blocks_of(model)) - 1
    if not 0 <= block < last:
        raise InputError(
            f"block {block}: expected 0 to {last - 1}, because MaskCut compares what block {last} "
            "projects, before its heads and atoms"
        )
    intact = mask_of(model, pixels, tau)
    if not intact.any():
        raise InputError("MaskCut finds no object in the image, which silence could change")

    def change(copies: int) -> Float[Tensor, " copies"]:
        masks = mask_of(model, pixels.expand(copies, -1, -1, -1), tau)
        union = (masks | intact).sum(dim=(1, 2))
        return 1 - (masks & intact).sum(dim=(1, 2)) / union

    return torch.cat(list(_each_silenced(model, site, block, units, at_once, change)))


def written_energy(
    model: nn.Module, activations: Float[Tensor, "1 N U"], block: int
) -> Float[Tensor, " U"]:
    """Energy that each atom writes into the residual stream: sum over tokens of |a d|^2.

    a is the atom's activation and d its column of `written_dictionary`.

    Args:
        model: A CRATE family model or a timm vision transformer.
        activations: `codes` or `neurons` of one image.
        block: Number of the block, from 0.
    """
    columns = written_dictionary(model, block)
    return activations[0].square().sum(dim=0) * columns.square().sum(dim=0)


def _each_silenced(
    model: nn.Module,
    site: Site,
    block: int,
    units: Sequence[int],
    at_once: int,
    measure: Callable[[int], Tensor],
) -> Iterator[Tensor]:
    """Results of `measure` on copies of an image, one of the units being silent in each."""
    if not len(units):
        raise InputError(f"{site.value}: expected numbers of what to silence, found none")
    width = len(channels_of(model, site, block))
    device = next(model.parameters()).device
    for start in range(0, len(units), at_once):
        silent = units[start : start + at_once]
        gates = torch.ones(len(silent), 1, width, device=device)
        for gate, unit in zip(gates, silent, strict=True):
            gate[:, channels_of(model, site, block, unit)] = 0
        with intervene(model, {Target(site, block): ScaleEdit(gates)}):
            yield measure(len(silent))
