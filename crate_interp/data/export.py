"""Export formats: masks of many images as files that other tools read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crate_interp.plugins import Table

if TYPE_CHECKING:
    from crate_interp.structures import Instances

__all__ = ["EXPORTS", "Export", "ExportedImage"]


@dataclass(frozen=True)
class ExportedImage:
    """An image and its masks.

    Attributes:
        image_id: Number of the image in its set.
        file_name: Name of the image, with folders.
        hw: Height and width, pixels.
        instances: Masks, boxes and scores, in the pixels of the image.
    """

    image_id: int
    file_name: str
    hw: tuple[int, int]
    instances: Instances


class Export(ABC):
    """A format of masks: one file of `crate_interp/data/exports/`, or of an installed package."""

    @abstractmethod
    def files(
        self, images: Iterable[ExportedImage], title: str
    ) -> Iterator[tuple[str, str | bytes]]:
        """Write masks.

        Args:
            images: The images, in order; they come one at a time.
            title: Name of the masks.

        Yields:
            Path below the run folder, and content, of each file.
        """


EXPORTS: Table[Export] = Table("crate_interp.data.exports", "exports", Export, "export")
