"""The ViTs that are shipped as the black-box rivals of the white boxes; all others are timm's."""

from timm.models import generate_default_cfgs
from timm.models.vision_transformer import VisionTransformer

from crate_interp.models.families import (
    ALIASES,
    SHIPPED,
    SHIPPED_CFGS,
    pretrained_cfg,
    register_family,
)

__all__: list[str] = []

default_cfgs = generate_default_cfgs(
    {f"vit_{name}": pretrained_cfg(**cfg) for name, cfg in SHIPPED_CFGS.items()}
)

# As deep and wide as the white boxes of the same ending, and trained alike.
register_family(
    __name__, VisionTransformer, {f"vit_{name}": sizes for name, sizes in SHIPPED.items()}
)

# `vit_S8` is the supervised ViT-S/8 of the CRATE papers; timm's only weights of that architecture
# are DINO's.
ALIASES.update(
    {
        "demo_vit": "vit_demo",
        "photo_vit": "vit_photo",
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
)
