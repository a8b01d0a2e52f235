"""Batches by number, so that a run can go on at any update with the same images.

Nothing here has a position or a generator that lives on: the order of an epoch is drawn from
(seed, epoch), the augmentation of an image from (seed, its number in the run). So the images
are the same after a stop, and with any number of workers, processes and accumulation steps.

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from PIL import Image
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from crate_interp.errors import InputError
from crate_interp.training.data import Pictures
from crate_interp.training.recipe import Recipe

__all__ = ["batches_of", "seed_generators", "validation_preparation"]

Batch = tuple[Float[Tensor, "B 3 H W"], Shaped[Tensor, "B ..."]]
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
Transform = Callable[[Image.Image], Float[Tensor, "3 H W"]]
TargetOf = Callable[[int, Float[Tensor, "3 H W"]], Tensor]


def seed_generators(*numbers: int) -> None:
    """Begin the global generators of Python, numpy and torch anew, from numbers."""
    words = np.random.SeedSequence(numbers).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002  (timm draws from the global generators)
    # Without a GPU in use, torch.manual_seed takes a traceback and keeps it, at every call.
    torch.default_generator.manual_seed(int(words[2]))
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(int(words[2]))


@dataclass(frozen=True)
class _Transforms:
    """From an image to the pixels of a batch, at the size of its stage."""

    recipe: Recipe
    updates: int | None
    by_size: dict[int, Transform]

    def of(self, batch: int) -> Transform:
        if self.updates is None:
            return self.by_size[self.recipe.image_size]
        recipe = self.recipe.at(batch // self.recipe.accumulation, self.updates)
        return self.by_size[recipe.image_size]


class Batches(Dataset[Batch | InputError]):
    """Batches by number: each a list of image numbers, read and transformed.

    An image that is at fault is returned as its error: raised in a worker process, it would
    come out as a traceback.
    """

    def __init__(
        self,
        recipe: Recipe,
        pictures: Pictures,
        numbers: Callable[[int], list[tuple[int, int]]],
        count: int,
        transforms: _Transforms,
        target_of: TargetOf,
    ) -> None:
        self._recipe, self._pictures, self._count = recipe, pictures, count
        self._numbers, self._transforms, self._target_of = numbers, transforms, target_of

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, batch: int) -> Batch | InputError:
        images, targets = [], []
        transform = self._transforms.of(batch)
        for number, index in self._numbers(batch):
            try:
                image, label = self._pictures[index]
            except InputError as error:
                return error
            seed_generators(self._recipe.seed, number)
            images.append(transform(image))
            try:
                targets.append(self._target_of(label, images[-1]))
            except InputError as error:
                return InputError(f"data {self._recipe.data}, image {index}: {error}")
        return torch.stack(images), torch.stack(targets)


@dataclass(frozen=True)
class _TrainingNumbers:
    """The images of each forward pass: (number in the run, index of the image)."""

    recipe: Recipe
    count: int
    rank: int
    processes: int

    def __call__(self, batch: int) -> list[tuple[int, int]]:
        recipe = self.recipe
        update, part = divmod(batch, recipe.accumulation)
        size = recipe.batch_size // recipe.accumulation // self.processes
        first = update * recipe.batch_size + (part * self.processes + self.rank) * size
        numbers = range(first, first + size)
        if recipe.data == "scenes":
            return [(number, number) for number in numbers]
        # The images of a last, smaller batch wait for another epoch's order.
        epoch, position = divmod(first, self.count - self.count % recipe.batch_size)
        order = _epoch_order(recipe.seed, epoch, self.count)
        indices = order[position : position + size].tolist()
        return list(zip(numbers, indices, strict=True))


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, count: int) -> Int64[np.ndarray, " count"]:
    return np.random.default_rng([seed, epoch]).permutation(count)


@dataclass(frozen=True)
class _ValidationNumbers:
    """Every image once, dealt out to the processes."""

    size: int
    count: int
    rank: int
    processes: int

    def __call__(self, batch: int) -> list[tuple[int, int]]:
        own = range(self.rank, self.count, self.processes)
        return [(index, index) for index in own[batch * self.size : (batch + 1) * self.size]]


def label_as_target(label: int, pixels: Float[Tensor, "3 H W"]) -> Int64[Tensor, ""]:  # noqa: ARG001
    """Give the label; what goes with an image where nothing is done with it."""
    return torch.tensor(label)


def batches_of(
    recipe: Recipe,
    pictures: Pictures,
    normalisation: Normalisation,
    process: tuple[int, int] = (0, 1),
    updates: range | None = None,
    target_of: TargetOf = label_as_target,
) -> Iterator[Batch]:
    """Read the images of one process, augmented for training or each once for validation.

    Args:
        recipe: Sizes and augmentation.
        pictures: What to read.
        normalisation: Mean and standard deviation of RGB in [0, 1].
        process: Number of this process, and how many there are.
        updates: Which updates to read the batches of; `None`: the images are for validation.
        target_of: Makes of a label and the pixels what goes with an image; may draw from the
            global generators, which an image's number has seeded.

    Raises:
        InputError: An image cannot be read, or has no target.
    """
    numbers: Callable[[int], list[tuple[int, int]]]
    if updates is None:
        by_size = {recipe.image_size: _validation_transform(recipe, normalisation)}
        transforms = _Transforms(recipe, None, by_size)
        size = max(1, recipe.batch_size // recipe.accumulation // process[1])
        numbers = _ValidationNumbers(size, len(pictures), *process)
        wanted = range(-(-len(range(process[0], len(pictures), process[1])) // size))
    else:
        sizes = {recipe.image_size, *(stage.image_size for stage in recipe.staged)}
        by_size = {size: _training_transform(recipe, size, normalisation) for size in sizes}
        transforms = _Transforms(recipe, updates.stop, by_size)
        numbers = _TrainingNumbers(recipe, len(pictures), *process)
        wanted = range(updates.start * recipe.accumulation, updates.stop * recipe.accumulation)
    source = Batches(recipe, pictures, numbers, wanted.stop, transforms, target_of)
    loader: DataLoader[Any] = DataLoader(
        source,
        batch_size=None,
        sampler=wanted,
        num_workers=recipe.workers,
        worker_init_fn=_start_worker,
        pin_memory=torch.cuda.is_available(),
    )
    for batch in loader:
        if isinstance(batch, InputError):
            raise batch
        yield batch


def _validation_transform(recipe: Recipe, normalisation: Normalisation) -> Transform:
    mean, std = normalisation
    transform: Transform = create_transform(**validation_preparation(recipe), mean=mean, std=std)
    return transform


def validation_preparation(recipe: Recipe) -> dict[str, Any]:
    """Give the arguments of timm's transform with which a recipe's validation images are made.

    Args:
        recipe: Its images are not cropped where training does not crop either.
    """
    whole = recipe.data == "scenes" or recipe.crop_area is None
    return {
        "input_size": (3, recipe.image_size, recipe.image_size),
        "crop_pct": recipe.crop_pct or (1.0 if whole else None),
        "interpolation": _fixed(recipe.interpolation),
    }


def _training_transform(recipe: Recipe, size: int, normalisation: Normalisation) -> Transform:
    mean, std = normalisation
    common: dict[str, Any] = {"input_size": size, "is_training": True, "mean": mean, "std": std}
    if recipe.crop_area is None:
        plain: Transform = create_transform(
            **common, no_aug=True, interpolation=_fixed(recipe.interpolation)
        )
        return plain
    augmented: Transform = create_transform(
        **common,
        scale=recipe.crop_area,
        hflip=recipe.flip,
        color_jitter=recipe.color_jitter,
        auto_augment=recipe.auto_augment,
        re_prob=recipe.random_erasing,
        interpolation=recipe.interpolation,
    )
    return augmented


def _fixed(interpolation: str) -> str:
    return "bicubic" if interpolation == "random" else interpolation


def _start_worker(_: int) -> None:
    # A cluster sends signals to all processes; the training process answers, and needs its batch.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
