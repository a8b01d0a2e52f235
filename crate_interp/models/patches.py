"""CRATE's patch embedding: LayerNorm, Linear, LayerNorm on flattened patches, as a timm stem."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import LayerNorm, PatchEmbed, resample_patch_embed, to_2tuple
from torch import Tensor, nn

from crate_interp.models.backbones import patch_grid_of
from crate_interp.models.subspace import place_of

__all__ = ["CratePatchEmbed", "PatchProjection"]


class PatchProjection(nn.Module):
    """Normalises the pixels of each patch and maps them to D numbers.

    Takes the place of the convolution in timm's PatchEmbed.

    Args:
        in_chans: Colours of the image.
        embed_dim: Width D of the tokens.
        patch_size: Height and width of a patch, pixels.
        norm_layer: Makes the normalisation.
        **place: `device` and `dtype` of the parameters.

    Attributes:
        stride: Distance of neighbouring patches, pixels; may be made smaller on a live module for
            denser, overlapping tokens.
    """

    def __init__(
        self,
        in_chans: int,
        embed_dim: int,
        patch_size: tuple[int, int],
        norm_layer: Any = LayerNorm,
        **place: Any,
    ) -> None:
        super().__init__()
        self.in_chans = in_chans
        self.kernel_size = patch_size
        self.stride = patch_size
        values = in_chans * patch_size[0] * patch_size[1]
        self.norm = norm_layer(values, **place)
        self.linear = nn.Linear(values, embed_dim, **place)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Cut into patches, flattened as (row, column, colour), and project them."""
        for dim, (size, stride) in enumerate(zip(self.kernel_size, self.stride, strict=True)):
            x = x.unfold(2 + dim, size, stride)
        patches = x.permute(0, 2, 3, 4, 5, 1).flatten(3)  # (B, h, w, p1 p2 C)
        tokens: Tensor = self.linear(self.norm(patches))
        return tokens.permute(0, 3, 1, 2)

    def resampled(
        self,
        name: str,
        tensor: Float[Tensor, "*old"],
        patch_size: tuple[int, int],
        bilinear: bool = False,
    ) -> Float[Tensor, "*new"]:
        """Resample a parameter of a projection of other patches to this patch size.

        The linear map is resampled as timm resamples a convolution's kernel (pseudo-inverse of the
        patch's own resizing); the norm's scale and shift, as images of a patch, bicubic.

        Args:
            name: Name of the parameter, `linear.weight` for instance.
            tensor: Value for patches of `patch_size`.
            patch_size: Height and width of the patches that it was learnt with, pixels.
            bilinear: Resample all of them as images of a patch, bilinear.

        Returns:
            Its value for this projection's patches.
        """
        if name == "linear.bias":
            return tensor
        images = tensor.reshape(-1, *patch_size, self.in_chans).permute(0, 3, 1, 2)
        if name == "linear.weight" and not bilinear:
            resized = resample_patch_embed(images, list(self.kernel_size))
        else:
            mode = "bilinear" if bilinear else "bicubic"
            resized = F.interpolate(images.float(), self.kernel_size, mode=mode, antialias=True)
        values: Tensor = resized.to(tensor.dtype).permute(0, 2, 3, 1)
        return values.reshape(*tensor.shape[:-1], -1)


class CratePatchEmbed(PatchEmbed):
    """timm's PatchEmbed with `PatchProjection` for its convolution, and a norm behind it.

    Args:
        norm_layer: Makes both normalisations.
        **arguments: Arguments of timm's PatchEmbed.
    """

    proj: Any
    patch_size: tuple[int, int]

    def __init__(self, *, norm_layer: Any = LayerNorm, **arguments: Any) -> None:
        super().__init__(norm_layer=norm_layer, **arguments)
        place, sizes = place_of(arguments), (self.proj.in_channels, self.proj.out_channels)
        self.proj = PatchProjection(*sizes, self.patch_size, norm_layer, **place)

    def dynamic_feat_size(self, img_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tokens for an image of this height and width, pixels."""
        return patch_grid_of(self, img_size)

    def set_input_size(
        self,
        img_size: int | tuple[int, int] | None = None,
        patch_size: int | tuple[int, int] | None = None,
    ) -> None:
        """Change sizes, pixels: of the image, and of the patches, the projection resampled.

        `None` leaves a size as it is; two numbers are height and width.
        """
        if patch_size is not None:
            self._set_patch_size(to_2tuple(patch_size))
        sizes = self._init_img_size(img_size or self.img_size)
        self.img_size, self.grid_size, self.num_patches = sizes

    def _set_patch_size(self, patch_size: tuple[int, int]) -> None:
        old = self.proj
        weight = old.linear.weight
        place: Any = {"device": weight.device, "dtype": weight.dtype}
        new = PatchProjection(old.in_chans, len(weight), patch_size, type(old.norm), **place)
        new.norm.eps = old.norm.eps
        for name, parameter in old.named_parameters():
            resampled = new.get_parameter(name).requires_grad_(parameter.requires_grad)
            resampled.data = new.resampled(name, parameter.data, old.kernel_size)
        self.proj = new.train(old.training)
        self.patch_size = patch_size
