"""What one pass over images makes of each of them, wherever that is done."""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from jaxtyping import UInt8

from crate_interp.data import ImageRecord, ResizedImage
from crate_interp.engine import Finished, StageClock, process_images
from crate_interp.errors import InputError
from crate_interp.structures import ImageGeometry, InputSize

if TYPE_CHECKING:
    from crate_interp.runs.run import Run

__all__ = ["Forward", "Measure", "Outcomes", "Pass", "SeenImage"]

Outcomes: TypeAlias = Generator[Finished[Mapping[str, Any]], None, None]

# Measures one image: the image, and what the forward pass gave.
Measure = Callable[["Run", "SeenImage", Any], Mapping[str, Any]]
Forward = Callable[["Run", Sequence[ResizedImage], StageClock], Any]


@dataclass(frozen=True)
class SeenImage:
    """An image that is measured.

    Attributes:
        record: Name, path and id of the image.
        rgb: The image at the model's size.
        geometry: Geometry of its patches, the model's pixels and its own pixels.
        stage: Counts seconds: `with image.stage("cut"): ...`.
        picture: Own pixels of the image, for the first images that `Reading.pictures` counts.
    """

    record: ImageRecord
    rgb: UInt8[np.ndarray, "H W 3"]
    geometry: ImageGeometry
    stage: StageClock
    picture: UInt8[np.ndarray, "H2 W2 3"] | None


@dataclass(frozen=True)
class Pass:
    """What one pass over images makes of each; the same wherever that is done.

    Attributes:
        measure: See `ImageCommand.measure`.
        forward: See `ImageCommand.forward`.
        reading: Result of `ImageCommand.reading`.
        pictured: Ids of the images whose own pixels `measure` gets as well.
        refused: Images that are not tried, by id, and why.
    """

    measure: Measure
    forward: Forward
    reading: Any
    pictured: frozenset[int]
    refused: Mapping[int, str] = field(default_factory=dict)

    def process(
        self,
        run: Run,
        records: Sequence[ImageRecord],
        done: Container[int],
        workers: int,
        read_in_threads: bool = False,
    ) -> Outcomes:
        """Measure images in this process, as `process_images` does."""
        observer = run.observer

        def finish(
            record: ImageRecord, image: ResizedImage, output: Any, stage: StageClock
        ) -> Mapping[str, Any]:
            geometry = observer.geometry(image.original_hw)
            geometry.refuse_less_than_a_patch(str(record.path))
            seen = SeenImage(record, image.rgb, geometry, stage, image.picture)
            return self.measure(run, seen, output)

        return process_images(
            records,
            partial(_read, size=observer.input_size, pictured=self.pictured, refused=self.refused),
            partial(self.forward, run),
            finish,
            batch_size=run.batch_size,
            workers=workers,
            done=done,
            read_in_threads=read_in_threads,
        )


def _read(
    record: ImageRecord,
    size: InputSize,
    pictured: frozenset[int],
    refused: Mapping[int, str],
) -> ResizedImage:
    if record.image_id in refused:
        raise InputError(f"{record.path}: {refused[record.image_id]}")
    return record.read_resized(size, keep_picture=record.image_id in pictured)
