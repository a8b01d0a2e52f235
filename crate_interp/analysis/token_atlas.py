"""The atlas of tokens: what makes each atom of a text model's block fire, and in which contexts.

Texts are cut into windows, which an `AtlasBuilder` takes as images of one row: a token is a patch.

Shapes: A atoms, P strongest tokens, W windows, T tokens of a window, C tokens of a context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64
from torch import Tensor

from crate_interp.analysis.atlas import Atlas, AtlasBuilder
from crate_interp.errors import InputError
from crate_interp.hooks import atom_site, record, written_dictionary
from crate_interp.models.text import TextTransformer

__all__ = ["TokenAtlas", "build_token_atlas"]

OUTSIDE = -1  # in place of a token: before the window, or after it
_MOST_SUMS = 1 << 25  # numbers that are added up by token and atom: 256 MB


@dataclass(frozen=True, eq=False)
class TokenAtlas:
    """Statistics of every atom over many windows, and the contexts it fires on most.

    Attributes:
        atlas: Statistics, in which an image is a window, and a patch a token of it. Its classes are
            the tokens of the vocabulary; it has none if they are too many.
        contexts: Tokens around each of the strongest ones, which stand in the middle; -1 outside of
            the window.
        values: Value of the atom on each token of its contexts, at least 0.
    """

    atlas: Atlas
    contexts: Int64[np.ndarray, "A P C"]
    values: Float32[np.ndarray, "A P C"]


def build_token_atlas(
    model: TextTransformer,
    windows: Int[np.ndarray, "W T"],
    block: int = -1,
    strongest: int = 10,
    around: int = 24,
    batch_size: int = 16,
    done: Callable[[int], object] = lambda _: None,
) -> TokenAtlas:
    """Put windows of a text through a model, twice: for the strongest tokens, then around them.

    Args:
        model: Model in evaluation mode, on the device to use.
        windows: Token numbers of each window.
        block: Block to read, from 0; negative counts from the last.
        strongest: Number of tokens to keep per atom, each of another window.
        around: Number of tokens of a context before the strongest one, and after it.
        batch_size: Number of windows in a forward pass.
        done: Is called after each window of the first pass, with 1.

    Raises:
        InputError: There is no window, no such block, or a number is no token's.
    """
    if not windows.size:
        raise InputError("expected a window of one token or more, found none")
    atoms = written_dictionary(model, block).shape[1]
    classes = model.vocabulary if model.vocabulary * atoms <= _MOST_SUMS else 0
    grid_hw, device = (1, windows.shape[1]), model.pos_embed.device
    builder = AtlasBuilder(atoms, grid_hw, classes, strongest, device)
    numbers = np.arange(len(windows))
    for number, codes in _codes_of(model, windows, block, numbers, batch_size):
        builder.add(number, codes, windows[number].astype(np.int64) if classes else None)
        done(1)
    atlas = builder.build()
    size = (*atlas.top_images.shape, 2 * around + 1)
    contexts, values = np.full(size, OUTSIDE, np.int64), np.zeros(size, np.float32)
    shown = np.unique(atlas.top_images[atlas.top_images >= 0])
    for number, codes in _codes_of(model, windows, block, shown, batch_size):
        of_window = codes.clamp(min=0).float().cpu().numpy()
        for atom, rank in np.argwhere(atlas.top_images == number):
            middle = int(atlas.top_patches[atom, rank])
            start, end = max(middle - around, 0), min(middle + around + 1, windows.shape[1])
            place = slice(start - middle + around, end - middle + around)
            contexts[atom, rank, place] = windows[number, start:end]
            values[atom, rank, place] = of_window[start:end, atom]
    return TokenAtlas(atlas, contexts, values)


@torch.inference_mode()
def _codes_of(
    model: TextTransformer,
    windows: Int[np.ndarray, "W T"],
    block: int,
    numbers: Int64[np.ndarray, " N"],
    batch_size: int,
) -> Iterator[tuple[int, Float[Tensor, "T A"]]]:
    """Values of the atoms at each token of some windows, by the number of the window."""
    site = atom_site(model, block)
    for start in range(0, len(numbers), batch_size):
        batch = numbers[start : start + batch_size]
        tokens = torch.from_numpy(windows[batch].astype(np.int64)).to(model.pos_embed.device)
        with record(model, [site], [block], stop_early=True) as recorder:
            model(tokens)
        yield from zip(batch.tolist(), recorder.activations[site, block], strict=True)
