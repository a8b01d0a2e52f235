"""CRATE-MAE: masked autoencoding with a white-box encoder and decoder.

Reference: Masked Completion via Structured Diffusion with White-Box Transformers, arXiv 2404.02446.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from timm.layers import LayerNorm
from timm.models import checkpoint_seq, generate_default_cfgs
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from crate_interp.errors import InputError
from crate_interp.models.crate import BASE, SMALL, CrateBlock
from crate_interp.models.families import ALIASES, load_pretrained, pretrained_cfg, register_family
from crate_interp.models.masking import cut_patches, join_patches, patch_statistics
from crate_interp.models.subspace import SubspaceAttention

__all__ = ["CrateMae", "CrateMaeAutoencoder", "CrateMaeDecoder", "CrateMaeDecoderBlock"]

LAYER_NORM = partial(LayerNorm, eps=1e-5)  # in the layers; the norms behind them have 1e-6


class CrateMae(VisionTransformer):
    """The encoder of CRATE-MAE: CRATE's layers, convolutional stem, fixed positions, final norm.

    Args:
        step_size: eta of ISTA.
        threshold: lambda of ISTA, 0.5 where other CRATE models have 0.1.
        **timm_arguments: Arguments of timm's VisionTransformer.
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
        """Draw the weights anew as the release does; the positions are sines and cosines.

        Args:
            mode: Scheme of timm's VisionTransformer.
            needs_reset: Also reset the modules that have initialised themselves.
        """
        super().init_weights(mode, needs_reset)
        self.blocks.apply(_draw_linear)
        projection = cast("nn.Conv2d", self.patch_embed.proj)
        nn.init.xavier_uniform_(projection.weight.flatten(1))
        nn.init.normal_(cast("nn.Parameter", self.cls_token), std=0.02)
        positions = _sine_cosine_positions(self.patch_embed.grid_size, self.embed_dim)
        with torch.no_grad():
            cast("nn.Parameter", self.pos_embed).zero_()[:, self.num_prefix_tokens :] = positions

    load_pretrained = load_pretrained


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
        values: Number of values in a patch.

    Attributes:
        mask_token: Token that stands for a hidden patch in the encoder's input, (1, 1, D).
    """

    def __init__(self, dim: int, depth: int, num_heads: int, values: int) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim).normal_(std=0.02))
        self.blocks = nn.Sequential(*(CrateMaeDecoderBlock(dim, num_heads) for _ in range(depth)))
        self.norm = LayerNorm(dim, eps=1e-6)
        self.pred = nn.Linear(dim, values)
        self.grad_checkpointing = False
        self.apply(_draw_linear)
        for block in self.blocks:
            nn.init.kaiming_uniform_(block.get_parameter("linear.weight"))

    @classmethod
    def of(cls, encoder: CrateMae, depth: int | None = None) -> CrateMaeDecoder:
        """Make the decoder of an encoder, with random weights drawn as the release does.

        Args:
            encoder: Encoder, whose width, heads and patch size the decoder has.
            depth: Number of blocks; `None`: as many as the encoder has.
        """
        num_heads = cast("SubspaceAttention", encoder.get_submodule("blocks.0.attn")).num_heads
        values = math.prod(encoder.patch_embed.patch_size) * encoder.in_chans
        depth = len(encoder.blocks) if depth is None else depth
        return cls(encoder.embed_dim, depth, num_heads, values)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N pixels"]:
        """Predict the pixels of the patch at every token, flattened as (row, column, colour)."""
        pixels: Tensor = self.pred(self.norm(_run(self.blocks, tokens, self.grad_checkpointing)))
        return pixels


class CrateMaeAutoencoder(nn.Module):
    """CRATE-MAE whole: hides patches of an image and predicts them.

    Hidden patches stay in the sequence as mask tokens, so that encoder and decoder see the same
    positions.

    Args:
        encoder: The encoder.
        decoder: The decoder, of the encoder's width.
        normalised_target: The decoder predicts patches less their mean and over their standard
            deviation, as it does if it was trained to.
    """

    def __init__(
        self, encoder: CrateMae, decoder: CrateMaeDecoder, normalised_target: bool = False
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.normalised_target = normalised_target

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute activations twice to keep fewer of them, or not."""
        self.encoder.set_grad_checkpointing(enable)
        self.decoder.grad_checkpointing = enable

    def forward(
        self, images: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B n"] | None = None
    ) -> Float[Tensor, "B n pixels"]:
        """Hide patches of images and predict all patches: `decode` after `encode`."""
        return self.decode(self.encode(images, mask))

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
            InputError: The mask does not have one value per patch.
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
        tokens = _run(self.encoder.blocks, tokens, self.encoder.grad_checkpointing)
        encoded: Tensor = self.encoder.norm(tokens)
        return encoded

    def decode(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B n pixels"]:
        """Predict the pixels of every patch, flattened as (row, column, colour), from the tokens.

        The patches are row by row, normalised as the input is, or each by itself if that was the
        target.
        """
        pixels: Tensor = self.decoder(tokens)
        return pixels[:, self.encoder.num_prefix_tokens :]

    def reconstruct(
        self, images: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B n"] | None = None
    ) -> Float[Tensor, "B C H W"]:
        """Hide patches of images and predict the images.

        Where the target was normalised, the decoder does not tell a patch's mean and standard
        deviation: they are those of the image itself, hidden patches included. Arguments and errors
        are those of `encode`.

        Returns:
            The predicted images, of hidden and seen patches alike, normalised as the input is.
        """
        patches = self(images, mask)
        patch_embed = self.encoder.patch_embed
        if self.normalised_target:
            mean, deviation = patch_statistics(cut_patches(images, patch_embed.patch_size))
            patches = patches * deviation + mean
        grid = patch_embed.dynamic_feat_size((images.shape[2], images.shape[3]))
        return join_patches(patches, patch_embed.patch_size, grid)


def _run(
    blocks: nn.Sequential, tokens: Float[Tensor, "B N D"], checkpointing: bool
) -> Float[Tensor, "B N D"]:
    out: Tensor = checkpoint_seq(blocks, tokens) if checkpointing else blocks(tokens)
    return out


def _draw_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _sine_cosine_positions(grid_size: tuple[int, int], dim: int) -> Float[Tensor, "n D"]:
    """Sines and cosines of the column in the first half, of the row in the second, as MAE has."""
    if dim % 4:
        raise InputError(f"embed_dim {dim}: sine-cosine positions need a multiple of 4")
    rows, columns = torch.meshgrid(*(torch.arange(size) for size in grid_size), indexing="ij")
    frequencies = 10000 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    angles = [axis.reshape(-1, 1) * frequencies for axis in (columns, rows)]
    return torch.cat([part for axis in angles for part in (axis.sin(), axis.cos())], 1).float()


_CFG = pretrained_cfg(
    num_classes=0,
    paper_ids="arXiv:2404.02446",
    paper_name="Masked Completion via Structured Diffusion with White-Box Transformers",
    origin_url="https://github.com/Ma-Lab-Berkeley/CRATE",
)
default_cfgs = generate_default_cfgs(
    {"crate_mae_small_patch16_224": _CFG, "crate_mae_base_patch16_224.in1k": _CFG}
)
_SIZES = {
    "crate_mae_small_patch16_224": {**SMALL, "patch_size": 16},
    "crate_mae_base_patch16_224": {**BASE, "patch_size": 16},
}
register_family(__name__, CrateMae, _SIZES)
ALIASES["crate_mae_S16"] = "crate_mae_small_patch16_224"
ALIASES["crate_mae_B16"] = "crate_mae_base_patch16_224.in1k"
