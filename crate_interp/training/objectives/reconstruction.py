"""Reconstruction: predict the hidden patches of an image, as CRATE-MAE does.

Shapes: B batch, n patches of an image, H W pixels.

Reference: Masked Completion via Structured Diffusion with White-Box Transformers, arXiv 2404.02446.
"""

from __future__ import annotations

from typing import cast

from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor, nn

from crate_interp.errors import InputError
from crate_interp.models import CrateMaeAutoencoder
from crate_interp.models.backbones import Backbone
from crate_interp.models.mae import CrateMae, CrateMaeDecoder
from crate_interp.models.masking import draw_mask, hidden_patches, reconstruction_errors
from crate_interp.training.augmentation import Transform
from crate_interp.training.objective import Objective
from crate_interp.training.recipe import Recipe
from crate_interp.training.setup import find_initial_weights, patch_size_of
from crate_interp.weights import read_checkpoint
from crate_interp.weights.autoencoder import load_decoder_into, mae_file_of

__all__ = ["OBJECTIVE", "Reconstruction"]


class Reconstruction(Objective):
    """Mean squared error of the hidden patches, in training and on validation.

    The mask is drawn with the image, by its number in the run, so that it is the same after a
    stop and with any number of processes, and at every validation. Labels are not looked at.

    Args:
        recipe: The settings of the run.

    Raises:
        InputError: No patch would be hidden, or none seen.
    """

    measure = "validation_loss"
    labelled = False

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self._patch_size = patch_size_of(recipe)
        for size in recipe.image_sizes:
            hidden_patches(self._count_patches((size, size)), recipe.mask_ratio)

    def build_model(self) -> CrateMaeAutoencoder:
        """Make the encoder that the recipe names, and its decoder."""
        encoder, recipe = super().build_model(), self.recipe
        if not isinstance(encoder, CrateMae):
            raise InputError(
                f"model {recipe.model}: expected a CRATE-MAE for the task reconstruction, found a "
                f"{type(encoder).__name__}"
            )
        decoder = CrateMaeDecoder.of(encoder)
        initial = find_initial_weights(recipe)
        if initial is not None:
            load_decoder_into(decoder, read_checkpoint(initial))
        return CrateMaeAutoencoder(encoder, decoder, recipe.normalised_target)

    def backbone(self, model: nn.Module) -> Backbone:
        """Give the encoder."""
        return cast("CrateMaeAutoencoder", model).encoder

    def view(
        self,
        image: Image.Image,
        label: int,  # noqa: ARG002
        transform: Transform,
    ) -> tuple[Tensor, Tensor]:
        """Give pixels, and which patches are hidden."""
        pixels = transform(image)
        patches = self._count_patches((pixels.shape[1], pixels.shape[2]))
        return pixels, draw_mask(patches, self.recipe.mask_ratio)

    def loss(
        self, model: nn.Module, images: Float[Tensor, "B 3 H W"], targets: Bool[Tensor, "B n"]
    ) -> Float[Tensor, ""]:
        """Compute the mean squared error over all hidden patches, as many in every image."""
        return self.scores(model, images, targets).mean()

    def scores(
        self, model: nn.Module, images: Float[Tensor, "B 3 H W"], targets: Bool[Tensor, "B n"]
    ) -> Float[Tensor, " B"]:
        """Compute the mean squared error of the hidden patches, per image."""
        predicted, normalised = model(images, targets).float(), self.recipe.normalised_target
        return reconstruction_errors(predicted, images, targets, self._patch_size, normalised)

    def export(self, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Give encoder and decoder, for `load_backbone` and `load_mae`."""
        _, record = super().export(model)
        tensors, metadata = mae_file_of(cast("CrateMaeAutoencoder", model))
        return tensors, record | metadata

    def _count_patches(self, size_hw: tuple[int, int]) -> int:
        return (size_hw[0] // self._patch_size[0]) * (size_hw[1] // self._patch_size[1])


OBJECTIVE = Reconstruction
