"""The white-box objective: how far each block compresses, and how sparse its codes are."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from crate_interp.errors import InputError
from crate_interp.hooks import Site, anatomy_at, blocks_of, default_feature
from crate_interp.models.float64 import to_float64
from crate_interp.structures import Activations

__all__ = ["LayerObjective", "coding_rate", "layer_objective", "objective_sites"]


def coding_rate(
    features: Float[Tensor, "*batch N p"], eps: float = 0.01
) -> Float[Tensor, "*batch"]:
    """Nats that it takes to code N features of p dimensions, each scaled to unit length.

    R = 1/2 logdet(I + p / (N eps) X^T X), X of shape (N, p). It is computed on the smaller side, so
    that N and p may be any size, and in float64.

    Args:
        features: One feature per row; a feature of zeros stays zero.
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
    unit = F.normalize(to_float64(features), dim=-1)
    gram = unit.mT @ unit if dim <= count else unit @ unit.mT
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    factor = torch.linalg.cholesky(identity + dim / (count * eps) * gram)
    rate: Tensor = factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)  # det is its square
    return rate


@dataclass(frozen=True, eq=False)
class LayerObjective:
    """Compression and sparsity of a batch, one row per image, one column per block; float64.

    Attributes:
        coding_rate: R^c, the sum over heads of the coding rate of all tokens, nats.
        sparsity: Share of the entries of the codes that are zero, in [0, 1]; of a ViT's neurons,
            the share that is not above zero. `None` where neither was recorded.
        objective: R - R^c - lambda |A|_0 / N, nats per token; `None` for a model that was not
            derived from it, and where `tokens_in` or `codes` were not recorded.
    """

    coding_rate: Float[Tensor, "B L"]
    sparsity: Float[Tensor, "B L"] | None
    objective: Float[Tensor, "B L"] | None


def objective_sites(model: nn.Module) -> tuple[Site, ...]:
    """Sites that `layer_objective` reads to measure all that is defined for a model.

    Raises:
        InputError: As `available_sites`.
    """
    feature, atoms = default_feature(model), anatomy_at(model).atoms
    if atoms is None:
        return (feature,)
    if atoms.threshold is not None:
        return (Site.TOKENS_IN, feature, atoms.site)
    # The sign of a gated neuron does not tell whether it is shut.
    return (feature, atoms.site) if atoms.rectified else (feature,)


def layer_objective(
    model: nn.Module, activations: Activations, eps: float = 0.01
) -> LayerObjective:
    """Measure what the blocks of a white box are made to optimise: the sparse rate reduction.

        with record(model, objective_sites(model), blocks=range(len(model.blocks))) as recorder:
            model(pixels)
        objective = layer_objective(model, recorder.activations)

    With all N tokens, class token included, as attention reads them, Z = LN(z):

    - compression, R^c = sum over heads k of the coding rate of U_k* Z;
    - sparsity of the codes A that the block computes;
    - the whole objective, R(Z) - R^c - lambda |A|_0 / N, lambda being that of the block. The papers
      leave open how the number of entries is scaled; rates are nats per token, so are the entries.
      R(Z) - R^c is 0 at most where the heads are an orthogonal basis and each has an equal share
      of every token's length, and 0 where no two of them are correlated, either.

    Any other vision transformer was not derived from these. Such a model has the coding rate of the
    keys of its heads, and the share of its MLP's activations that are not above zero: a GELU is
    exactly zero nowhere, and negative where a ReLU would be zero.

    Args:
        model: The model that was recorded.
        activations: `subspace` or, without it, `key` of every block to measure; for sparsity and
            objective, also `codes` or `neurons`, and `tokens_in`.
        eps: See `coding_rate`.

    Returns:
        Blocks in ascending order.

    Raises:
        InputError: Neither subspace nor keys were recorded.

    Reference:
        Yu et al., arXiv 2306.01129, section 3.1 and equation 1; Li et al., The Lazy Neuron
        Phenomenon (arXiv 2210.06313), on the activations of MLPs.
    """
    sites = {site for site, _ in activations}
    site = Site.SUBSPACE.value if Site.SUBSPACE.value in sites else Site.KEY.value
    if site not in sites:
        raise InputError(
            f"expected subspace or key among the recorded sites, found {sorted(sites)}"
        )
    blocks = sorted(block for name, block in activations if name == site)
    rates, sparsities, objectives = [], [], []
    for block in blocks:
        module, anatomy = blocks_of(model)[block], anatomy_at(model, block)
        heads, atoms = anatomy.heads, anatomy.atoms
        if heads is None:
            raise InputError(f"block {block} of {type(model).__name__} does not attend")
        by_head = activations[site, block].unflatten(-1, (heads.num_heads, -1)).transpose(1, 2)
        rates.append(coding_rate(by_head, eps).sum(dim=1))
        if atoms is None or atoms.site.value not in sites:
            continue
        values = activations[atoms.site, block]
        if atoms.threshold is None:
            sparsities.append(to_float64(values <= 0).mean(dim=(1, 2)))
            continue
        sparsities.append(to_float64(values == 0).mean(dim=(1, 2)))
        if Site.TOKENS_IN.value in sites:
            with torch.no_grad():
                entering = activations[Site.TOKENS_IN, block].float()
                # Recorded tokens may have been taken to the CPU, where there is float64.
                entering = entering.to(next(module.parameters()).device)
                tokens = module.get_submodule(heads.norm)(entering)
            entries = to_float64(values != 0).sum(dim=2).mean(dim=1)
            whole = coding_rate(tokens, eps) - rates[-1]
            objectives.append(whole - atoms.threshold * entries)
    return LayerObjective(
        coding_rate=torch.stack(rates, dim=1),
        sparsity=torch.stack(sparsities, dim=1) if sparsities else None,
        objective=torch.stack(objectives, dim=1) if objectives else None,
    )
