"""A backbone whose head classes patches: a linear decoder for semantic segmentation.

Shapes: B batch, n patches, h w patch grid, H W pixels, D embed dim, C classes.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from crate_interp.models.backbones import (
    Backbone,
    embedding_of,
    patch_grid_of,
    prefix_tokens_of,
)

__all__ = ["PatchHead", "scores_of_patches"]


def scores_of_patches(model: nn.Module, tokens: Float[Tensor, "B n D"]) -> Float[Tensor, "B n C"]:
    """Compute the scores of the classes for each patch: those of the head for its token.

    Args:
        model: A CRATE family model or a timm vision transformer, with a classifier.
        tokens: Tokens of patches behind the last block and the norm that follows it, if any.
    """
    vit: Any = model
    before = getattr(vit, "pre_logits", None)
    tokens = vit.fc_norm(tokens)
    scores: Tensor = vit.head(tokens if before is None else before(tokens))
    return scores


class PatchHead(nn.Module):
    """A backbone that gives class scores of each patch of an image.

    Args:
        backbone: The backbone, with a classifier.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute activations twice to keep fewer of them, or not."""
        self.backbone.set_grad_checkpointing(enable)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Give the scores on the patch grid."""
        grid_hw = patch_grid_of(embedding_of(self.backbone), (images.shape[2], images.shape[3]))
        tokens = self.backbone.forward_features(images)[:, prefix_tokens_of(self.backbone) :]
        scores = scores_of_patches(self.backbone, tokens).transpose(1, 2)
        return scores.unflatten(2, grid_hw)  # type: ignore[no-any-return]
