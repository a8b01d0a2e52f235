"""COCO annotations of one category, to train a detector on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from crate_interp.data.export import Export, ExportedImage

__all__ = ["CocoExport"]


class CocoExport(Export):
    """Writes `annotations.json`: one category, RLE masks, numbered from 1."""

    def files(self, images: Iterable[ExportedImage], title: str) -> Iterator[tuple[str, str]]:
        """Write one file of all images."""
        from crate_interp.data.rle import annotations_of

        listed: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for image in images:
            height, width = image.hw
            named = {"id": image.image_id, "file_name": image.file_name}
            listed.append({**named, "height": height, "width": width})
            annotations += annotations_of(image.instances, image.image_id, len(annotations) + 1)
        content = {
            "info": {"description": f"{title}, found without labels"},
            "images": listed,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "object"}],
        }
        yield "annotations.json", json.dumps(content, indent=1) + "\n"
