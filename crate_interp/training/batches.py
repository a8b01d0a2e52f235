"""Batches by number, so that a run can go on at any update with the same images.

Nothing here has a position or a generator that lives on: the order of an epoch is drawn from
(seed, epoch), the augmentation of an image from (seed, its number in the run). So the images
are the same after a stop, and with any number of workers, processes and accumulation steps.

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

import random
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
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
from crate_interp.training.sources import describe_data

__all__ = ["batches_of", "label_as_target", "seed_generators"]

Batch = tuple[Float[Tensor, "B 3 H W"], Shaped[Tensor, "B ..."]]
View = Callable[[Any, int, Transform], tuple[Tensor, Tensor]]


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
class _Batches(Dataset[Batch | InputError], ABC):
    """Batches by number: the images of each, read and transformed at the size of its stage.

    An image that is at fault is returned as its error: raised in a worker process, it would
    come out as a traceback.
    """

    recipe: Recipe
    pictures: Pictures
    view: View
    process: tuple[int, int]  # number of this one, and how many there are
    size: int  # images per forward pass of one process

    @abstractmethod
    def plan(self, batch: int) -> tuple[Transform, Iterable[tuple[int, int]]]:
        """Transform of a batch; number in the run and index of each of its images."""

    def __getitem__(self, batch: int) -> Batch | InputError:
        views = []
        transform, plan = self.plan(batch)
        for number, index in plan:
            try:
                image, label = self.pictures[index]
            except InputError as error:
                return error
            seed_generators(self.recipe.seed, number)
            try:
                views.append(self.view(image, label, transform))
            except InputError as error:
                return InputError(f"{describe_data(self.recipe)}, image {index}: {error}")
        images, targets = (torch.stack(parts) for parts in zip(*views, strict=True))
        return images, targets


@dataclass(frozen=True)
class _Training(_Batches):
    """Every image once per epoch, in an order of its own."""

    updates: int
    transforms: dict[int, Transform]  # by image size

    def plan(self, batch: int) -> tuple[Transform, Iterable[tuple[int, int]]]:
        recipe, (rank, processes) = self.recipe, self.process
        update, part = divmod(batch, recipe.accumulation)
        transform = self.transforms[recipe.at(update, self.updates).image_size]
        first = update * recipe.batch_size + (part * processes + rank) * self.size
        numbers = range(first, first + self.size)
        if self.pictures.endless:
            return transform, zip(numbers, numbers, strict=True)
        # The images of a last, smaller batch wait for another epoch's order.
        count = len(self.pictures)
        epoch, position = divmod(first, count - count % recipe.batch_size)
        order = _epoch_order(recipe.seed, epoch, count)[position : position + self.size]
        return transform, zip(numbers, order.tolist(), strict=True)


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, count: int) -> Int64[np.ndarray, " count"]:
    return np.random.default_rng([seed, epoch]).permutation(count)


@dataclass(frozen=True)
class _Validation(_Batches):
    """Every image once, dealt out to the processes."""

    transform: Transform
    indices: range

    def plan(self, batch: int) -> tuple[Transform, Iterable[tuple[int, int]]]:
        own = self.indices[batch * self.size : (batch + 1) * self.size]
        return self.transform, zip(own, own, strict=True)


def label_as_target(image: Image.Image, label: int, transform: Transform) -> tuple[Tensor, Tensor]:
    """Transform an image, and give its label as a tensor."""
    return transform(image), torch.tensor(label)


def batches_of(
    recipe: Recipe,
    pictures: Pictures,
    normalisation: Normalisation | None,
    process: tuple[int, int] = (0, 1),
    updates: range | None = None,
    view: View = label_as_target,
) -> Iterator[Batch]:
    """Read the images of one process, augmented for training or each once for validation.

    Args:
        recipe: Recipe with sizes and augmentation.
        pictures: Images to read.
        normalisation: Mean and standard deviation of RGB in [0, 1]; `None` for texts.
        process: Number of this process, and how many there are.
        updates: Updates to read the batches of; `None`: the images are for validation.
        view: Makes input and target of an image, its label and the transform; may draw from the
            global generators, which an image's number has seeded.

    Raises:
        InputError: An image cannot be read, or the view refuses it.
    """
    size = max(1, recipe.batch_size // recipe.accumulation // process[1])
    common = (recipe, pictures, view, process, size)
    if updates is None:
        transform: Transform = _as_it_is
        if normalisation is not None:
            mean, std = normalisation
            transform = create_transform(**validation_preparation(recipe), mean=mean, std=std)
        indices = range(process[0], len(pictures), process[1])
        batches: _Batches = _Validation(*common, transform, indices)
        numbers = range(-(-len(indices) // size))
    else:
        sizes = set(recipe.image_sizes)
        transforms: dict[int, Transform] = dict.fromkeys(sizes, _as_it_is)
        if normalisation is not None:
            transforms = {size: training_transform(recipe, size, normalisation) for size in sizes}
        batches = _Training(*common, updates.stop, transforms)
        numbers = range(updates.start * recipe.accumulation, updates.stop * recipe.accumulation)
    loader: DataLoader[Any] = DataLoader(
        batches,
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


def _as_it_is(example: Any) -> Any:
    return example


def _start_worker(_: int) -> None:
    # A cluster sends signals to all processes; the training process answers, and needs its batch.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
