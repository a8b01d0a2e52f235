"""Classification: name what is in an image, by cross-entropy; validation measures accuracy.

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from PIL import Image
from timm.data import Mixup
from timm.layers import PatchDropout
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn

from crate_interp.errors import InputError
from crate_interp.hooks import Site, anatomy_at, blocks_of
from crate_interp.hooks.own_passes import hooked
from crate_interp.training.augmentation import Transform
from crate_interp.training.objective import Objective
from crate_interp.training.recipe import Recipe

__all__ = ["OBJECTIVE", "Classification", "build_loss", "build_mixup"]


class Classification(Objective):
    """Cross-entropy of labels that may be smoothed, on images that may be mixed.

    A penalty on the codes of all blocks may be added, which makes them sparser.

    Args:
        recipe: The settings of the run.

    Raises:
        InputError: Codes are to be penalised, and the model has none, or is to be compiled.
    """

    measure = "accuracy"

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self._mixup = build_mixup(recipe, self.data.num_classes)
        self._loss = build_loss(recipe)
        self._code_modules: list[nn.Module] = []
        if recipe.code_penalty and recipe.compile:
            raise InputError("code_penalty: expected compile false: compiled code runs no hooks")

    def build_model(self) -> nn.Module:
        """Make the model that the recipe names."""
        model = super().build_model()
        if self.recipe.code_penalty:
            self._code_modules = _modules_of_codes(model)
        return model

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
        """Compute the cross-entropy, of mixed images if the recipe mixes, and the penalty."""
        if self._mixup is not None:
            images, targets = self._mixup(images, targets)
        with _outputs_of(self._code_modules) as codes:
            scores = model(images).float()
        loss: Tensor = self._loss(scores, targets)
        if codes:
            size = torch.stack([values.float().abs().mean() for values in codes]).mean()
            loss = loss + self.recipe.code_penalty * size
        return loss

    def scores(
        self, model: nn.Module, images: Float[Tensor, "B 3 H W"], targets: Int64[Tensor, " B"]
    ) -> Bool[Tensor, " B"]:
        """Whether the class of the highest logit is the label, per image."""
        correct: Tensor = model(images).argmax(dim=1) == targets
        return correct


def _modules_of_codes(model: nn.Module) -> list[nn.Module]:
    """Find the submodule of each block whose output is the block's codes."""
    modules = []
    for number, block in enumerate(blocks_of(model)):
        atoms = anatomy_at(model, number).atoms
        if atoms is None or atoms.site is not Site.CODES or atoms.place.enters:
            raise InputError(
                "code_penalty: expected a model with sparse codes, as CRATE and CRATE-alpha, found "
                f"a {type(model).__name__} without at block {number}"
            )
        modules.append(block.get_submodule(atoms.place.path))
    return modules


@contextmanager
def _outputs_of(modules: list[nn.Module]) -> Iterator[list[Tensor]]:
    """A list that modules put their outputs in, with their gradients' graph."""
    outputs: list[Tensor] = []

    def keep(_: Any, __: Any, ___: Any, output: Tensor) -> None:
        outputs.append(output)

    with ExitStack() as hooks:
        for module in modules:
            hooks.enter_context(hooked(module, keep))
        yield outputs


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
