"""Masks as black and white pictures, which every tool opens."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from functools import partial
from typing import IO

import numpy as np
from jaxtyping import Bool
from PIL import Image

from crate_interp.data.export import Content, Export, ExportedImage, files_of_images

__all__ = ["PngExport"]


class PngExport(Export):
    """Writes `masks/NAME/1.png`, `2.png`, ... for the masks of an image, and `masks/masks.csv`.

    A picture has the size of the image: 255 inside the mask, 0 outside. Masks may overlap, so each
    has a picture of its own. The table names the image and the score of every picture.
    """

    def files(self, images: Iterable[ExportedImage], title: str) -> Iterator[tuple[str, Content]]:
        """Write a file for each mask, and one that lists them; images are gone through twice."""
        del title
        for image, name in files_of_images(images, "", "png"):
            for number, mask in enumerate(image.instances.masks, start=1):
                yield f"masks/{name}/{number}.png", _picture(mask)
        yield "masks/masks.csv", partial(_write_table, images)


def _picture(mask: Bool[np.ndarray, "H W"]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0))).save(content, "PNG")
    return content.getvalue()


def _write_table(images: Iterable[ExportedImage], file: IO[bytes]) -> None:
    text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("mask", "image", "score"))
    for image, name in files_of_images(images, "", "png"):
        for number, result in enumerate(image.results, start=1):
            rows.writerow((f"{name}/{number}.png", image.file_name, result["score"]))
    text.detach()  # flushed; the file stays open
