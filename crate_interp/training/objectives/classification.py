"""Classification: name what is in an image, by cross-entropy; validation measures accuracy.

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from jaxtyping import Bool, Float, Int64
from PIL import Image
from timm.data import Mixup
from timm.layers import PatchDropout
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn

from crate_interp.errors import InputError
from crate_interp.training.augmentation import Transform
from crate_interp.training.objective import Objective
from crate_interp.training.recipe import Recipe

__all__ = ["OBJECTIVE", "Classification", "build_loss", "build_mixup"]


class Classification(Objective):
    """Cross-entropy of labels that may be smoothed, on images that may be mixed.

    Args:
        recipe: The settings of the run.
    """

    measure = "accuracy"

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self._mixup = build_mixup(recipe, self.data.num_classes)
        self._loss = build_loss(recipe)

    def view(self, image: Image.Image, label: int, transform: Transform) -> tuple[Tensor, Tensor]:
        """Give pixels and label."""
        if not 0 <= label < self.data.num_classes:
            raise InputError(f"label {label} is out of range for {self.data.num_classes} classes")
        return super().view(image, label, transform)

    def enter_stage(self, model: nn.Module, stage: Recipe) -> None:
        """Leave out the stage's share of the patches, if the model was built to leave out any."""
        patch_drop = self.backbone(model).patch_drop
        if isinstance(patch_drop, PatchDropout):
            patch_drop.prob = stage.patch_drop

    def loss(
        self, model: nn.Module, images: Float[Tensor, "B 3 H W"], targets: Int64[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """Compute the cross-entropy, of mixed images if the recipe mixes."""
        if self._mixup is not None:
            images, targets = self._mixup(images, targets)
        loss: Tensor = self._loss(model(images).float(), targets)
        return loss

    def scores(
        self, model: nn.Module, images: Float[Tensor, "B 3 H W"], targets: Int64[Tensor, " B"]
    ) -> Bool[Tensor, " B"]:
        """Whether the class of the highest logit is the label, per image."""
        correct: Tensor = model(images).argmax(dim=1) == targets
        return correct


def build_mixup(recipe: Recipe, num_classes: int) -> Mixup | None:
    """Make what mixes a batch's images and labels; `None` if the recipe does not ask for it."""
    if not recipe.mixes:
        return None
    return Mixup(
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        prob=recipe.mix_probability,
        switch_prob=recipe.mix_switch_probability,
        label_smoothing=recipe.label_smoothing,
        num_classes=num_classes,
    )


def build_loss(recipe: Recipe) -> nn.Module:
    """Make the loss; where batches are mixed, the labels are smoothed there."""
    if recipe.mixes:
        return SoftTargetCrossEntropy()
    if recipe.label_smoothing > 0:
        return LabelSmoothingCrossEntropy(smoothing=recipe.label_smoothing)
    return nn.CrossEntropyLoss()


OBJECTIVE = Classification
