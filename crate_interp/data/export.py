"""Export formats: masks of many images as files that other tools read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from crate_interp.errors import InputError, shorten
from crate_interp.plugins import Table

if TYPE_CHECKING:
    from crate_interp.structures import Instances

__all__ = ["EXPORTS", "Content", "Export", "ExportedImage", "files_of_images"]

Content: TypeAlias = str | bytes | Callable[[IO[bytes]], None]
"""What a file holds; a function writes it to an open file, piece by piece."""


@dataclass(frozen=True)
class ExportedImage:
    """An image and its masks.

    Attributes:
        image_id: Number of the image in its set.
        file_name: Name of the image, with folders.
        hw: Height and width, pixels.
        results: Masks as entries of a COCO results file, as `results_of` writes them.
    """

    image_id: int
    file_name: str
    hw: tuple[int, int]
    results: Sequence[Mapping[str, Any]]

    @cached_property
    def instances(self) -> Instances:
        """Masks, boxes and scores, in the pixels of the image; decoded when asked for."""
        from crate_interp.data.rle import instances_of

        return instances_of(self.results, self.hw)


class Export(ABC):
    """A format of masks: one file of `crate_interp/data/exports/`, or of an installed package."""

    @abstractmethod
    def files(self, images: Iterable[ExportedImage], title: str) -> Iterator[tuple[str, Content]]:
        """Write masks.

        Args:
            images: The images, in order; they come one at a time, and may be gone through again.
            title: Name of the masks.

        Yields:
            Path below the run folder, and content, of each file. The content of a file that grows
            with the number of images is a function, so that memory does not.
        """


EXPORTS: Table[Export] = Table("crate_interp.data.exports", "exports", Export, "export")


def files_of_images(
    images: Iterable[ExportedImage], suffix: str, export: str
) -> Iterator[tuple[ExportedImage, str]]:
    """Name a file after each image, for formats that have one file per image.

    Args:
        images: The images, in order.
        suffix: Suffix of the files, in place of that of the image; may be empty.
        export: Name of the format, for messages.

    Yields:
        Each image and the path of its file, with the folders of its name.

    Raises:
        InputError: Two images would have the same file.
    """
    taken: dict[str, str] = {}
    for image in images:
        name = PurePosixPath(image.file_name).with_suffix(suffix).as_posix()
        if name in taken:
            raise InputError(
                f"{export}: expected images whose names differ by more than their suffix, found "
                f"{shorten(taken[name])} and {shorten(image.file_name)}"
            )
        taken[name] = image.file_name
        yield image, name
