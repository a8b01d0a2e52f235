"""What an update lowers and what validation measures: naming an image, or predicting patches."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn

from crate_interp.errors import InputError
from crate_interp.models.masking import draw_mask, hidden_patches, reconstruction_errors
from crate_interp.training.recipe import Recipe
from crate_interp.training.setup import backbone_of, build_loss, build_mixup

__all__ = ["Classification", "Objective", "Reconstruction", "build_objective"]


class Objective(Protocol):
    """What the loop asks of a task."""

    @property
    def measure(self) -> Literal["accuracy", "validation_loss"]:
        """Name of what validation measures, a column of metrics.csv."""

    def target_of(self, label: int, pixels: Float[Tensor, "3 H W"]) -> Tensor:
        """Make what goes with an image in a batch; may draw from torch's global generator.

        Raises:
            InputError: The label is none of the data's.
        """

    def loss(
        self, model: nn.Module, images: Float[Tensor, "B 3 H W"], targets: Shaped[Tensor, "B ..."]
    ) -> Float[Tensor, ""]:
        """Pass a batch through the model and say how wrong it was; runs under autocast."""

    def scores(
        self, model: nn.Module, images: Float[Tensor, "B 3 H W"], targets: Shaped[Tensor, "B ..."]
    ) -> Shaped[Tensor, " B"]:
        """Measure each image of validation; the mean over images is what is reported."""

    def improves(self, score: float, best: float) -> bool:
        """Whether a mean is better than the best so far."""


class Classification:
    """Name what is in an image: cross-entropy, and accuracy on validation.

    Args:
        recipe: Says how labels are smoothed and images mixed.
        num_classes: Outputs of the head.
    """

    measure: Literal["accuracy"] = "accuracy"

    def __init__(self, recipe: Recipe, num_classes: int) -> None:
        self._num_classes = num_classes
        self._mixup = build_mixup(recipe, num_classes)
        self._loss = build_loss(recipe)

    def target_of(self, label: int, pixels: Float[Tensor, "3 H W"]) -> Int64[Tensor, ""]:  # noqa: ARG002
        """The label."""
        if not 0 <= label < self._num_classes:
            raise InputError(f"label {label} is out of range for {self._num_classes} classes")
        return torch.tensor(label)

    def loss(
        self, model: nn.Module, images: Float[Tensor, "B 3 H W"], targets: Int64[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """Cross-entropy, of mixed images if the recipe mixes."""
        if self._mixup is not None:
            images, targets = self._mixup(images, targets)
        found: Tensor = self._loss(model(images).float(), targets)
        return found

    def scores(
        self, model: nn.Module, images: Float[Tensor, "B 3 H W"], targets: Int64[Tensor, " B"]
    ) -> Bool[Tensor, " B"]:
        """Whether each image is labelled right."""
        right: Tensor = model(images).argmax(dim=1) == targets
        return right

    def improves(self, score: float, best: float) -> bool:
        """A higher accuracy is better."""
        return score > best


class Reconstruction:
    """Predict hidden patches: their mean squared error, in training and on validation.

    The mask is drawn with the image, by its number in the run, so that it is the same after a
    stop and with any number of processes, and at every validation.

    Args:
        recipe: Says how many patches are hidden, and what the target is.
        patch_size: Height and width of a patch, pixels.

    Raises:
        InputError: No patch would be hidden, or none seen.
    """

    measure: Literal["validation_loss"] = "validation_loss"

    def __init__(self, recipe: Recipe, patch_size: tuple[int, int]) -> None:
        self._mask_ratio, self._normalised = recipe.mask_ratio, recipe.normalised_target
        self._patch_size = patch_size
        for size in (recipe.image_size, *(stage.image_size for stage in recipe.staged)):
            hidden_patches(self._patches((size, size)), recipe.mask_ratio)

    def _patches(self, size_hw: tuple[int, int]) -> int:
        return (size_hw[0] // self._patch_size[0]) * (size_hw[1] // self._patch_size[1])

    def target_of(self, label: int, pixels: Float[Tensor, "3 H W"]) -> Bool[Tensor, " n"]:  # noqa: ARG002
        """Which patches are hidden."""
        return draw_mask(self._patches((pixels.shape[1], pixels.shape[2])), self._mask_ratio)

    def loss(
        self, model: nn.Module, images: Float[Tensor, "B 3 H W"], targets: Bool[Tensor, "B n"]
    ) -> Float[Tensor, ""]:
        """Mean squared error over all hidden patches, of which every image has as many."""
        return self.scores(model, images, targets).mean()

    def scores(
        self, model: nn.Module, images: Float[Tensor, "B 3 H W"], targets: Bool[Tensor, "B n"]
    ) -> Float[Tensor, " B"]:
        """Mean squared error of the hidden patches of each image."""
        predicted = model(images, targets).float()
        return reconstruction_errors(predicted, images, targets, self._patch_size, self._normalised)

    def improves(self, score: float, best: float) -> bool:
        """A lower loss is better."""
        return score < best


def build_objective(recipe: Recipe, model: nn.Module, num_classes: int) -> Objective:
    """Make the objective of a recipe.

    Args:
        recipe: Names the task.
        model: What is trained.
        num_classes: Outputs of the head; no matter for reconstruction.

    Raises:
        InputError: The mask ratio leaves no patch hidden, or none seen.
    """
    if recipe.task == "reconstruction":
        return Reconstruction(recipe, backbone_of(model).patch_embed.patch_size)
    return Classification(recipe, num_classes)
