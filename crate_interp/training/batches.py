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
from crate_interp.training.augmentation import (
    Normalisation,
    Transform,
    training_transform,
    validation_preparation,
)
from crate_interp.training.data import Pictures
from crate_interp.training.recipe import Recipe

__all__ = ["batches_of", "label_as_target", "seed_generators"]

Batch = tuple[Float[Tensor, "B 3 H W"], Shaped[Tensor, "B ..."]]
View = Callable[[Image.Image, int, Transform], tuple[Tensor, Tensor]]


def seed_generators(*numbers: int) -> None:
    """Begin the global generators of Python, numpy and torch anew, from numbers."""
    words = np.random.SeedSequence(numbers).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002  (timm draws from the global generators)
    # Without a GPU in use, torch.manual_seed takes a traceback and keeps it, at every call.
    torch.default_generator.manual_seed(int(words[2]))
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(int(words[2]))


class Batches(Dataset[Batch | InputError]):
    """Batches by number: the images of each, read and transformed at the size of its stage.

    An image that is at fault is returned as its error: raised in a worker process, it would
    come out as a traceback.
    """

    def __init__(
        self,
        recipe: Recipe,
        pictures: Pictures,
        numbers: Callable[[int], list[tuple[int, int]]],
        transform_of: Callable[[int], Transform],
        view: View,
    ) -> None:
        self._recipe, self._pictures = recipe, pictures
        self._numbers, self._transform_of, self._view = numbers, transform_of, view

    def __getitem__(self, batch: int) -> Batch | InputError:
        views = []
        transform = self._transform_of(batch)
        for number, index in self._numbers(batch):
            try:
                image, label = self._pictures[index]
            except InputError as error:
                return error
            seed_generators(self._recipe.seed, number)
            try:
                views.append(self._view(image, label, transform))
            except InputError as error:
                return InputError(f"data {self._recipe.data}, image {index}: {error}")
        images, targets = (torch.stack(parts) for parts in zip(*views, strict=True))
        return images, targets


@dataclass(frozen=True)
class _Training:
    """Images of each forward pass, (number in the run, index of the image), and their transform."""

    recipe: Recipe
    pictures: Pictures
    rank: int
    processes: int
    updates: int
    transforms: dict[int, Transform]

    def transform_of(self, batch: int) -> Transform:
        stage = self.recipe.at(batch // self.recipe.accumulation, self.updates)
        return self.transforms[stage.image_size]

    def numbers(self, batch: int) -> list[tuple[int, int]]:
        recipe = self.recipe
        update, part = divmod(batch, recipe.accumulation)
        size = recipe.batch_size // recipe.accumulation // self.processes
        first = update * recipe.batch_size + (part * self.processes + self.rank) * size
        numbers = range(first, first + size)
        if self.pictures.endless:
            return [(number, number) for number in numbers]
        # The images of a last, smaller batch wait for another epoch's order.
        count = len(self.pictures)
        epoch, position = divmod(first, count - count % recipe.batch_size)
        order = _epoch_order(recipe.seed, epoch, count)
        return list(zip(numbers, order[position : position + size].tolist(), strict=True))


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, count: int) -> Int64[np.ndarray, " count"]:
    return np.random.default_rng([seed, epoch]).permutation(count)


@dataclass(frozen=True)
class _Validation:
    """Every image once, dealt out to the processes, and the one transform of all."""

    size: int
    indices: range
    transform: Transform

    def transform_of(self, _: int) -> Transform:
        return self.transform

    def numbers(self, batch: int) -> list[tuple[int, int]]:
        own = self.indices[batch * self.size : (batch + 1) * self.size]
        return [(index, index) for index in own]


def label_as_target(image: Image.Image, label: int, transform: Transform) -> tuple[Tensor, Tensor]:
    """Transform an image, and give its label as a tensor."""
    return transform(image), torch.tensor(label)


def batches_of(
    recipe: Recipe,
    pictures: Pictures,
    normalisation: Normalisation,
    process: tuple[int, int] = (0, 1),
    updates: range | None = None,
    view: View = label_as_target,
) -> Iterator[Batch]:
    """Read the images of one process, augmented for training or each once for validation.

    Args:
        recipe: Sizes and augmentation.
        pictures: What to read.
        normalisation: Mean and standard deviation of RGB in [0, 1].
        process: Number of this process, and how many there are.
        updates: Which updates to read the batches of; `None`: the images are for validation.
        view: Makes input and target of an image, its label and the transform; may draw from the
            global generators, which an image's number has seeded.

    Raises:
        InputError: An image cannot be read, or the view refuses it.
    """
    rank, processes = process
    plan: _Training | _Validation
    if updates is None:
        indices = range(rank, len(pictures), processes)
        size = max(1, recipe.batch_size // recipe.accumulation // processes)
        mean, std = normalisation
        transform = create_transform(**validation_preparation(recipe), mean=mean, std=std)
        plan = _Validation(size, indices, transform)
        numbers = range(-(-len(indices) // size))
    else:
        sizes = set(recipe.image_sizes)
        transforms = {size: training_transform(recipe, size, normalisation) for size in sizes}
        plan = _Training(recipe, pictures, rank, processes, updates.stop, transforms)
        numbers = range(updates.start * recipe.accumulation, updates.stop * recipe.accumulation)
    loader: DataLoader[Any] = DataLoader(
        Batches(recipe, pictures, plan.numbers, plan.transform_of, view),
        batch_size=None,
        sampler=numbers,
        num_workers=recipe.workers,
        worker_init_fn=_start_worker,
        pin_memory=torch.cuda.is_available(),
    )
    for batch in loader:
        if isinstance(batch, InputError):
            raise batch
        yield batch


def _start_worker(_: int) -> None:
    # A cluster sends signals to all processes; the training process answers, and needs its batch.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
