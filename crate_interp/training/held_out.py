"""Images that a trained classifier is measured on, prepared as those of its validation were."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from jaxtyping import Float
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from crate_interp.errors import InputError
from crate_interp.files import checked_as, parse_json_as
from crate_interp.models.backbones import Backbone, embedding_of, input_hw_of
from crate_interp.training.augmentation import validation_preparation
from crate_interp.training.data import HELD_OUT, Pictures, Scenes
from crate_interp.training.pictures import open_pictures
from crate_interp.training.readers import folder_of
from crate_interp.training.recipe import Recipe
from crate_interp.training.sources import sources_of
from crate_interp.weights.files import read_metadata

__all__ = ["open_held_out", "preparation_of", "read_prepared", "recorded_recipe"]

# Folders that hold a part of a data set, by timm's names.
_SPLITS = ({"train", "training"}, {"val", "valid", "validation", "eval", "evaluation"}, {"test"})
# Keys of a recipe that say how its validation images are prepared, and which scenes they are.
_PREPARATION = ("data", "image_size", "crop_area", "crop_pct", "interpolation")
_SCENES = ("seed", "scene_objects", "scene_object_size", "validation_scenes")

Item = tuple[Float[Tensor, "3 H W"], int]


def recorded_recipe(path: Path | None) -> Mapping[str, Any] | None:
    """Read the part of a recipe that decides about validation images.

    Args:
        path: A weight file; our training writes its recipe into it. `None` for random weights.

    Returns:
        Keys and values, `None` where no recipe is recorded.

    Raises:
        InputError: The record is damaged.
    """
    training = None if path is None else read_metadata(path).get("training")
    if training is None:
        return None
    source = f"{path}: its record of the training"
    recipe = parse_json_as(training, dict[str, Any], source).get("recipe")
    if not isinstance(recipe, dict):
        return None  # `convert` keeps what texts lie beside weights, and one may have that name
    hints = get_type_hints(Recipe)
    return {
        key: checked_as(value, hints[key], f"{source}: {key}")
        for key, value in _keys(recipe, (*_PREPARATION, *_SCENES)).items()
    }


def preparation_of(
    name: str, model: Backbone, data: str, side: int | None, recorded: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Give the arguments of timm's transform: those of the training, else the model's own.

    Args:
        name: Name of the model, for its recipe.
        model: The model.
        data: Data set; built-in scenes are never cropped.
        side: Side of the input, pixels; `None` for the recorded one, or the model's test size.
        recorded: As `recorded_recipe` returns it.

    Raises:
        InputError: The side is no whole number of patches.
    """
    own = resolve_model_data_config(model, use_test_size=True)
    size = input_hw_of(model)[-1]
    if size == getattr(model, "pretrained_cfg", {}).get("input_size", (0,))[-1]:
        size = int(own["input_size"][-1])  # the test size, which another training size has not
    preparation = {
        key: own[key] for key in ("mean", "std", "interpolation", "crop_pct", "crop_mode")
    }
    if recorded is not None:
        recipe = Recipe(model=name, steps=1, **_keys(recorded, _PREPARATION))
        size = recipe.image_size
        preparation |= validation_preparation(recipe)
    elif data == "scenes":
        preparation["crop_pct"] = 1.0
    size = side or size
    patch_size = embedding_of(model).patch_size
    if any(size % patch for patch in patch_size):
        raise InputError(f"size {size}: expected a multiple of the patch of {patch_size[0]} pixels")
    return {**preparation, "input_size": (3, size, size)}


def open_held_out(recipe: Recipe, recorded: Mapping[str, Any] | None) -> Pictures:
    """Open the validation split of a recipe; scenes are those that training held out.

    Args:
        recipe: Recipe, which names the data, no list of sources.
        recorded: As `recorded_recipe` returns it; says which scenes were held out.

    Raises:
        InputError: The data cannot be opened, or have no such split.
    """
    if recipe.data == "scenes":
        recipe = dataclasses.replace(recipe, **_keys(recorded or {}, _SCENES))
        return Scenes(recipe, HELD_OUT, recipe.validation_scenes)
    split = recipe.validation_split or recipe.train_split
    (source,) = sources_of(recipe)
    _refuse_missing_split(folder_of(source, recipe.data_root), split)
    pictures, _ = open_pictures(
        dataclasses.replace(recipe, train_split=split, validation_split=None)
    )
    return pictures


def read_prepared(
    pictures: Pictures,
    indices: Sequence[int],
    preparation: Mapping[str, Any],
    batch_size: int,
    workers: int,
) -> DataLoader[Any]:
    """Read images in batches, each a list of images with their labels.

    Args:
        pictures: The images.
        indices: Numbers of the images to read, in order.
        preparation: As `preparation_of` returns it.
        batch_size: Images in a batch.
        workers: Processes that read; 0 for none but this one.

    Returns:
        Batches; in place of an image that cannot be read stands its error.
    """
    return DataLoader(
        _Prepared(pictures, indices, create_transform(**preparation)),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=list,
    )


class _Prepared(Dataset[Item | InputError]):
    """Images as the model takes them; one that cannot be read is its error."""

    def __init__(
        self, pictures: Pictures, indices: Sequence[int], transform: Callable[[Image.Image], Tensor]
    ) -> None:
        self._pictures, self._indices, self._transform = pictures, indices, transform

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, position: int) -> Item | InputError:
        try:
            image, label = self._pictures[self._indices[position]]
        except InputError as error:
            return error
        return self._transform(image), label


def _keys(recipe: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: recipe[name] for name in names if name in recipe}


def _refuse_missing_split(folder: Path, split: str) -> None:
    # timm then takes the whole folder, other splits and all, without a word.
    if not folder.is_dir():
        return
    there = {entry.name for entry in folder.iterdir() if entry.is_dir()}
    names = next((names for names in _SPLITS if split in names), {split})
    if there and there <= set().union(*_SPLITS) and not there & names:
        raise InputError(f"{folder}: expected a folder {split!r}, found {sorted(there)}")
