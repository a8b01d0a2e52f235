"""COCO annotations of one category, to train a detector on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import IO, Any

from crate_interp.data.export import Content, Export, ExportedImage
from crate_interp.files import write_json_pieces

__all__ = ["CocoExport"]


class CocoExport(Export):
    """Writes `annotations.json`: one category, RLE masks, numbered from 1."""

    def files(self, images: Iterable[ExportedImage], title: str) -> Iterator[tuple[str, Content]]:
        """Write one file of all images, which are gone through twice."""
        yield "annotations.json", partial(_write, images, title)


def _write(images: Iterable[ExportedImage], title: str, file: IO[bytes]) -> None:
    content = {
        "info": {"description": f"{title}, found without labels"},
        "images": (_described(image) for image in images),
        "annotations": _annotations(images),
        "categories": [{"id": 1, "name": "object"}],
    }
    write_json_pieces(file, content)


def _described(image: ExportedImage) -> dict[str, Any]:
    height, width = image.hw
    named = {"id": image.image_id, "file_name": image.file_name}
    return {**named, "height": height, "width": width}


def _annotations(images: Iterable[ExportedImage]) -> Iterator[dict[str, Any]]:
    from crate_interp.data.rle import area_of

    number = 0
    for image in images:
        for result in image.results:
            number += 1  # from 1: pycocotools takes the id 0 for "no match"
            area = area_of(result["segmentation"])
            yield {"id": number, **result, "area": area, "iscrowd": 0}
