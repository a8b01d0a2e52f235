"""Parts of a backbone: a patch embedding, blocks of tokens, positions of any grid."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, TypeGuard

from timm.layers import HybridEmbed
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from crate_interp.errors import InputError
from crate_interp.models.anatomy import anatomy_of

__all__ = [
    "Backbone",
    "RotaryOfAnyGrid",
    "blocks_of",
    "embedding_of",
    "has_absolute_positions",
    "has_class_token",
    "has_stem",
    "input_hw_of",
    "is_backbone",
    "lacking_in",
    "patch_grid_of",
    "patch_hw_of",
    "prefix_tokens_of",
    "projection_of",
    "relative_positions",
    "takes_any_grid",
    "trunk_of",
    "without_projector",
]


Backbone = VisionTransformer | Eva
"""Classes of timm that everything here can look into; EVA and DINOv3 are of class `Eva`."""

# Vision encoders of language models; by name, as older releases of timm lack some. Each has a
# classifier around it in timm, too, which keeps it in `encoder`.
_ENCODERS = {"DeepseekVitEncoder", "Gemma4VitEncoder", "Qwen3VitEncoder"}
# Classes of timm that resample their positions by themselves.
_OF_ANY_GRID = {"NaFlexVit", "VisionTransformerSAM", *_ENCODERS}


def trunk_of(model: nn.Module) -> nn.Module:
    """The module that holds embedding and blocks: the model, or the encoder in a classifier."""
    encoder: nn.Module = getattr(model, "encoder", model)
    return encoder if type(encoder).__name__ in _ENCODERS else model


def without_projector(model: nn.Module) -> dict[str, str]:
    """Give the argument that leaves out the projector to words which encoders have at their end.

    It joins neighbouring patches, and so refuses most grids; no block is behind it.
    """
    if type(trunk_of(model)).__name__ not in _ENCODERS:
        return {}
    return {"global_pool" if trunk_of(model) is model else "encoder_pool": ""}


def is_backbone(model: nn.Module) -> TypeGuard[Backbone]:
    """Whether a model is a `Backbone`, or of another class with the same parts."""
    blocks = getattr(trunk_of(model), "blocks", None)
    return isinstance(blocks, (nn.Sequential, nn.ModuleList)) and takes_any_grid(model)


def lacking_in(model: nn.Module) -> str:
    """Say in one line what a model lacks to be a backbone, by its parts; empty if it is one."""
    blocks = getattr(trunk_of(model), "blocks", None)
    if not isinstance(blocks, (nn.Sequential, nn.ModuleList)):
        return "no blocks that all see one grid of patches"
    if not hasattr(embedding_of(model), "patch_size"):
        return "no patch embedding of one patch size"
    if all(anatomy_of(block).heads is None for block in blocks):
        attentions = {
            type(module).__name__
            for name, module in blocks.named_modules()
            if name.endswith(("attn", "attention"))
        }
        return f"attention of a kind that is not known: {', '.join(sorted(attentions)) or 'none'}"
    return "" if takes_any_grid(model) else "positions of one grid, which are not resampled"


def blocks_of(model: nn.Module) -> nn.Sequential | nn.ModuleList:
    """The blocks of a timm-style vision transformer, or of a text model.

    Raises:
        InputError: The model has none.
    """
    blocks = getattr(trunk_of(model), "blocks", None)
    if not isinstance(blocks, (nn.Sequential, nn.ModuleList)) or embedding_of(model) is None:
        raise InputError(
            f"expected a vision transformer with `patch_embed` and `blocks`, found "
            f"{type(model).__name__}; of a model of two towers, pass the vision tower"
        )
    return blocks


def embedding_of(model: nn.Module) -> Any:
    """The submodule that makes tokens of the input, patches of images or words of texts, if any."""
    names = ("patch_embed", "embeds", "token_embedding")  # `embeds` is NaFlexViT's
    found = (getattr(trunk_of(model), name, None) for name in names)
    return next((embedding for embedding in found if embedding is not None), None)


def has_class_token(model: nn.Module) -> bool:
    """Whether the first token of a model is a class token, the model's own or its embedding's."""
    parts = (model, embedding_of(model))
    return any(getattr(part, "cls_token", None) is not None for part in parts)


def prefix_tokens_of(model: nn.Module) -> int:
    """Number of tokens before the patches: class, distillation and register tokens."""
    return int(getattr(trunk_of(model), "num_prefix_tokens", 0))


def input_hw_of(model: Any) -> tuple[int, int]:
    """Height and width of the images that a model is made for, pixels."""
    size = getattr(embedding_of(model), "img_size", None) or model.pretrained_cfg["input_size"][1:]
    return int(size[0]), int(size[1])


def takes_any_grid(model: Any) -> bool:
    """Whether a model with blocks can resample its positions to the patch grid of an image.

    timm's `VisionTransformer`, `Eva`, NaFlexViT, SAM and encoders of language models can, and
    models whose positions are relative alone.
    """
    embedding = embedding_of(model)
    patch_size = getattr(embedding, "patch_size", None)
    return (
        has_absolute_positions(model)
        or any(kind.__name__ in _OF_ANY_GRID for kind in type(trunk_of(model)).__mro__)
        or bool(relative_positions(model))
    ) and all(part is not None for part in (patch_size, projection_of(embedding)))


def has_absolute_positions(model: Any) -> bool:
    """Whether a model is of a class that adds positions to its tokens, and can resample them."""
    return hasattr(model, "dynamic_img_size") and hasattr(model, "_pos_embed")


def relative_positions(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """Modules that make a bias of relative positions, of models that have no other positions.

    timm's BEiT and `VisionTransformerRelPos` have them.

    Returns:
        Modules that can be fitted to another patch grid by `set_window_size`, each with the name of
        the method that makes the bias.
    """
    if has_absolute_positions(model) or getattr(model, "pos_embed", None) is not None:
        return []
    made_by = ("get_bias", "_get_rel_pos_bias", "forward")
    return [
        (module, next(name for name in made_by if hasattr(module, name)))
        for module in model.modules()
        if hasattr(module, "set_window_size") and getattr(module, "window_size", None)
    ]


class RotaryOfAnyGrid(nn.Module):
    """Rotary position for the patch grid of each image, from a module made for one grid.

    Args:
        rope: Rotary position of a timm model that was not made with `dynamic_img_size`.
    """

    def __init__(self, rope: nn.Module) -> None:
        super().__init__()
        self.rope: Any = rope

    def get_embed(self, shape: Sequence[int]) -> Tensor:
        """Sines and cosines of a grid of this many rows and columns."""
        rope = self.rope
        if rope.get_embed(shape=[1, 3]).shape[-2] != 3:  # it gives its own grid, whatever is asked
            rope = deepcopy(rope)
            rope.update_feat_shape(list(shape))
        embedding: Tensor = rope.get_embed(shape=list(shape))
        return embedding


def has_stem(patch_embed: Any) -> bool:
    """Whether patches are cut from the features of a convolutional stem, not from the image."""
    return isinstance(patch_embed, HybridEmbed)


def patch_hw_of(patch_embed: Any) -> tuple[int, int]:
    """Height and width of the pixels that a patch token stands for; of a stem, its stride."""
    if has_stem(patch_embed):
        height, width = patch_embed.feat_ratio(as_scalar=False)
    else:
        height, width = patch_embed.patch_size
    return int(height), int(width)


def projection_of(patch_embed: Any) -> Any:
    """The layer that makes a token of a patch, if any; Gemma's has a name of its own."""
    return getattr(patch_embed, "proj", getattr(patch_embed, "input_proj", None))


def patch_grid_of(patch_embed: Any, input_hw: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patch tokens for an input of `input_hw` pixels."""
    if has_stem(patch_embed):
        rows, columns = patch_embed.dynamic_feat_size(input_hw)
        return int(rows), int(columns)
    pads = getattr(patch_embed, "dynamic_img_pad", False)
    # A linear layer has no stride.
    strides = getattr(projection_of(patch_embed), "stride", patch_embed.patch_size)
    rows, columns = (
        (size + (-size % patch if pads else 0) - patch) // stride + 1
        for size, patch, stride in zip(input_hw, patch_embed.patch_size, strides, strict=True)
    )
    return rows, columns
