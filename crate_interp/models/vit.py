"""The ViT that is shipped as the black-box rival of the white boxes; all others are timm's."""

from __future__ import annotations

from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from crate_interp.models.families import DEMO, DEMO_CFG, build_with_timm, pretrained_cfg

__all__ = ["vit_demo"]

default_cfgs = generate_default_cfgs({"vit_demo": pretrained_cfg(**DEMO_CFG)})


@register_model
def vit_demo(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """As large as `crate_alpha_demo` and `crate_demo`, and trained alike."""
    return build_with_timm(VisionTransformer, "vit_demo", pretrained, kwargs, **DEMO)
