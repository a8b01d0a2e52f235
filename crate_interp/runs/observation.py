"""What commands that look inside a model share: the model, the images, and a pass over them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Generator, Iterable, Sequence
from contextlib import closing
from operator import methodcaller
from typing import TypeVar

from crate_interp.config import ModelConfig
from crate_interp.data import ImageRecord, ResizedImage
from crate_interp.engine import Finished, StageClock, process_images
from crate_interp.hooks import Observer, Site
from crate_interp.runs.inference import (
    batch_size_of,
    load_observer,
    open_pictures,
    workers_of,
)
from crate_interp.runs.progress import progress_bar
from crate_interp.structures import Activations

__all__ = ["load_observer", "observe", "open_pictures", "process_pictures"]

Output = TypeVar("Output")
Result = TypeVar("Result")


def observe(
    observer: Observer,
    records: Sequence[ImageRecord],
    sites: Sequence[Site | str],
    blocks: Sequence[int],
    finish: Callable[[ImageRecord, ResizedImage, Activations, StageClock], Result],
    config: ModelConfig,
    done: Container[int] = (),
) -> Generator[Finished[Result], None, None]:
    """Put images through a model, and hand what is recorded of each to `finish`.

    Args:
        observer: With the model.
        records: The images.
        sites: As for `record`.
        blocks: As for `record`.
        finish: Gets the image at the model's size and a batch of one; runs in a thread.
        config: Batch size and workers.
        done: Ids of images that are not wanted.

    Yields:
        As `process_pictures`.

    Raises:
        InputError: As `record` and `process_images`.
    """

    def forward(images: list[ResizedImage], stage: StageClock) -> list[Activations]:
        with stage("forward"):
            return observer.each([image.rgb for image in images], sites, blocks)

    batch_size = batch_size_of(config.batch_size, observer)
    return process_pictures(
        observer, records, forward, finish, batch_size, workers_of(config.workers), done
    )


def process_pictures(
    observer: Observer,
    records: Sequence[ImageRecord],
    forward: Callable[[list[ResizedImage], StageClock], Iterable[Output]],
    finish: Callable[[ImageRecord, ResizedImage, Output, StageClock], Result],
    batch_size: int,
    workers: int,
    done: Container[int] = (),
) -> Generator[Finished[Result], None, None]:
    """Run `process_images` on images at the observer's size, with a progress bar.

    Args:
        observer: Its size.
        records: The images.
        forward: As for `process_images`.
        finish: As for `process_images`.
        batch_size: Images in a call of `forward`.
        workers: As for `process_images`.
        done: Ids of images that are not wanted.

    Yields:
        Every image that is not done; one that failed, or is smaller than a patch, is named on
        standard error as well.
    """

    def checked(
        record: ImageRecord, image: ResizedImage, output: Output, stage: StageClock
    ) -> Result:
        observer.geometry(image.original_hw).refuse_less_than_a_patch(str(record.path))
        return finish(record, image, output, stage)

    outcomes = process_images(
        records,
        methodcaller("read_resized", observer.input_size),
        forward,
        checked,
        batch_size=batch_size,
        workers=workers,
        done=done,
    )
    bar = progress_bar(total=sum(record.image_id not in done for record in records), unit="image")
    with closing(outcomes), bar as progress:
        for image in outcomes:
            if image.error is not None:
                progress.write(f"failed: {image.error}", file=sys.stderr)
            yield image
            progress.update()
