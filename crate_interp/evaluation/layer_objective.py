"""The white-box objective: how far each block compresses, and how sparse its codes are."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.hooks import Site
from crate_interp.structures import Activations

__all__ = ["LayerObjective", "coding_rate", "layer_objective"]


def coding_rate(
    features: Float[Tensor, "*batch N p"], eps: float = 0.01
) -> Float[Tensor, "*batch"]:
    """Nats that it takes to code N features of p dimensions, each scaled to unit length.

    R = 1/2 logdet(I + p / (N eps) X^T X), X of shape (N, p). It is computed on the smaller side, so
    that N and p may be any size, and in float64.

    Args:
        features: One a row; a feature of zeros stays zero.
        eps: Squared distortion allowed, relative to features of unit length; above 0.

    Returns:
        Float64. At least 0; at most p/2 log(1 + 1/eps), where all directions are used alike.

    Raises:
        InputError: No feature, a feature without dimensions, not floating-point, or not finite;
            `eps` not a positive number.

    Reference:
        Yu et al., White-Box Transformers via Sparse Rate Reduction (arXiv 2306.01129), section 2.
    """
    if not (isfinite(eps) and eps > 0):
        raise InputError(f"eps: expected a positive number, found {eps}")
    shape = tuple(features.shape)
    if features.ndim < 2 or 0 in shape[-2:] or not features.is_floating_point():
        raise InputError(
            "features: expected floating-point numbers of shape (..., N, p), at least one feature, "
            f"found {features.dtype} of shape {shape}"
        )
    if not features.isfinite().all():
        raise InputError("features: expected finite numbers, found NaN or infinity")
    count, dim = shape[-2:]
    unit = F.normalize(features.double(), dim=-1)
    gram = unit.mT @ unit if dim <= count else unit @ unit.mT
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    factor = torch.linalg.cholesky(identity + dim / (count * eps) * gram)
    rate: Tensor = factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)  # det is its square
    return rate


@dataclass(frozen=True, eq=False)
class LayerObjective:
    """Compression and sparsity of a batch, one row an image, one column a block.

    Attributes:
        coding_rate: Sum over heads of the coding rate of all tokens, nats.
        sparsity: Share of the entries of the codes that are exactly zero, in [0, 1]; `None` for a
            model without codes.
    """

    coding_rate: Float[Tensor, "B L"]
    sparsity: Float[Tensor, "B L"] | None


def layer_objective(activations: Activations, num_heads: int, eps: float = 0.01) -> LayerObjective:
    """Measure the compression of each block's heads and the sparsity of its codes.

        with record(model, ["subspace", "codes"], blocks=range(len(model.blocks))) as recorder:
            model(pixels)
        objective = layer_objective(recorder.activations, model.blocks[0].attn.num_heads)

    What is compressed are all tokens, class token included, as each head sees them: U_k* LN(z) of
    CRATE families. For any other vision transformer the keys of the heads take their place; the
    activations of its MLP are not zero anywhere after a GELU, so it has no sparsity.

    Args:
        activations: `subspace` or, without it, `key`, and `codes` where there are any, of every
            block that is to be measured.
        num_heads: K of the model.
        eps: See `coding_rate`.

    Returns:
        Float64, blocks in ascending order.

    Raises:
        InputError: Neither subspace nor keys were recorded, or the heads do not divide them.

    Reference:
        Yu et al., arXiv 2306.01129, section 3.1.
    """
    sites = {site for site, _ in activations}
    site = Site.SUBSPACE.value if Site.SUBSPACE.value in sites else Site.KEY.value
    if site not in sites:
        raise InputError(
            f"expected subspace or key among the recorded sites, found {sorted(sites)}"
        )
    blocks = sorted(block for name, block in activations if name == site)
    rates = []
    for block in blocks:
        tokens = activations[site, block]
        if num_heads < 1 or tokens.shape[-1] % num_heads:
            raise InputError(f"num_heads: {num_heads} do not divide features of {tokens.shape[-1]}")
        heads = tokens.unflatten(-1, (num_heads, -1)).transpose(1, 2)
        rates.append(coding_rate(heads, eps).sum(dim=1))
    zeros = [
        (activations[Site.CODES.value, block] == 0).double().mean(dim=(1, 2))
        for block in blocks
        if Site.CODES.value in sites
    ]
    return LayerObjective(torch.stack(rates, dim=1), torch.stack(zeros, dim=1) if zeros else None)
