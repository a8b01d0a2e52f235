"""Contributions of the atoms of a block to the residual stream.

Shapes: A atoms, T tokens, D embed dim.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from crate_interp.errors import InputError
from crate_interp.hooks.sites import atoms_at

__all__ = ["AtomContributions", "atom_contributions", "written_dictionary"]


def written_dictionary(model: nn.Module, block: int) -> Float[Tensor, "D A"]:
    """Vectors that a value of 1 of each atom of a block adds to the residual stream, as columns.

    CRATE-alpha: D1 of ODL. CRATE: the identity, since the code itself is the stream that leaves the
    block. ViT: the second layer's weight of the MLP, times LayerScale's where there is one; its
    bias is no atom's.

    Args:
        model: A CRATE family model or a timm vision transformer.
        block: Number of the block, from 0; negative counts from the last.

    Raises:
        InputError: As `atoms_at`.
    """
    return atoms_at(model, block).dictionary()


@dataclass(frozen=True, eq=False)
class AtomContributions:
    """Contributions of atoms to what a block writes at some tokens.

    Attributes:
        share: Signed part of the atom: the component of its contribution a_k d_k along the sum y of
            all contributions, over the length of y; of several tokens, sum `<a_k d_k, y>`
            over sum `<y, y>`. The shares of all atoms sum to 1 (to 0 where nothing is written).
        norm: Mean length of a_k d_k over the tokens.
    """

    share: Float64[np.ndarray, " A"]
    norm: Float64[np.ndarray, " A"]


def atom_contributions(
    codes: Float[Tensor, "T A"], dictionary: Float[Tensor, "D A"]
) -> AtomContributions:
    """Split what a block writes at some tokens into the contributions of its atoms.

    Args:
        codes: Values of the atoms at the tokens.
        dictionary: As `written_dictionary` gives it.

    Raises:
        InputError: No token, or the widths differ.
    """
    if codes.ndim != 2 or not len(codes) or codes.shape[1] != dictionary.shape[1]:
        raise InputError(
            f"codes: expected one token or more of {dictionary.shape[1]} atoms, found shape "
            f"{tuple(codes.shape)}"
        )
    values, columns = codes.cpu().double(), dictionary.cpu().double()
    written = values @ columns.T
    along = (values * (written @ columns)).sum(dim=0)
    length = written.square().sum()
    norm = values.abs().mean(dim=0) * columns.norm(dim=0)
    share = along / length if length > 0 else torch.zeros_like(along)
    return AtomContributions(share.numpy(), norm.numpy())
