"""CRATE-MAE: masked autoencoding with a white-box encoder and decoder.

Reference: Masked Completion via Structured Diffusion with White-Box Transformers, arXiv 2404.02446.
"""

from __future__ import annotations

import math
import os
import re
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from timm.layers import LayerNorm
from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from crate_interp.errors import InputError
from crate_interp.models.checkpoint_files import read_checkpoint
from crate_interp.models.crate import CrateBlock
from crate_interp.models.families import build_with_timm, pretrained_cfg
from crate_interp.models.key_maps import Layout, Rule
from crate_interp.models.layouts import load_part, load_pretrained_into
from crate_interp.models.loading import load_backbone, names_a_file, resolve_weights
from crate_interp.models.subspace import SubspaceAttention

__all__ = ["CrateMae", "CrateMaeAutoencoder", "CrateMaeDecoder", "CrateMaeDecoderBlock", "load_mae"]

LAYER_NORM = partial(LayerNorm, eps=1e-5)  # in the layers; the norms behind them have 1e-6


class CrateMae(VisionTransformer):
    """The encoder of CRATE-MAE: CRATE's layers, convolutional stem, fixed positions, final norm.

    Args:
        step_size: eta of ISTA.
        threshold: lambda of ISTA, 0.5 where other CRATE models have 0.1.
        **timm_arguments: Those of timm's VisionTransformer.
    """

    def __init__(
        self, *, step_size: float = 0.1, threshold: float = 0.5, **timm_arguments: Any
    ) -> None:
        def block(**arguments: Any) -> CrateBlock:
            arguments |= {"norm_layer": LAYER_NORM, "step_size": step_size}
            return CrateBlock(threshold=threshold, **arguments)

        defaults = {"norm_layer": partial(LayerNorm, eps=1e-6), "block_fn": block}
        super().__init__(**{**defaults, **timm_arguments})
        cast("nn.Parameter", self.pos_embed).requires_grad_(False)

    def init_weights(self, mode: str = "", needs_reset: bool = True) -> None:
        """Draw the weights anew, and set the positions to sines and cosines.

        Args:
            mode: Scheme of timm's VisionTransformer.
            needs_reset: Also reset the modules that have initialised themselves.
        """
        super().init_weights(mode, needs_reset)
        positions = _sine_cosine_positions(self.patch_embed.grid_size, self.embed_dim)
        with torch.no_grad():
            cast("nn.Parameter", self.pos_embed).zero_()[:, self.num_prefix_tokens :] = positions

    def load_pretrained(self, checkpoint_path: str) -> None:
        """Load a file that timm itself cannot read; timm's hook for `custom_load`."""
        load_pretrained_into(self, checkpoint_path)


class CrateMaeDecoderBlock(nn.Module):
    """z' = A LN(z); z_next = z' - MSSA(LN(z')): the inverse of an encoder layer, up to first order.

    Args:
        dim: Width D of the tokens.
        num_heads: Number of subspaces.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = LAYER_NORM(dim)
        self.linear = nn.Linear(dim, dim, bias=False)
        self.norm2 = LAYER_NORM(dim)
        self.attn = SubspaceAttention(dim, num_heads, proj_bias=True)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Map the tokens entering the block to those leaving it."""
        x = self.linear(self.norm1(x))
        out: Tensor = x - self.attn(self.norm2(x))
        return out


class CrateMaeDecoder(nn.Module):
    """Predicts pixels from the tokens of the encoder, which it takes as they are.

    Args:
        dim: Width D of the tokens.
        depth: Number of blocks.
        num_heads: Number of subspaces.
        values: Numbers in a patch.

    Attributes:
        mask_token: Stands for a hidden patch in the encoder's input, (1, 1, D).
    """

    def __init__(self, dim: int, depth: int, num_heads: int, values: int) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim).normal_(std=0.02))
        self.blocks = nn.Sequential(*(CrateMaeDecoderBlock(dim, num_heads) for _ in range(depth)))
        self.norm = LayerNorm(dim, eps=1e-6)
        self.pred = nn.Linear(dim, values)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N pixels"]:
        """Predict the pixels of the patch at every token, flattened as (row, column, colour)."""
        pixels: Tensor = self.pred(self.norm(self.blocks(tokens)))
        return pixels


class CrateMaeAutoencoder(nn.Module):
    """CRATE-MAE whole: hides patches of an image and predicts them.

    Hidden patches stay in the sequence as mask tokens, so that encoder and decoder see the same
    positions.

    Args:
        encoder: The encoder.
        decoder: The decoder, of the encoder's width.
    """

    def __init__(self, encoder: CrateMae, decoder: CrateMaeDecoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def encode(
        self, images: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B n"] | None = None
    ) -> Float[Tensor, "B N D"]:
        """Encode images, some patches of which are hidden.

        Args:
            images: Normalised images.
            mask: True for the patches to hide, row by row; `None` hides none.

        Returns:
            Normalised tokens, the class token first.

        Raises:
            InputError: The mask is not one value a patch.
        """
        tokens = self.encoder.patch_embed(images)
        if mask is not None:
            grid = tuple(tokens.shape[:-1])
            if mask.dtype != torch.bool or mask.numel() != tokens[..., 0].numel():
                raise InputError(
                    f"mask: expected booleans for {grid} patches, "
                    f"found {mask.dtype} of shape {tuple(mask.shape)}"
                )
            hidden = self.decoder.mask_token.to(tokens.dtype)
            tokens = torch.where(mask.reshape(*grid, 1), hidden, tokens)
        tokens = self.encoder._pos_embed(tokens)
        encoded: Tensor = self.encoder.norm(self.encoder.blocks(tokens))
        return encoded

    def decode(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B n pixels"]:
        """Predict the pixels of every patch, flattened as (row, column, colour).

        Args:
            tokens: What `encode` returned.

        Returns:
            Normalised pixels, the patches row by row.
        """
        pixels: Tensor = self.decoder(tokens)
        return pixels[:, self.encoder.num_prefix_tokens :]

    def reconstruct(
        self, images: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B n"] | None = None
    ) -> Float[Tensor, "B C H W"]:
        """Hide patches of images and predict the images.

        Args:
            images: Normalised images.
            mask: True for the patches to hide, row by row; `None` hides none.

        Returns:
            The predicted images, of hidden and seen patches alike, normalised as the input is.

        Raises:
            InputError: The mask is not one value a patch.
        """
        patches = self.decode(self.encode(images, mask))
        patch_embed = self.encoder.patch_embed
        grid = patch_embed.dynamic_feat_size((images.shape[2], images.shape[3]))
        cut = patches.unflatten(2, (*patch_embed.patch_size, -1)).unflatten(1, grid)
        predicted: Tensor = cut.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)
        return predicted  # (B, C, h p1, w p2)


DECODER = Layout(
    "decoder",
    (),
    (
        Rule("mask_token", "mask_token"),
        Rule("decoder_blocks.{i}.layers.0.0.norm.{p}", "blocks.{i}.norm1.{p}"),
        Rule("decoder_blocks.{i}.layers.0.0.fn.weight", "blocks.{i}.linear.weight"),
        Rule("decoder_blocks.{i}.layers.0.1.norm.{p}", "blocks.{i}.norm2.{p}"),
        Rule("decoder_blocks.{i}.layers.0.1.fn.qkv.weight", "blocks.{i}.attn.qkv.weight"),
        Rule("decoder_blocks.{i}.layers.0.1.fn.to_out.0.{p}", "blocks.{i}.attn.proj.{p}"),
        Rule("decoder_norm.{p}", "norm.{p}"),
        Rule("decoder_pred.{p}", "pred.{p}"),
    ),
)


def load_mae(
    name: str, weights: str | os.PathLike[str] | None = None, **timm_arguments: Any
) -> CrateMaeAutoencoder:
    """Load CRATE-MAE with its decoder.

    Args:
        name: A CRATE-MAE model, as for `load_backbone`.
        weights: Its weight file in the official layout; `None` for the published weights.
        **timm_arguments: For the encoder, as for `load_backbone`.

    Returns:
        The model in evaluation mode.

    Raises:
        CheckpointError: The weights cannot be had, read, or do not fit.
        InputError: The name is not that of a CRATE-MAE.
    """
    path = resolve_weights(name, weights)
    encoder = load_backbone(name, None if names_a_file(name) else path, **timm_arguments)
    if not isinstance(encoder, CrateMae):
        raise InputError(f"{name} is a {type(encoder).__name__}; expected a CRATE-MAE")
    checkpoint = read_checkpoint(path)
    found = (re.match(r"decoder_blocks\.(\d+)\.", key) for key in checkpoint.state_dict)
    depth = 1 + max((int(match[1]) for match in found if match), default=-1)
    num_heads = cast("SubspaceAttention", encoder.get_submodule("blocks.0.attn")).num_heads
    values = math.prod(encoder.patch_embed.patch_size) * encoder.in_chans
    decoder = CrateMaeDecoder(encoder.embed_dim, depth, num_heads, values)
    load_part(decoder, checkpoint, DECODER)
    return CrateMaeAutoencoder(encoder, decoder).eval()


def _sine_cosine_positions(grid_size: tuple[int, int], dim: int) -> Float[Tensor, "n D"]:
    """Sines and cosines of the column in the first half, of the row in the second, as MAE has."""
    if dim % 4:
        raise InputError(f"embed_dim {dim}: sine-cosine positions need a multiple of 4")
    rows, columns = torch.meshgrid(*(torch.arange(size) for size in grid_size), indexing="ij")
    frequencies = 10000 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    angles = [axis.reshape(-1, 1) * frequencies for axis in (columns, rows)]
    return torch.cat([part for axis in angles for part in (axis.sin(), axis.cos())], 1).float()


def _cfg() -> dict[str, Any]:
    return pretrained_cfg(
        num_classes=0,
        paper_ids="arXiv:2404.02446",
        paper_name="Masked Completion via Structured Diffusion with White-Box Transformers",
        origin_url="https://github.com/Ma-Lab-Berkeley/CRATE",
    )


default_cfgs = generate_default_cfgs(
    {"crate_mae_small_patch16_224": _cfg(), "crate_mae_base_patch16_224.in1k": _cfg()}
)


@register_model
def crate_mae_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CRATE-MAE-S/16, the encoder."""
    sizes = {"embed_dim": 576, "depth": 12, "num_heads": 12, "patch_size": 16}
    return build_with_timm(CrateMae, "crate_mae_small_patch16_224", pretrained, kwargs, **sizes)


@register_model
def crate_mae_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CRATE-MAE-B/16, the encoder."""
    sizes = {"embed_dim": 768, "depth": 12, "num_heads": 12, "patch_size": 16}
    return build_with_timm(CrateMae, "crate_mae_base_patch16_224", pretrained, kwargs, **sizes)
