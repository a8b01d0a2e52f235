"""CRATE's patch embedding: LayerNorm, Linear, LayerNorm on flattened patches, as a timm stem."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import LayerNorm, PatchEmbed, resample_patch_embed
from torch import Tensor, nn

__all__ = ["CratePatchEmbed", "PatchProjection"]


class PatchProjection(nn.Module):
    """Normalises the pixels of each patch and maps them to D numbers.

    Takes the place of the convolution in timm's PatchEmbed.

    Args:
        in_chans: Colours of the image.
        embed_dim: Width D of the tokens.
        patch_size: Height and width of a patch, pixels.
        norm_layer: Makes the normalisation.
        device: Where the parameters are made.
        dtype: Type of the parameters.

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
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_chans = in_chans
        self.kernel_size = patch_size
        self.stride = patch_size
        values = in_chans * patch_size[0] * patch_size[1]
        self.norm = norm_layer(values, device=device, dtype=dtype)
        self.linear = nn.Linear(values, embed_dim, device=device, dtype=dtype)

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
            tensor: Its value for patches of `patch_size`.
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
            resized = F.interpolate(images.float(), self.kernel_size, mode=mode, antialias=True).to(
                tensor.dtype
            )
        values: Tensor = resized.permute(0, 2, 3, 1)
        return values.reshape(*tensor.shape[:-1], -1)


class CratePatchEmbed(PatchEmbed):
    """timm's PatchEmbed with `PatchProjection` for its convolution, and a norm behind it.

    Args:
        norm_layer: Makes both normalisations.
        device: Where the parameters are made.
        dtype: Type of the parameters.
        **kwargs: Those of timm's PatchEmbed.
    """

    proj: Any
    patch_size: tuple[int, int]

    def __init__(
        self,
        *,
        norm_layer: Any = LayerNorm,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> None:
        place: Any = {"device": device, "dtype": dtype}
        super().__init__(norm_layer=norm_layer, **place, **kwargs)
        convolution = self.proj
        self.proj = PatchProjection(
            convolution.in_channels, convolution.out_channels, self.patch_size, norm_layer, **place
        )

    def dynamic_feat_size(self, img_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tokens for an image of this height and width, pixels."""
        sizes = zip(img_size, self.patch_size, strict=True)
        padded = [size + (-size % patch if self.dynamic_img_pad else 0) for size, patch in sizes]
        rows, columns = (
            (size - patch) // stride + 1
            for size, patch, stride in zip(padded, self.patch_size, self.proj.stride, strict=True)
        )
        return rows, columns

    def set_input_size(
        self,
        img_size: int | tuple[int, int] | None = None,
        patch_size: int | tuple[int, int] | None = None,
    ) -> None:
        """Change the size of the image, or of the patches with the projection resampled.

        Args:
            img_size: Height and width, pixels; `None` leaves it.
            patch_size: Height and width, pixels; `None` leaves it.
        """
        if patch_size is not None:
            size = (patch_size, patch_size) if isinstance(patch_size, int) else tuple(patch_size)
            self._set_patch_size((int(size[0]), int(size[1])))
        self.img_size, self.grid_size, self.num_patches = self._init_img_size(
            img_size or self.img_size
        )

    def _set_patch_size(self, patch_size: tuple[int, int]) -> None:
        old = self.proj
        weight = old.linear.weight
        new = PatchProjection(
            old.in_chans,
            weight.shape[0],
            patch_size,
            type(old.norm),
            device=weight.device,
            dtype=weight.dtype,
        )
        new.norm.eps = old.norm.eps
        state = {
            name: new.resampled(name, value, old.kernel_size)
            for name, value in old.state_dict().items()
        }
        new.load_state_dict(state)
        for name, parameter in new.named_parameters():
            parameter.requires_grad_(old.get_parameter(name).requires_grad)
        self.proj = new.train(old.training)
        self.patch_size = patch_size
