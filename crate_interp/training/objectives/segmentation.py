"""Semantic segmentation: the head of a backbone classes every patch, as a linear decoder.

Shapes: B batch, h w patch grid, H W pixels, C classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import to_tensor

from crate_interp.data import VOID, LabelledSet, open_labelled
from crate_interp.errors import InputError
from crate_interp.models.backbones import Backbone
from crate_interp.models.patch_head import PatchHead
from crate_interp.training.augmentation import Normalisation, Transform
from crate_interp.training.data import TrainingData, check_count
from crate_interp.training.objective import Objective
from crate_interp.training.recipe import Recipe
from crate_interp.training.setup import export_record, normalisation_of

__all__ = ["OBJECTIVE", "LabelledPictures", "Segmentation"]

_ASPECTS = (3 / 4, 4 / 3)  # of random crops
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_HEAD = ("head", "fc_norm")  # what learns where the backbone is frozen
_NOT_USED = ("color_jitter", "auto_augment", "random_erasing", "held_out", "exclude", "crop_pct")


class LabelledPictures:
    """Images of a labelled set with their label maps, by number.

    Args:
        labelled: The set.
        augmented: Whether they are for training.

    Attributes:
        classes: Names of the classes, by label.
        endless: Whether each index is a new image.
    """

    endless = False

    def __init__(self, labelled: LabelledSet, augmented: bool) -> None:
        self.classes = labelled.classes
        self._labelled, self._augmented = labelled, augmented

    def __len__(self) -> int:
        return len(self._labelled.images.records)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Give image, label map and whether to augment them; and a label that says nothing."""
        record = self._labelled.images.records[index]
        rgb = record.read()
        labels = self._labelled.labels_of(record, (rgb.shape[0], rgb.shape[1]))
        return (Image.fromarray(rgb), Image.fromarray(labels), self._augmented), 0


class Segmentation(Objective):
    """Cross-entropy of the pixels that have a class, and the share of them that is named rightly.

    Scores of patches are resized to the input, bilinearly. Random crops and mirror images are the
    augmentation; for validation, images are squashed to the square.

    Args:
        recipe: The settings of the run. `data` is a folder as VOC or ADE20K has it, or a built-in
            set.

    Raises:
        InputError: The data are no labelled set, training and validation have other classes, or the
            recipe has keys that are not used here.
    """

    measure = "accuracy"

    def __init__(self, recipe: Recipe) -> None:
        for key in _NOT_USED:
            if getattr(recipe, key) != getattr(Recipe, key):
                raise InputError(f"{key}: expected a recipe of segmentation without it")
        if recipe.interpolation not in _FILTERS:
            raise InputError("interpolation: expected bilinear or bicubic for segmentation")
        if recipe.stages:
            raise InputError("stages: expected none for the task segmentation")
        super().__init__(recipe)
        self._mean, self._std = map(torch.tensor, normalisation_of(recipe))

    def open_data(self) -> TrainingData:
        """Open the two splits of a labelled set."""
        recipe = self.recipe
        if not isinstance(recipe.data, str) or recipe.data == "scenes":
            raise InputError("data: expected a folder of labelled images, or a built-in set: demo")
        place = Path(recipe.data_root or "") / recipe.data
        training = LabelledPictures(open_labelled(place, recipe.train_split), True)
        check_count(len(training), recipe)
        validation = None
        if recipe.validation_split is not None:
            validation = LabelledPictures(open_labelled(place, recipe.validation_split), False)
            if validation.classes != training.classes:
                raise InputError(f"data {recipe.data}: training and validation differ in classes")
        return TrainingData(training, validation, len(training.classes))

    def build_model(self) -> PatchHead:
        """Make the backbone, of which the head alone learns if the recipe freezes it."""
        backbone: Any = super().build_model()
        if self.recipe.frozen:
            for name, parameter in backbone.named_parameters():
                parameter.requires_grad_(name.partition(".")[0] in _HEAD)
        return PatchHead(backbone)

    def backbone(self, model: nn.Module) -> Backbone:
        """Give the backbone."""
        return cast("PatchHead", model).backbone

    def normalisation(self, model: nn.Module) -> Normalisation | None:
        """Give none: `view` normalises, as it crops image and labels together."""
        del model
        return None

    def view(
        self,
        image: Any,
        label: int,  # noqa: ARG002
        transform: Transform,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """Make input and label map, both of the size of the input."""
        picture, labels, augmented = image
        recipe = self.recipe
        box = (0, 0, picture.width, picture.height)
        mirrored = False
        if augmented and recipe.crop_area is not None:
            top, left, height, width = RandomResizedCrop.get_params(
                picture, list(recipe.crop_area), list(_ASPECTS)
            )
            box = (left, top, left + width, top + height)
            mirrored = bool(torch.rand(()) < recipe.flip)
        side = (recipe.image_size, recipe.image_size)
        picture = picture.resize(side, _FILTERS[recipe.interpolation], box)
        labels = labels.resize(side, Image.Resampling.NEAREST, box)
        pixels = (to_tensor(picture) - self._mean[:, None, None]) / self._std[:, None, None]
        target = torch.from_numpy(np.asarray(labels, np.int64))
        return (pixels.flip(2), target.flip(1)) if mirrored else (pixels, target)

    def loss(
        self, model: nn.Module, images: Float[Tensor, "B 3 H W"], targets: Int64[Tensor, "B H W"]
    ) -> Float[Tensor, ""]:
        """Compute the mean cross-entropy over all pixels that have a class."""
        losses = functional.cross_entropy(
            self._pixel_scores(model, images), targets, ignore_index=VOID, reduction="sum"
        )
        return losses / (targets != VOID).sum().clamp(min=1)

    def scores(
        self, model: nn.Module, images: Float[Tensor, "B 3 H W"], targets: Int64[Tensor, "B H W"]
    ) -> Float[Tensor, " B"]:
        """Compute the share of the pixels with a class that are named rightly, per image."""
        counted = targets != VOID
        right = (self._pixel_scores(model, images).argmax(dim=1) == targets) & counted
        return right.flatten(1).sum(dim=1) / counted.flatten(1).sum(dim=1).clamp(min=1)

    def export(self, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Give the backbone with its head, as a file of a classifier of these classes."""
        backbone = self.backbone(model)
        return backbone.state_dict(), export_record(self.recipe, backbone, self.data)

    def _pixel_scores(
        self, model: nn.Module, images: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B C H W"]:
        return functional.interpolate(
            model(images).float(), self.recipe.image_size, mode="bilinear", align_corners=False
        )


OBJECTIVE = Segmentation
