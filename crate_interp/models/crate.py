"""CRATE: white-box transformer of subspace attention (MSSA) and sparse coding (ISTA).

Reference: White-Box Transformers via Sparse Rate Reduction, arXiv 2306.01129 and 2311.13110.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import LayerNorm, get_device_dtype
from timm.models import generate_default_cfgs
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from crate_interp.models.anatomy import Anatomy, Atoms, Place, Site
from crate_interp.models.families import (
    ALIASES,
    SHIPPED,
    SHIPPED_CFGS,
    load_pretrained,
    pretrained_cfg,
    register_family,
)
from crate_interp.models.patches import CratePatchEmbed
from crate_interp.models.subspace import SubspaceAttention, SubspaceBlock, place_of

__all__ = ["ISTA", "Crate", "CrateBlock"]

logger = logging.getLogger(__name__)


class ISTA(nn.Module):
    """One proximal-gradient step towards a sparse code: ReLU(x + eta DT (x - D x) - eta lambda).

    Args:
        dim: Width D of the tokens.
        step_size: eta.
        threshold: lambda.
        **place: `device` and `dtype` of the parameters.

    Attributes:
        weight: The dictionary D, (D, D).
        codes: The sparse code, which is the output, passes through this identity, (B, N, D).

    Reference:
        arXiv 2306.01129, section 2.4.
    """

    def __init__(
        self, dim: int, *, step_size: float = 0.1, threshold: float = 0.1, **place: Any
    ) -> None:
        super().__init__()
        self.step_size = step_size
        self.threshold = threshold
        self.weight = nn.Parameter(torch.empty(dim, dim, **place))
        self.codes = nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the dictionary anew, as the release does."""
        nn.init.kaiming_uniform_(self.weight)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Take one step from normalised tokens to their sparse code."""
        gradient = F.linear(x - F.linear(x, self.weight), self.weight.t())
        # In place: no gradient needs a value from before the ReLU.
        step = gradient.mul_(self.step_size).add_(x).sub_(self.step_size * self.threshold)
        codes: Tensor = self.codes(step.relu_())
        return codes

    def extra_repr(self) -> str:
        """Say the sizes when the model is printed."""
        return f"{len(self.weight)}, step_size={self.step_size}, threshold={self.threshold}"


class CrateBlock(SubspaceBlock):
    """z_half = z + MSSA(LN(z)); z_next = ISTA(LN(z_half)), without a residual.

    Args:
        dim: Width D of the tokens.
        num_heads: Number of subspaces.
        step_size: eta of ISTA.
        threshold: lambda of ISTA.
        **arguments: Arguments of `SubspaceBlock`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        step_size: float = 0.1,
        threshold: float = 0.1,
        **arguments: Any,
    ) -> None:
        super().__init__(dim, num_heads, has_bias=True, **arguments)
        self.mlp = ISTA(dim, step_size=step_size, threshold=threshold, **place_of(arguments))

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Map the tokens entering the block to those leaving it."""
        out: Tensor = self.mlp(self.norm2(self.attend(x)))
        return out

    def anatomy(self) -> Anatomy:
        """Say what can be read and changed: a code is a channel of the stream that leaves."""
        dictionary = self.mlp.weight

        def identity() -> Float[Tensor, "D D"]:
            return torch.eye(len(dictionary), device=dictionary.device)

        place = Place("mlp.codes")
        atoms = Atoms(Site.CODES, len(dictionary), place, identity, self.mlp.threshold)
        return self.anatomy_with(atoms)


class Crate(VisionTransformer):
    """A CRATE classifier: timm's VisionTransformer with `CrateBlock` and CRATE's patch embedding.

    The norm stands after pooling, so that patch features leave the last block un-normalised.

    Args:
        step_size: eta of ISTA.
        threshold: lambda of ISTA.
        pre_logits: Put a Linear(D, D) before the classifier, as the segmentation demo's weights
            (arXiv 2308.16271) have it.
        **timm_arguments: Arguments of timm's VisionTransformer.
    """

    def __init__(
        self,
        *,
        step_size: float = 0.1,
        threshold: float = 0.1,
        pre_logits: bool = False,
        **timm_arguments: Any,
    ) -> None:
        norm_layer = partial(LayerNorm, eps=1e-5)
        defaults: dict[str, Any] = {
            "fc_norm": True,
            "norm_layer": norm_layer,
            "embed_layer": CratePatchEmbed,
            "embed_norm_layer": norm_layer,
            "block_fn": partial(CrateBlock, step_size=step_size, threshold=threshold),
        }
        super().__init__(**{**defaults, **timm_arguments})
        self.pre_logits: nn.Module = nn.Identity()
        if pre_logits:
            self.pre_logits = self._linear()

    def forward_head(
        self, x: Float[Tensor, "B N D"], pre_logits: bool = False
    ) -> Float[Tensor, "B ..."]:
        """Map the tokens that leave the last block to class scores.

        Args:
            x: Tokens that leave the last block.
            pre_logits: Stop before the classifier.

        Returns:
            Class scores, or what the classifier would see.
        """
        x = self.head_drop(self.pre_logits(self.fc_norm(self.pool(x))))
        return x if pre_logits else self.head(x)

    def fit_to(self, tensors: Mapping[str, Tensor]) -> None:
        """Let the layer before the classifier be there if a file has it, and only then.

        Args:
            tensors: Tensors of the file by the parameter's name.
        """
        weight = tensors.get("pre_logits.weight")
        if isinstance(self.pre_logits, nn.Linear) == (weight is not None):
            return
        logger.info("the file has %s layer before the classifier", "no" if weight is None else "a")
        num_heads = cast("SubspaceAttention", self.blocks[0].get_submodule("attn")).num_heads
        if weight is not None and num_heads != 6:
            logger.warning(
                "a layer before the classifier is a mark of the segmentation demo's weights: they "
                "have 6 heads, which the file does not tell, and the model has others"
            )
        self.pre_logits = nn.Identity() if weight is None else self._linear()

    def _linear(self) -> nn.Linear:
        return nn.Linear(self.embed_dim, self.embed_dim, **get_device_dtype(self))

    load_pretrained = load_pretrained


def _cfg(**differences: Any) -> dict[str, Any]:
    return pretrained_cfg(
        **{
            "first_conv": None,  # the stem is no convolution
            "paper_ids": "arXiv:2306.01129",
            "paper_name": "White-Box Transformers via Sparse Rate Reduction",
            "origin_url": "https://github.com/Ma-Lab-Berkeley/CRATE",
            **differences,
        }
    )


default_cfgs = generate_default_cfgs(
    {
        "crate_tiny_patch16_224": _cfg(),
        "crate_small_patch16_224.in1k": _cfg(),
        "crate_base_patch16_224": _cfg(),
        "crate_large_patch16_224": _cfg(),
        "crate_small_patch8_224": _cfg(),
        "crate_base_patch8_224.in21k": _cfg(num_classes=21842, paper_ids="arXiv:2308.16271"),
        **{f"crate_{name}": _cfg(**cfg) for name, cfg in SHIPPED_CFGS.items()},
    }
)

TINY = {"embed_dim": 384, "depth": 12, "num_heads": 6}
SMALL = {"embed_dim": 576, "depth": 12, "num_heads": 12}
BASE = {"embed_dim": 768, "depth": 12, "num_heads": 12}
LARGE = {"embed_dim": 1024, "depth": 24, "num_heads": 16}


register_family(
    __name__,
    Crate,
    {
        "crate_tiny_patch16_224": {**TINY, "patch_size": 16},
        "crate_small_patch16_224": {**SMALL, "patch_size": 16},
        "crate_base_patch16_224": {**BASE, "patch_size": 16},
        "crate_large_patch16_224": {**LARGE, "patch_size": 16},
        "crate_small_patch8_224": {**SMALL, "patch_size": 8},
        "crate_base_patch8_224": {**BASE, "patch_size": 8},
        "crate_base_patch8_224.in21k": {"num_heads": 6, "pre_logits": True},
        **{f"crate_{name}": sizes for name, sizes in SHIPPED.items()},
    },
)
ALIASES.update(
    {
        "demo_crate": "crate_demo",
        "photo_crate": "crate_photo",
        "crate_T16": "crate_tiny_patch16_224",
        "crate_S16": "crate_small_patch16_224.in1k",
        "crate_B16": "crate_base_patch16_224",
        "crate_L16": "crate_large_patch16_224",
        "crate_S8": "crate_small_patch8_224",
        "crate_B8": "crate_base_patch8_224.in21k",
    }
)
