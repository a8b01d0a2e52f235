"""Captioned images that a run trains on: built-in scenes, WebDataset's shards, or a table."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from crate_interp.data.image_files import opened_image
from crate_interp.data.scene_captions import caption_vocabulary, write_caption
from crate_interp.data.vocabulary import Vocabulary, WordVocabulary, read_vocabulary
from crate_interp.errors import InputError, shorten
from crate_interp.training.caption_readers import CaptionReader, CaptionShards, CaptionTable
from crate_interp.training.data import HELD_OUT, TRAINING, Scenes, TrainingData, check_count
from crate_interp.training.pictures import read_from
from crate_interp.training.recipe import Recipe
from crate_interp.training.sources import describe_data

__all__ = ["CaptionData", "open_caption_data"]

_CAPTIONS = 3  # stream of random numbers, beside those of the scenes
_TEXT = ("utf-8", "surrogateescape")  # names of files need not be text


class CaptionedScenes(Scenes):
    """Built-in scenes, each with a caption that names its objects, the largest first."""

    classes: tuple[str, ...] = ()

    def __getitem__(self, index: int) -> tuple[Any, int]:
        scene = self.draw(index)
        rng = np.random.default_rng([_CAPTIONS, self._recipe.seed, index])
        return (Image.fromarray(scene.image), write_caption(scene.labels_by_size, rng)), -1


class CaptionedPictures:
    """Images of a reader, each with its caption; unreadable ones are named, not skipped silently.

    Args:
        recipe: Recipe, which names the data and says what an unreadable image does.
        reader: Reader of the images and the captions.
    """

    classes: tuple[str, ...] = ()
    endless = False

    def __init__(self, recipe: Recipe, reader: CaptionReader) -> None:
        self._recipe, self.reader = recipe, reader

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> tuple[tuple[Image.Image, str], int]:
        number, image = read_from(index, len(self), self._read, self._name, self._recipe)
        return (image, self.reader.caption(number)), -1

    def _read(self, index: int) -> Image.Image:
        with self.reader.image(index) as file, opened_image(file, "") as opened:
            return opened.convert("RGB")

    def _name(self, index: int) -> str:
        return f"{describe_data(self._recipe)}: {self.reader.path(index)}"


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

    @cached_property
    def record(self) -> dict[str, Any] | None:
        """Number of pictures, and the SHA-256 of their names and the vocabulary; `None`: scenes."""
        if not isinstance(self.training, CaptionedPictures):
            return None
        digest = hashlib.sha256(str(self.vocabulary.record).encode(errors="surrogatepass"))
        for index in range(len(self.training)):
            digest.update(f"\n{self.training.reader.path(index)}".encode(*_TEXT))
        return {"pictures": len(self.training), "names_sha256": digest.hexdigest()}


def open_caption_data(recipe: Recipe, embedding: int) -> CaptionData:
    """Open the captioned images of a recipe.

    Args:
        recipe: Recipe, which names the data.
        embedding: Number of dimensions that images and texts share.

    Raises:
        InputError: The data have no captions or cannot be read, or the recipe asks for what
            captioned images do not have.
    """
    if recipe.data == "scenes":
        return _open_scenes(recipe, embedding)
    reader = _open_reader(recipe)
    for key in ("validation_split", "held_out", "exclude"):
        if getattr(recipe, key) is not None:
            raise InputError(
                f"{key}: captioned images have no classes to validate by, and all are trained on: "
                f"expected null, found {shorten(getattr(recipe, key))}"
            )
    check_count(len(reader), recipe)
    if recipe.tokenizer is None:
        vocabulary: Vocabulary = WordVocabulary.of(map(reader.caption, range(len(reader))))
    else:
        vocabulary = read_vocabulary(recipe.tokenizer)
    return CaptionData(CaptionedPictures(recipe, reader), None, embedding, vocabulary)


def _open_scenes(recipe: Recipe, embedding: int) -> CaptionData:
    if recipe.tokenizer is not None:
        raise InputError(
            "tokenizer: captions of scenes have a vocabulary of their own: expected null, found "
            f"{shorten(recipe.tokenizer)}"
        )
    training = CaptionedScenes(recipe, TRAINING, (recipe.steps or 0) * recipe.batch_size)
    validation = None
    if recipe.validation_split is not None:
        validation = Scenes(recipe, HELD_OUT, recipe.validation_scenes)
    return CaptionData(training, validation, embedding, caption_vocabulary())


def _open_reader(recipe: Recipe) -> CaptionReader:
    data, root = recipe.data, Path(recipe.data_root or "")
    if isinstance(data, str) and data.lower().endswith((".csv", ".tsv")):
        return CaptionTable(root / data)
    if isinstance(data, str) and data.lower().startswith("wds/"):
        return CaptionShards(root / data.partition("/")[2], recipe.train_split)
    raise InputError(
        "data: expected scenes, wds/FOLDER of shards, or a .csv or .tsv file, which have "
        f"captions, found {describe_data(recipe)}"
    )
