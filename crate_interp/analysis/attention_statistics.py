"""How far and how widely heads look, and where attention leads through all blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.hooks import Site, attention_chunks, attention_token
from crate_interp.models.float64 import float64_device, to_float64
from crate_interp.structures import Activations

__all__ = ["AttentionStatistics", "attention_statistics", "uniform_distance"]


@dataclass(frozen=True, eq=False)
class AttentionStatistics:
    """Measures of the attention of all blocks, for each image of a batch.

    Attributes:
        distance: Mean distance between a patch and the patches that it attends to: the mean over
            patches of sum_j a_ij |x_i - x_j| / sum_j a_ij, j being patches. Float64.
        entropy: Mean over all tokens of -sum_j a_ij ln a_ij, nats; from 0 to ln N. Float64.
        rollout: Row l holds what attention hands on to one token from the N tokens of the input,
            through blocks 0 to l. A row sums to one. Float32.
    """

    distance: Float[Tensor, "B L K"]
    entropy: Float[Tensor, "B L K"]
    rollout: Float[Tensor, "B L N"]


def attention_statistics(
    activations: Activations,
    spacing_hw: tuple[float, float] = (1.0, 1.0),
    patch: tuple[int, int] | None = None,
) -> AttentionStatistics:
    """Measure the attention of all blocks, without ever holding a whole map.

        with record(model, ["query", "key"], blocks=range(len(model.blocks))) as recorder:
            model(pixels)
        statistics = attention_statistics(recorder.activations)

    Rollout multiplies the maps A_0, ..., A_l of the blocks, averaged over heads and mixed with the
    residual stream, (A + I) / 2. One token needs only a row of the product: it is carried
    from block l down to block 0, and the rows of all l go along together.

    Args:
        activations: `query` and `key` of all blocks; in CRATE families both are the subspace.
        spacing_hw: Distance between neighbouring patches, down and across, in the unit of the
            result; by default in patches.
        patch: Row and column of the patch that rollout follows; `None`: it follows the class token.

    Raises:
        InputError: A block was not recorded; the blocks do not attend; otherwise as
            `attention_map`.

    Reference:
        Abnar and Zuidema, Quantifying Attention Flow in Transformers (arXiv 2005.00928); distance:
        Dosovitskiy et al., An Image is Worth 16x16 Words (arXiv 2010.11929), appendix D.7.
    """
    token = attention_token(activations, patch)
    depth, prefix = activations.num_blocks, activations.num_prefix_tokens
    for site in (Site.QUERY, Site.KEY):
        missing = [
            block for block in range(depth) if (site.value, block) not in activations.tensors
        ]
        if missing:
            raise InputError(
                f"expected {site.value} of all {depth} blocks, found none of {missing}"
            )
    if activations.num_heads is None:
        raise InputError("num_heads: expected the number of heads of the activations, found none")
    example = activations[Site.QUERY, 0]
    batch, count, device = len(example), example.shape[1], example.device
    places = _places(activations.grid_hw, spacing_hw, device)
    shape = batch, depth, activations.num_heads
    distance = torch.zeros(shape, dtype=torch.float64, device=float64_device(device))
    entropy = torch.zeros_like(distance)
    rollout = torch.zeros(batch, depth, count, device=device)
    rollout[:, :, token] = 1
    for block in reversed(range(depth)):
        later = rollout[:, block:]
        handed_on = torch.zeros_like(later)
        for rows, attention in attention_chunks(activations, block):
            entropy[:, block] += to_float64(torch.special.entr(attention).sum(dim=-1)).sum(dim=-1)
            handed_on += later[:, :, rows] @ attention.mean(dim=1)
            first = max(rows.start, prefix)
            to_patches = attention[:, :, first - rows.start :, prefix:]
            apart = _distances(places[first - prefix : rows.stop - prefix], places)
            mass = to_patches.sum(dim=-1).clamp_min(torch.finfo(to_patches.dtype).tiny)
            distance[:, block] += to_float64((to_patches * apart).sum(dim=-1) / mass).sum(dim=-1)
        rollout[:, block:] = (later + handed_on) / 2
    return AttentionStatistics(distance / len(places), entropy / count, rollout)


def uniform_distance(
    grid_hw: tuple[int, int], spacing_hw: tuple[float, float] = (1.0, 1.0)
) -> float:
    """Mean distance of a head that attends to all patches alike.

    Args:
        grid_hw: Rows and columns of patches.
        spacing_hw: As for `attention_statistics`.

    Raises:
        InputError: There is no patch.
    """
    if min(grid_hw) < 1:
        raise InputError(f"grid_hw: expected a patch or more, found {grid_hw}")
    places = _places(grid_hw, spacing_hw, torch.device("cpu"))
    return float(
        torch.stack([_distances(row[None], places).double().mean() for row in places]).mean()
    )


def _places(
    grid_hw: tuple[int, int], spacing_hw: tuple[float, float], device: torch.device
) -> Float[Tensor, "n 2"]:
    rows, columns = (
        torch.arange(cells, dtype=torch.float32, device=device) * spacing
        for cells, spacing in zip(grid_hw, spacing_hw, strict=True)
    )
    return torch.cartesian_prod(rows, columns)


def _distances(places: Float[Tensor, "R 2"], others: Float[Tensor, "n 2"]) -> Float[Tensor, "R n"]:
    # Not by matrix products, which lose the small distances.
    return torch.cdist(places, others, compute_mode="donot_use_mm_for_euclid_dist")
