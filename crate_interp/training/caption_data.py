"""Captioned images that a run trains on: the built-in scenes, with what they hold in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from crate_interp.data.scene_captions import caption_vocabulary, write_caption
from crate_interp.data.vocabulary import Vocabulary
from crate_interp.errors import InputError
from crate_interp.training.data import HELD_OUT, TRAINING, Scenes, TrainingData
from crate_interp.training.recipe import Recipe
from crate_interp.training.sources import describe_data

__all__ = ["CaptionData", "open_caption_data"]

_CAPTIONS = 3  # stream of random numbers, beside those of the scenes


class CaptionedScenes(Scenes):
    """Built-in scenes, each with a caption that names its objects, the largest first."""

    classes: tuple[str, ...] = ()

    def __getitem__(self, index: int) -> tuple[Any, int]:
        scene = self.draw(index)
        rng = np.random.default_rng([_CAPTIONS, self._recipe.seed, index])
        return (Image.fromarray(scene.image), write_caption(scene.labels_by_size, rng)), -1


@dataclass(frozen=True)
class CaptionData(TrainingData):
    """Captioned images to train on, and images with classes to measure.

    Attributes:
        training: Pairs of an image and its caption.
        validation: Images to name the class of.
        num_classes: Number of dimensions that images and texts share.
        vocabulary: Vocabulary of the captions.
    """

    vocabulary: Vocabulary


def open_caption_data(recipe: Recipe, embedding: int) -> CaptionData:
    """Open the captioned images of a recipe.

    Args:
        recipe: Recipe, which names the data.
        embedding: Number of dimensions that images and texts share.

    Raises:
        InputError: The data have no captions.
    """
    if recipe.data != "scenes":
        raise InputError(
            f"data: expected scenes, which alone have captions, found {describe_data(recipe)}"
        )
    training = CaptionedScenes(recipe, TRAINING, (recipe.steps or 0) * recipe.batch_size)
    validation = None
    if recipe.validation_split is not None:
        validation = Scenes(recipe, HELD_OUT, recipe.validation_scenes)
    return CaptionData(training, validation, embedding, caption_vocabulary())
