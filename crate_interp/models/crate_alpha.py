"""CRATE-alpha: overcomplete, decoupled dictionaries and a residual in the sparse step.

Reference: Scaling White-Box Transformers for Vision, arXiv 2405.20299.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import DropPath, LayerNorm, PatchEmbed
from timm.models import generate_default_cfgs
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from crate_interp.models.anatomy import Anatomy, Atoms, Place, Site
from crate_interp.models.crate import BASE, LARGE, SMALL
from crate_interp.models.families import (
    ALIASES,
    SHIPPED,
    SHIPPED_CFGS,
    load_pretrained,
    pretrained_cfg,
    register_family,
)
from crate_interp.models.subspace import SubspaceBlock, place_of

__all__ = ["ODL", "CrateAlpha", "CrateAlphaBlock", "released"]


class ODL(nn.Module):
    """Overcomplete dictionary learning: two proximal-gradient steps, then a second dictionary.

    From a = 0, two steps of ISTA on 0.5 |x - D a|^2 + lambda |a|_1 with a >= 0:
    a1 = ReLU(eta DT x - eta lambda), a2 = ReLU(a1 - eta DT (D a1 - x) - eta lambda); the output is
    D1 a2, or D a2 where the dictionaries are tied.

    Args:
        dim: Width D of the tokens.
        hidden_dim: Number of dictionary atoms, 4 D in every published model.
        tied: Whether the dictionary that encodes writes back, too.
        step_size: eta.
        threshold: lambda.
        **place: `device` and `dtype` of the parameters.

    Attributes:
        D: Dictionary that encodes, (D, 4D).
        D1: Dictionary that writes back, (D, 4D); `None` if tied.
        codes: The sparse code a2 passes through this identity, (B, N, 4D).

    Reference:
        arXiv 2405.20299, section 3.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        *,
        tied: bool = False,
        step_size: float = 0.1,
        threshold: float = 0.1,
        **place: Any,
    ) -> None:
        super().__init__()
        self.step_size = step_size
        self.threshold = threshold
        self.D = nn.Parameter(torch.empty(dim, hidden_dim, **place))
        self.D1 = None if tied else nn.Parameter(torch.empty(dim, hidden_dim, **place))
        self.codes = nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw both dictionaries anew, as the release does."""
        nn.init.kaiming_uniform_(self.D)
        if self.D1 is not None:
            nn.init.kaiming_uniform_(self.D1)

    @property
    def written(self) -> Float[Tensor, "D A"]:
        """Dictionary that writes back."""
        return self.D if self.D1 is None else self.D1

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """From normalised tokens to what the sparse step adds to the residual stream."""
        shrinkage = self.step_size * self.threshold
        # In place throughout: no gradient needs a value from before a ReLU.
        first = F.linear(x, self.D.t()).mul_(self.step_size).sub_(shrinkage).relu_()
        gradient = F.linear(F.linear(first, self.D) - x, self.D.t())
        step = gradient.mul_(-self.step_size).add_(first).sub_(shrinkage)
        codes: Tensor = self.codes(step.relu_())
        return F.linear(codes, self.written)

    def extra_repr(self) -> str:
        """Say the sizes when the model is printed."""
        dim, hidden_dim = self.D.shape
        return f"{dim}, {hidden_dim}, step_size={self.step_size}, threshold={self.threshold}"


class CrateAlphaBlock(SubspaceBlock):
    """z_half = z + MSSA(LN(z)); z_next = z_half + ODL(LN(z_half)).

    Args:
        dim: Width D of the tokens.
        num_heads: Number of subspaces.
        mlp_ratio: Dictionary atoms over D.
        tied: Whether ODL has one dictionary.
        residual: Whether z_half is added; without, z_next = ODL(LN(z_half)).
        step_size: eta of ODL.
        threshold: lambda of ODL.
        drop_path: Rate of stochastic depth, for both residual branches.
        **arguments: Arguments of `SubspaceBlock`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        tied: bool = False,
        residual: bool = True,
        step_size: float = 0.1,
        threshold: float = 0.1,
        drop_path: float = 0.0,
        **arguments: Any,
    ) -> None:
        super().__init__(dim, num_heads, has_bias=False, drop_path=drop_path, **arguments)
        steps: Any = {"step_size": step_size, "threshold": threshold}
        self.residual = residual
        self.mlp = ODL(dim, int(dim * mlp_ratio), tied=tied, **steps, **place_of(arguments))
        self.drop_path2 = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Map the tokens entering the block to those leaving it."""
        x = self.attend(x)
        written: Tensor = self.mlp(self.norm2(x))
        return x + self.drop_path2(written) if self.residual else written

    def anatomy(self) -> Anatomy:
        """Say what can be read and changed: D1 of ODL writes the codes into the stream."""
        dictionary = self.mlp.written
        place, count = Place("mlp.codes"), dictionary.shape[1]
        atoms = Atoms(Site.CODES, count, place, dictionary.detach, self.mlp.threshold)
        return self.anatomy_with(atoms)


def _unbiased_patch_embed(**arguments: Any) -> PatchEmbed:
    return PatchEmbed(**{**arguments, "bias": False})  # timm's VisionTransformer asks for one


class CrateAlpha(VisionTransformer):
    """A CRATE-alpha classifier: timm's VisionTransformer with `CrateAlphaBlock`.

    The norm stands after pooling, so that patch features leave the last block un-normalised.

    Args:
        tied: Whether ODL has one dictionary, as on the paper's way from CRATE to CRATE-alpha.
        residual: Whether the sparse step has a residual; on that way it comes last.
        step_size: eta of ODL.
        threshold: lambda of ODL.
        projection_head: The vision tower of a CLIP: a head without a bias maps to the space of
            the text embeddings, of `num_classes` dimensions, and the patch embedding has no bias.
        **timm_arguments: Arguments of timm's VisionTransformer.
    """

    def __init__(
        self,
        *,
        tied: bool = False,
        residual: bool = True,
        step_size: float = 0.1,
        threshold: float = 0.1,
        projection_head: bool = False,
        **timm_arguments: Any,
    ) -> None:
        steps: dict[str, Any] = {"step_size": step_size, "threshold": threshold}
        block = partial(CrateAlphaBlock, tied=tied, residual=residual, **steps)
        defaults: dict[str, Any] = {
            "fc_norm": True,
            "norm_layer": partial(LayerNorm, eps=1e-6),
            "embed_layer": _unbiased_patch_embed if projection_head else PatchEmbed,
            "block_fn": block,
        }
        super().__init__(**{**defaults, **timm_arguments})
        self.projection_head = projection_head
        self._remove_head_bias()

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Begin a new head of so many outputs, 0 for none; `global_pool` is as in timm."""
        super().reset_classifier(num_classes, global_pool)
        self._remove_head_bias()

    def _remove_head_bias(self) -> None:
        if self.projection_head and isinstance(self.head, nn.Linear):
            self.head.register_parameter("bias", None)

    load_pretrained = load_pretrained


def _cfg(**differences: Any) -> dict[str, Any]:
    return pretrained_cfg(
        paper_ids="arXiv:2405.20299",
        paper_name="Scaling White-Box Transformers for Vision",
        origin_url="https://github.com/UCSC-VLAA/CRATE-alpha",
        **differences,
    )


def released(filename: str, **differences: Any) -> dict[str, Any]:
    """Describe a file of the release on the hub, as `pretrained_cfg` does."""
    return _cfg(hf_hub_id="UCSC-VLAA/CRATE-alpha", hf_hub_filename=filename, **differences)


def _in21k(filename: str) -> dict[str, Any]:
    return released(f"torch/in21k_Pretrain/{filename}", num_classes=19167)


def _jax(filename: str) -> dict[str, Any]:
    # "hf" makes timm call `load_pretrained` on the downloaded file
    return released(f"jax/{filename}", custom_load="hf")


# timm takes the first tag of an architecture as its default: the fine-tuned weights.
default_cfgs = generate_default_cfgs(
    {
        "crate_alpha_tiny_patch16_224": _cfg(),
        "crate_alpha_small_patch16_224": _cfg(),
        "crate_alpha_base_patch32_224.in21k": _in21k("crate_alpha_B32_in21k.pth"),
        "crate_alpha_base_patch16_224.in1k": released("torch/crate_alpha_B16.pth"),
        "crate_alpha_base_patch16_224.in1k_jax": _jax("crate_alpha_B16_in1k.npz"),
        "crate_alpha_base_patch16_224.in21k": _in21k("crate_alpha_B16_IN21K"),
        "crate_alpha_base_patch8_224.in1k": _jax("crate_alpha_B8_in1k.npz"),
        "crate_alpha_base_patch8_224.in21k": _in21k("crate_alpha_B8_IN21K"),
        "crate_alpha_large_patch32_224.in21k": _in21k("crate_alpha_L32_in21k.pth"),
        "crate_alpha_large_patch14_224.in1k": released("torch/crate_alpha_L14.pth"),
        "crate_alpha_large_patch14_224.in1k_jax": _jax("crate_alpha_L14_in1k.npz"),
        "crate_alpha_large_patch14_224.in21k": _in21k("crate_alpha_L14_IN21K"),
        "crate_alpha_large_patch8_224.in1k": _jax("crate_alpha_L8_in1k.npz"),
        "crate_alpha_large_patch8_224.in21k": _in21k("crate_alpha_L8_IN21K"),
        "crate_alpha_huge_patch14_224": _cfg(),
        **{f"crate_alpha_{name}": _cfg(**cfg) for name, cfg in SHIPPED_CFGS.items()},
    }
)

TINY = {"embed_dim": 192, "depth": 12, "num_heads": 3}
HUGE = {"embed_dim": 1280, "depth": 32, "num_heads": 16}


register_family(
    __name__,
    CrateAlpha,
    {
        "crate_alpha_tiny_patch16_224": {**TINY, "patch_size": 16},
        "crate_alpha_small_patch16_224": {**SMALL, "patch_size": 16},
        "crate_alpha_base_patch32_224": {**BASE, "patch_size": 32},
        "crate_alpha_base_patch16_224": {**BASE, "patch_size": 16},
        "crate_alpha_base_patch8_224": {**BASE, "patch_size": 8},
        "crate_alpha_large_patch32_224": {**LARGE, "patch_size": 32},
        "crate_alpha_large_patch14_224": {**LARGE, "patch_size": 14},
        "crate_alpha_large_patch8_224": {**LARGE, "patch_size": 8},
        "crate_alpha_huge_patch14_224": {**HUGE, "patch_size": 14},
        **{f"crate_alpha_{name}": sizes for name, sizes in SHIPPED.items()},
    },
)
ALIASES.update(
    {
        "demo": "crate_alpha_demo",
        "photo": "crate_alpha_photo",
        "crate_alpha_T16": "crate_alpha_tiny_patch16_224",
        "crate_alpha_S16": "crate_alpha_small_patch16_224",
        "crate_alpha_B32": "crate_alpha_base_patch32_224.in21k",
        "crate_alpha_B16": "crate_alpha_base_patch16_224.in1k",
        "crate_alpha_B8": "crate_alpha_base_patch8_224.in1k",
        "crate_alpha_L32": "crate_alpha_large_patch32_224.in21k",
        "crate_alpha_L14": "crate_alpha_large_patch14_224.in1k",
        "crate_alpha_L8": "crate_alpha_large_patch8_224.in1k",
        "crate_alpha_H14": "crate_alpha_huge_patch14_224",
    }
)
