"""Data that a run trains on: labelled images by index, of the built-in scenes or of a data set."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from crate_interp.data.image_files import only_image_formats, opened_image
from crate_interp.data.scene_categories import CATEGORIES
from crate_interp.data.scenes import training_batch
from crate_interp.errors import InputError
from crate_interp.training.image_sources import open_source
from crate_interp.training.recipe import Recipe

__all__ = ["Pictures", "TrainingData", "open_data"]

TRAINING, HELD_OUT = 1, 2  # streams of scenes
_logger = logging.getLogger(__name__)


class Pictures(Protocol):
    """A set of labelled images.

    Attributes:
        classes: Names of the classes, by label.
        endless: Whether each index is a new image, so that there are no epochs.
    """

    classes: tuple[str, ...]
    endless: bool

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Image.Image, int]: ...


class Scenes:
    """Built-in scenes, drawn when asked for; the label is the largest object's category."""

    classes = tuple(category.name for category in CATEGORIES)
    endless = True

    def __init__(self, recipe: Recipe, stream: int, count: int) -> None:
        self._recipe, self._stream, self._count = recipe, stream, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        recipe = self._recipe
        rng = np.random.default_rng([self._stream, recipe.seed, index])
        if self._stream == TRAINING:
            recipe = recipe.at(index // recipe.batch_size, len(self) // recipe.batch_size)
        images, labels = training_batch(
            rng, 1, recipe.image_size, recipe.scene_objects, recipe.scene_object_size
        )
        return Image.fromarray(images[0]), int(labels[0])


class DatasetPictures:
    """A data set whose unreadable images are named instead of skipped silently."""

    endless = False

    def __init__(self, recipe: Recipe, split: str) -> None:
        self._recipe = recipe
        try:
            self._dataset: Any = open_source(recipe, split)
            count = len(self._dataset)
        except Exception as error:  # readers raise what they like
            reason = str(error) or f"cannot be opened ({type(error).__name__})"
            raise InputError(f"data {recipe.data}, {split}: {reason}") from error
        if count == 0:
            raise InputError(f"data {recipe.data}, {split}: no images")
        self._reader = getattr(self._dataset, "reader", None)
        labels: Any = getattr(self._reader, "class_to_idx", None) or {}
        names = sorted(labels, key=labels.get) or getattr(self._dataset, "classes", None)
        self.classes = tuple(map(str, names or range(recipe.num_classes or 0)))

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        for number in range(index, index + len(self)):
            try:
                return self._read(number % len(self))
            except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises
                name = self._name(number % len(self))
                if self._recipe.on_error == "raise":
                    raise InputError(
                        f"{name}: not a readable image ({error}); on_error: skip goes on"
                    ) from error
                _logger.warning("%s: skipped, not a readable image (%s)", name, error)
        raise InputError(f"data {self._recipe.data}: no image can be read")

    def _read(self, index: int) -> tuple[Image.Image, int]:
        if self._reader is None:
            with only_image_formats():  # these data sets open their images themselves
                image, label = self._dataset[index]
                return image.convert("RGB"), int(label)
        stream, label = self._reader[index]
        with stream, opened_image(stream, "") as image:
            return image.convert("RGB"), int(label)

    def _name(self, index: int) -> str:
        if self._reader is None:
            return f"{self._recipe.data}, image {index}"
        return str(self._dataset.filename(index, absolute=True))


@dataclass(frozen=True)
class TrainingData:
    """Images that a run trains on and is measured on.

    Attributes:
        training: Images of an epoch, or as many as the run needs where they are endless.
        validation: Images to measure.
        num_classes: Number of outputs of the head; 0 without labels.
    """

    training: Pictures
    validation: Pictures | None
    num_classes: int


def open_data(recipe: Recipe, labelled: bool = True) -> TrainingData:
    """Find the images of a recipe.

    Args:
        recipe: Recipe, which names the data of training and validation.
        labelled: Whether images need labels.

    Raises:
        InputError: There are none, or fewer than a batch, or, where labels count, fewer than two
            classes or others in validation than in training.
    """
    training = _open_pictures(recipe, TRAINING, recipe.train_split)
    validation = None
    if recipe.validation_split is not None:
        validation = _open_pictures(recipe, HELD_OUT, recipe.validation_split)
    where = f"data {recipe.data}"
    if len(training) < recipe.batch_size:
        raise InputError(
            f"{where}: {len(training)} images are fewer than batch_size {recipe.batch_size}"
        )
    if not labelled:
        return TrainingData(training, validation, num_classes=0)
    if not training.classes:
        raise InputError(f"{where}: does not say its classes: give num_classes")
    if len(training.classes) < 2:
        raise InputError(f"{where}: expected two classes or more, found {list(training.classes)}")
    if validation and validation.classes != training.classes:
        differing = sorted({*validation.classes} ^ {*training.classes})[:5]
        raise InputError(f"{where}: training and validation differ in classes {differing}")
    return TrainingData(training, validation, recipe.num_classes or len(training.classes))


def _open_pictures(recipe: Recipe, stream: int, split: str) -> Pictures:
    if recipe.data != "scenes":
        return DatasetPictures(recipe, split)
    drawn = (recipe.steps or 0) * recipe.batch_size
    return Scenes(recipe, stream, drawn if stream == TRAINING else recipe.validation_scenes)
