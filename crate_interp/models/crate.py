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
from timm.layers import DropPath, LayerNorm, Mlp, get_device_dtype
from timm.models import generate_default_cfgs
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from crate_interp.errors import InputError
from crate_interp.models.anatomy import MLPS, Anatomy, Atoms, Place, Site
from crate_interp.models.families import (
    ALIASES,
    SHIPPED,
    SHIPPED_CFGS,
    load_pretrained,
    pretrained_cfg,
    register_family,
)
from crate_interp.models.patches import CratePatchEmbed
from crate_interp.models.subspace import SubspaceAttention, SubspaceBlock, choose, place_of

__all__ = ["ISTA", "Crate", "CrateBlock", "MlpBlock"]

logger = logging.getLogger(__name__)

OF_ISTA = ("step_size", "threshold", "soft_threshold")


class ISTA(nn.Module):
    """One proximal-gradient step towards a sparse code: ReLU(x + eta DT (x - D x) - eta lambda).

    Args:
        dim: Width D of the tokens.
        step_size: eta.
        threshold: lambda.
        soft_threshold: Take sign(v) max(|v| - eta lambda, 0) in place of ReLU(v - eta lambda):
            codes then have both signs.
        **place: `device` and `dtype` of the parameters.

    Attributes:
        weight: The dictionary D, (D, D).
        codes: The sparse code, which is the output, passes through this identity, (B, N, D).

    Reference:
        arXiv 2306.01129, section 2.4.
    """

    def __init__(
        self,
        dim: int,
        *,
        step_size: float = 0.1,
        threshold: float = 0.1,
        soft_threshold: bool = False,
        **place: Any,
    ) -> None:
        super().__init__()
        self.step_size = step_size
        self.threshold = threshold
        self.soft_threshold = soft_threshold
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
        step, shrinkage = gradient.mul_(self.step_size).add_(x), self.step_size * self.threshold
        if self.soft_threshold:
            step = F.softshrink(step, shrinkage)
        else:
            step = step.sub_(shrinkage).relu_()
        codes: Tensor = self.codes(step)
        return codes

    def extra_repr(self) -> str:
        """Say the sizes when the model is printed."""
        soft = ", soft_threshold=True" if self.soft_threshold else ""
        return f"{len(self.weight)}, step_size={self.step_size}, threshold={self.threshold}{soft}"


class CrateBlock(SubspaceBlock):
    """z_half = z + MSSA(LN(z)); z_next = ISTA(LN(z_half)), without a residual.

    Args:
        dim: Width D of the tokens.
        num_heads: Number of subspaces.
        step_size: eta of ISTA.
        threshold: lambda of ISTA.
        soft_threshold: As in `ISTA`.
        **arguments: Arguments of `SubspaceBlock`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        step_size: float = 0.1,
        threshold: float = 0.1,
        soft_threshold: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__(dim, num_heads, has_bias=True, **arguments)
        steps: Any = {"step_size": step_size, "threshold": threshold}
        self.mlp = ISTA(dim, soft_threshold=soft_threshold, **steps, **place_of(arguments))

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Map the tokens entering the block to those leaving it."""
        out: Tensor = self.mlp(self.norm2(self.attend(x)))
        return out

    def anatomy(self) -> Anatomy:
        """Say what can be read and changed: a code is a channel of the stream that leaves."""
        dictionary, is_signed = self.mlp.weight, self.mlp.soft_threshold

        def identity() -> Float[Tensor, "D D"]:
            return torch.eye(len(dictionary), device=dictionary.device)

        place, count = Place("mlp.codes"), len(dictionary)
        threshold = self.mlp.threshold
        atoms = Atoms(Site.CODES, count, place, identity, threshold, rectified=not is_signed)
        return self.anatomy_with(atoms)


class MlpBlock(SubspaceBlock):
    """CRATE's block with a ViT's MLP as its sparse step: z_next = z_half + MLP(LN(z_half)).

    ISTA has no residual, and the paper does not say whether the MLP in its place has one. Here it
    has, so that with the attention `mhsa` the block is a ViT's.

    Args:
        dim: Width D of the tokens.
        num_heads: Number of subspaces.
        mlp_ratio: Neurons over D. The MLP has about as many parameters as ISTA at 0.5.
        drop_path: Rate of stochastic depth, for both residual branches.
        **arguments: Arguments of `SubspaceBlock`.

    Reference:
        arXiv 2308.16271, whose ablation exchanges the two steps of a block one by one.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        **arguments: Any,
    ) -> None:
        super().__init__(dim, num_heads, has_bias=True, drop_path=drop_path, **arguments)
        drop = arguments.get("proj_drop", 0.0)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=drop, **place_of(arguments))
        self.drop_path2 = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Map the tokens entering the block to those leaving it."""
        x = self.attend(x)
        out: Tensor = x + self.drop_path2(self.mlp(self.norm2(x)))
        return out

    def anatomy(self) -> Anatomy:
        """Say what can be read and changed: neurons in place of sparse codes."""
        return self.anatomy_with(MLPS[Mlp](self, self.mlp))


class Crate(VisionTransformer):
    """A CRATE classifier: timm's VisionTransformer with `CrateBlock` and CRATE's patch embedding.

    The norm stands after pooling, so that patch features leave the last block un-normalised.

    Args:
        attention: `mssa`, or `mhsa`: a ViT's attention in its place.
        step: `ista`, or `mlp`: a ViT's MLP in its place, of `mlp_ratio` D neurons.
        pre_logits: Put a Linear(D, D) before the classifier, as the segmentation demo's weights
            (arXiv 2308.16271) have it.
        **arguments: Those of ISTA (`step_size`, `threshold`, `soft_threshold`), and of timm's
            VisionTransformer.

    Raises:
        InputError: There is no such attention or step, or arguments of ISTA are given without it.
    """

    def __init__(
        self,
        *,
        attention: str = "mssa",
        step: str = "ista",
        pre_logits: bool = False,
        **arguments: Any,
    ) -> None:
        block = choose("step", step, {"ista": CrateBlock, "mlp": MlpBlock})
        of_ista = {name: arguments.pop(name) for name in OF_ISTA if name in arguments}
        if of_ista and step != "ista":
            raise InputError(
                f"{', '.join(of_ista)}: expected with step ista only, found step {step}"
            )
        norm_layer = partial(LayerNorm, eps=1e-5)
        defaults: dict[str, Any] = {
            "fc_norm": True,
            "norm_layer": norm_layer,
            "embed_layer": CratePatchEmbed,
            "embed_norm_layer": norm_layer,
            "block_fn": partial(block, attention=attention, **of_ista),
        }
        super().__init__(**{**defaults, **arguments})
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


# The ablation of arXiv 2308.16271, at its size S/8: what stands in CRATE's blocks in place of what.
EXCHANGED = {
    "mlp": {"step": "mlp"},
    "mhsa": {"attention": "mhsa"},
    "mhsa_mlp": {"attention": "mhsa", "step": "mlp"},
}

default_cfgs = generate_default_cfgs(
    {
        "crate_tiny_patch16_224": _cfg(),
        "crate_small_patch16_224.in1k": _cfg(),
        "crate_base_patch16_224": _cfg(),
        "crate_large_patch16_224": _cfg(),
        "crate_small_patch8_224": _cfg(),
        "crate_base_patch8_224.in21k": _cfg(num_classes=21842, paper_ids="arXiv:2308.16271"),
        **{f"crate_{name}_small_patch8_224": _cfg() for name in EXCHANGED},
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
        **{
            f"crate_{name}_small_patch8_224": {**SMALL, "patch_size": 8, **blocks}
            for name, blocks in EXCHANGED.items()
        },
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
        **{f"crate_{name}_S8": f"crate_{name}_small_patch8_224" for name in EXCHANGED},
    }
)
