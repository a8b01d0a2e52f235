"""Attention from recorded queries and keys: of one token, or of all of them a few rows at a time.

A whole map has one number for each pair of tokens: at 480 pixels and patches of 8, 311 MB for the
six heads of one block. Queries and keys of that block are 11 MB.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.hooks.sites import Site
from crate_interp.models.anatomy import attention_rows
from crate_interp.structures import Activations

__all__ = ["attention_chunks", "attention_map", "attention_token"]


def attention_map(
    activations: Activations,
    block: int = -1,
    patch: tuple[int, int] | None = None,
) -> Float[Tensor, "B K h w"]:
    """Attention of one token to the patches, by head, on the patch grid.

        with record(model, ["query", "key"], blocks=[-1]) as recorder:
            model(pixels)
        maps = attention_map(recorder.activations)

    Args:
        activations: `query` and `key` of the block; in CRATE families both are the subspace.
        block: Number of the block, from 0; negative numbers count from the last.
        patch: Row and column of the patch that attends; `None`: the class token attends.

    Returns:
        Float32. The sum over the patches is what attention to prefix tokens leaves of 1.

    Raises:
        InputError: A patch outside the grid; no class token where it is to attend; as
            `attention_chunks`.
    """
    token = attention_token(activations, patch)
    _, row = next(attention_chunks(activations, block, slice(token, token + 1)))
    patches: Tensor = row[:, :, 0, activations.num_prefix_tokens :]
    return torch.as_tensor(patches.unflatten(-1, activations.grid_hw))


def attention_token(activations: Activations, patch: tuple[int, int] | None = None) -> int:
    """Number of a token: of the class token, or of the patch at a row and a column of the grid.

    Raises:
        InputError: The model has no such token.
    """
    rows, columns = activations.grid_hw
    if patch is None:
        if not (activations.num_prefix_tokens and activations.has_class_token):
            raise InputError("the model has no class token: name a patch (row, column) instead")
        return 0
    row, column = patch
    if not (0 <= row < rows and 0 <= column < columns):
        raise InputError(
            f"patch {patch} (row, column) is out of range: the grid has (0, 0) to "
            f"({rows - 1}, {columns - 1})"
        )
    return activations.num_prefix_tokens + row * columns + column


def attention_chunks(
    activations: Activations,
    block: int = -1,
    tokens: slice = slice(None),
    rows: int = 256,
) -> Iterator[tuple[slice, Float[Tensor, "B K R N"]]]:
    """Compute a block's attention, as `attention_rows` does, a few rows at a time.

    Args:
        activations: As for `attention_map`.
        block: Number of the block, from 0; negative numbers count from the last.
        tokens: The tokens that attend, one after the other.
        rows: Tokens at a time, at most.

    Yields:
        Which tokens, and their attention in float32; each row sums to one, but for differential
        attention's.

    Raises:
        InputError: The number of heads is not known, or does not divide the features.
    """
    query, key = (activations[site, block].float() for site in (Site.QUERY, Site.KEY))
    num_heads = activations.num_heads
    if num_heads is None:
        raise InputError("num_heads: expected the number of heads of the activations, found none")
    if num_heads < 1 or query.shape[-1] % num_heads:
        raise InputError(f"num_heads: {num_heads} do not divide features of {query.shape[-1]}")
    query, key = (side.unflatten(-1, (num_heads, -1)).transpose(1, 2) for side in (query, key))
    terms = activations.attention_terms.get(block % activations.num_blocks)
    first, end, _ = tokens.indices(query.shape[2])
    for start in range(first, end, rows):
        chunk = slice(start, min(start + rows, end))
        yield chunk, attention_rows(query[:, :, chunk], key, terms, chunk)
