"""How the heads' subspaces lie to each other.

Shapes: K heads, d = D/K dimensions of a head, D embed dim.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from crate_interp.errors import InputError
from crate_interp.models.anatomy import Site, anatomy_of
from crate_interp.models.backbones import blocks_of

__all__ = ["SubspaceCoherence", "subspace_coherence"]


@dataclass(frozen=True, eq=False)
class SubspaceCoherence:
    """Coherence of the subspaces of a block.

    Attributes:
        cosines: Magnitude of the cosine between any two directions of the subspaces, in [0, 1];
            the directions of a head are adjacent.
        num_heads: Number of heads K.
    """

    cosines: Float[np.ndarray, "K*d K*d"]
    num_heads: int

    @property
    def within(self) -> float:
        """Mean over two directions of one head; NaN if a head has one direction."""
        same = self._of_same_head & ~np.eye(len(self.cosines), dtype=bool)
        return float(self.cosines[same].mean()) if same.any() else float("nan")

    @property
    def between(self) -> float:
        """Mean over two directions of two heads; NaN for a single head."""
        other = ~self._of_same_head
        return float(self.cosines[other].mean()) if other.any() else float("nan")

    @property
    def _of_same_head(self) -> np.ndarray:
        heads = np.arange(len(self.cosines)) * self.num_heads // len(self.cosines)
        return np.equal.outer(heads, heads)


def subspace_coherence(model: nn.Module) -> list[SubspaceCoherence]:
    """Measure, block by block, whether the heads' subspaces U_k are orthogonal to each other.

    A row of the shared projection U is a direction of a subspace. Rows are brought to unit length,
    so that U_k* U_l holds cosines, whatever the scale of the heads.

    Args:
        model: A CRATE or CRATE-alpha, whose attention has one projection for query, key and value.

    Raises:
        InputError: A block has no such projection.

    Reference:
        arXiv 2306.01129, section on the learnt subspaces: their figure is of the plain products.
    """
    return [_of_block(block, number) for number, block in enumerate(blocks_of(model))]


def _of_block(block: nn.Module, number: int) -> SubspaceCoherence:
    anatomy = anatomy_of(block)
    if Site.SUBSPACE not in anatomy.places or anatomy.heads is None:
        raise InputError(
            f"block {number}: expected subspaces, as CRATE's attention has them, found "
            f"{type(block).__name__} with {', '.join(site.value for site in anatomy.places)}"
        )
    (part,) = anatomy.places[Site.SUBSPACE].parts
    weight = block.get_submodule(part.path).get_parameter("weight").detach()
    directions: Tensor = torch.nn.functional.normalize(weight.double().cpu(), dim=1)
    cosines = (directions @ directions.T).abs().clamp(max=1)
    return SubspaceCoherence(cosines.numpy(), anatomy.heads.num_heads)
