"""Names of models: the papers' short names, and what timm calls them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import timm
from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg, model_entrypoint

from crate_interp.errors import InputError

__all__ = ["ALIASES", "ModelName", "nearest_names", "our_architectures", "resolve_name"]

VIT_MODULES = ("vision_transformer", "deit")  # where timm keeps its VisionTransformer models

# An alias without a tag has no published weights under that name: `vit_S8` is the supervised
# ViT-S/8 of the CRATE papers, and timm's only weights of that architecture are DINO's.
ALIASES: dict[str, str] = {
    "demo": "crate_alpha_demo",
    "demo_crate": "crate_demo",
    "demo_vit": "vit_demo",
    "crate_T16": "crate_tiny_patch16_224",
    "crate_S16": "crate_small_patch16_224.in1k",
    "crate_B16": "crate_base_patch16_224",
    "crate_L16": "crate_large_patch16_224",
    "crate_S8": "crate_small_patch8_224",
    "crate_B8": "crate_base_patch8_224.in21k",
    "crate_mae_S16": "crate_mae_small_patch16_224",
    "crate_mae_B16": "crate_mae_base_patch16_224.in1k",
    "crate_alpha_T16": "crate_alpha_tiny_patch16_224",
    "crate_alpha_S16": "crate_alpha_small_patch16_224",
    "crate_alpha_B32": "crate_alpha_base_patch32_224.in21k",
    "crate_alpha_B16": "crate_alpha_base_patch16_224.in1k",
    "crate_alpha_B8": "crate_alpha_base_patch8_224.in1k",
    "crate_alpha_L32": "crate_alpha_large_patch32_224.in21k",
    "crate_alpha_L14": "crate_alpha_large_patch14_224.in1k",
    "crate_alpha_L8": "crate_alpha_large_patch8_224.in1k",
    "crate_alpha_H14": "crate_alpha_huge_patch14_224",
    "crate_alpha_CLIPA_L14": "crate_alpha_clipa_large_patch14_224.clipa",
    "crate_alpha_CLIPA_H14": "crate_alpha_clipa_huge_patch14_224.clipa",
    "vit_T16": "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "vit_S32": "vit_small_patch32_224.augreg_in21k_ft_in1k",
    "vit_S16": "vit_small_patch16_224.augreg_in21k_ft_in1k",
    "vit_S8": "vit_small_patch8_224",
    "vit_B32": "vit_base_patch32_224.augreg_in21k_ft_in1k",
    "vit_B16": "vit_base_patch16_224.augreg2_in21k_ft_in1k",
    "vit_B8": "vit_base_patch8_224.augreg2_in21k_ft_in1k",
    "vit_L32": "vit_large_patch32_224.orig_in21k",
    "vit_L16": "vit_large_patch16_224.augreg_in21k_ft_in1k",
    "vit_H14": "vit_huge_patch14_224.orig_in21k",
    "dino_vits16": "vit_small_patch16_224.dino",
    "dino_vits8": "vit_small_patch8_224.dino",
    "dino_vitb16": "vit_base_patch16_224.dino",
    "dino_vitb8": "vit_base_patch8_224.dino",
    "dinov2_vits14": "vit_small_patch14_dinov2.lvd142m",
    "dinov2_vitb14": "vit_base_patch14_dinov2.lvd142m",
    "dinov2_vitl14": "vit_large_patch14_dinov2.lvd142m",
    "dinov2_vitg14": "vit_giant_patch14_dinov2.lvd142m",
}
_BY_LOWER_CASE = {alias.lower(): target for alias, target in ALIASES.items()}


@dataclass(frozen=True)
class ModelName:
    """An architecture registered in timm, and which of its weights.

    Attributes:
        architecture: timm's name, for instance `crate_alpha_large_patch8_224`.
        tag: Name of the weights, for instance `in1k`; `None` if none are published.
    """

    architecture: str
    tag: str | None

    def __str__(self) -> str:
        return f"{self.architecture}.{self.tag}" if self.tag else self.architecture


def resolve_name(name: str) -> ModelName:
    """Find the architecture and the weights that a name means.

    Args:
        name: An alias (`crate_alpha_L8`) or a timm architecture, either with an optional tag of
            weights (`crate_alpha_L8.in21k`); upper and lower case are alike. Without a tag an
            alias means the weights of its table row, an architecture its first ones, as in timm.

    Returns:
        The architecture and tag, both registered in timm.

    Raises:
        InputError: No such model, or no such weights of it; the message offers the nearest.
    """
    base, _, tag = name.strip().lower().partition(".")
    alias_target = _BY_LOWER_CASE.get(base)
    architecture, _, alias_tag = (alias_target or base).partition(".")
    if not _is_listed(architecture):
        offers = ", ".join(nearest_names(name)) or "none; `crate-interp models` lists them"
        raise InputError(f"unknown model {name!r}; nearest names: {offers}")
    if alias_target and not tag:
        return ModelName(architecture, alias_tag or None)
    if not tag:
        default = get_pretrained_cfg(architecture)
        return ModelName(architecture, (default and default.tag) or None)
    known = [str(full).partition(".")[2] for full in get_arch_pretrained_cfgs(architecture)]
    if tag not in known:
        raise InputError(
            f"{architecture} has no weights {tag!r}; it has: {', '.join(filter(None, known))}"
            if any(known)
            else f"{architecture} has no weights {tag!r}: none are published"
        )
    return ModelName(architecture, tag)


def nearest_names(name: str, count: int = 5) -> list[str]:
    """Give the known aliases and architectures most like a name, the nearest first.

    Args:
        name: What was asked for; upper and lower case are alike, a tag is ignored.
        count: How many to offer, at most.

    Returns:
        Aliases, architectures of this package, and timm's vision transformers; may be empty.
    """
    base = name.strip().lower().partition(".")[0]
    spelling = {alias.lower(): alias for alias in ALIASES}
    spelling |= {known: known for known in our_architectures()}
    spelling |= {known: known for known in timm.list_models(module=VIT_MODULES)}
    return [spelling[match] for match in difflib.get_close_matches(base, spelling, count, 0.4)]


def our_architectures() -> list[str]:
    """List the architectures that this package registers in timm, in natural order."""
    return [
        name
        for name in timm.list_models(["crate*", "vit_demo"])
        if _module_of(name) == "crate_interp"
    ]


def _module_of(architecture: str) -> str:
    return str(model_entrypoint(architecture).__module__).partition(".")[0]


def _is_listed(architecture: str) -> bool:
    # not timm.is_model: it knows deprecated names too, which have no weights of their own
    return architecture in timm.list_models(architecture)
