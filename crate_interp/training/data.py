"""Data that a run trains on: labelled images by index, of the built-in scenes or of a data set."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from PIL import Image

from crate_interp.data.scene_categories import CATEGORIES
from crate_interp.data.scenes import Scene, draw_scene
from crate_interp.errors import InputError
from crate_interp.training.pictures import DatasetPictures, open_pictures
from crate_interp.training.recipe import Recipe
from crate_interp.training.sources import describe_data

__all__ = ["HELD_OUT", "TRAINING", "Pictures", "Scenes", "TrainingData", "check_count", "open_data"]

TRAINING, HELD_OUT = 1, 2  # streams of scenes
_TEXT = ("utf-8", "surrogateescape")  # names of files need not be text


class Pictures(Protocol):
    """A set of labelled images, or of windows of a text, which have no label.

    Attributes:
        classes: Names of the classes, by label.
        endless: Whether each index is a new image, so that there are no epochs.
    """

    classes: tuple[str, ...]
    endless: bool

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Any, int]: ...


class Scenes:
    """Built-in scenes, drawn when asked for; the label is the largest object's category."""

    classes: tuple[str, ...] = tuple(category.name for category in CATEGORIES)
    endless = True

    def __init__(self, recipe: Recipe, stream: int, count: int) -> None:
        self._recipe, self._stream, self._count = recipe, stream, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Any, int]:
        scene = self.draw(index)
        return Image.fromarray(scene.image), scene.labels_by_size[0]

    def draw(self, index: int) -> Scene:
        """Draw the scene of a number."""
        recipe = self._recipe
        rng = np.random.default_rng([self._stream, recipe.seed, index])
        if self._stream == TRAINING:
            recipe = recipe.at(index // recipe.batch_size, len(self) // recipe.batch_size)
        size_hw = (recipe.image_size, recipe.image_size)
        return draw_scene(rng, size_hw, recipe.scene_objects, recipe.scene_object_size)


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

    @cached_property
    def record(self) -> dict[str, Any] | None:
        """What is recorded of the pictures, not where they lay; `None` for scenes.

        Number of pictures, of those for validation and of classes, counts by source, and the
        SHA-256 of all names and classes in order.
        """
        digest = hashlib.sha256("\n".join(self.training.classes).encode(*_TEXT))
        sources: dict[str, dict[str, int]] = {}
        for split, pictures in (("training", self.training), ("validation", self.validation)):
            if pictures is not None and not isinstance(pictures, DatasetPictures):
                return None
            for source, count in pictures.counts().items() if pictures else ():
                sources.setdefault(source, {})[split] = count
            for name, class_name in pictures.names() if pictures else ():
                digest.update(f"\n{split} {name} {class_name}".encode(*_TEXT))
        return {
            "pictures": len(self.training),
            "validation": len(self.validation or ()),
            "classes": len(self.training.classes),
            "sources": sources,
            "names_sha256": digest.hexdigest(),
        }


def open_data(recipe: Recipe, labelled: bool = True) -> TrainingData:
    """Find the images of a recipe.

    Args:
        recipe: Recipe, which names the data of training and validation.
        labelled: Whether images need labels.

    Raises:
        InputError: There are none, or fewer than a batch, or, where labels count, fewer than two
            classes, or some in validation that are not in training.
    """
    training, validation = _open_both(recipe)
    where = describe_data(recipe)
    check_count(len(training), recipe)
    if not labelled:
        return TrainingData(training, validation, num_classes=0)
    if not training.classes:
        raise InputError(f"{where}: does not say its classes: give num_classes")
    if len(training.classes) < 2:
        raise InputError(f"{where}: expected two classes or more, found {list(training.classes)}")
    differing = sorted({*(validation.classes if validation else ())} - {*training.classes})[:5]
    if differing:
        raise InputError(f"{where}: training and validation differ in classes {differing}")
    return TrainingData(training, validation, recipe.num_classes or len(training.classes))


def check_count(count: int, recipe: Recipe) -> None:
    """Refuse fewer images than a batch.

    Args:
        count: Number of images to train on.
        recipe: Recipe, which names the data.
    """
    if count < recipe.batch_size:
        raise InputError(
            f"{describe_data(recipe)}: {count} images are fewer than batch_size {recipe.batch_size}"
        )


def _open_both(recipe: Recipe) -> tuple[Pictures, Pictures | None]:
    if recipe.data != "scenes":
        return open_pictures(recipe)
    training = Scenes(recipe, TRAINING, (recipe.steps or 0) * recipe.batch_size)
    if recipe.validation_split is None:
        return training, None
    return training, Scenes(recipe, HELD_OUT, recipe.validation_scenes)
