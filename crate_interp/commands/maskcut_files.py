"""The files that the command `maskcut` makes of its journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from crate_interp.config import FigureConfig
from crate_interp.data import ImageSet, annotations_of, decode_mask, read_image, shrunk
from crate_interp.runs.figure_files import save_figure
from crate_interp.runs.picture_names import file_stems
from crate_interp.structures import Instances
from crate_interp.visualization import draw_instances, overlay_sheet

__all__ = ["annotation_file", "draw_overlays"]

SHEET_PICTURES = 16
SHEET_SIDE = 1024  # of an image on the sheet at most, pixels


def annotation_file(images: ImageSet, finished: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The masks as a COCO annotation file of one category, to train a detector on."""
    annotations: list[dict[str, Any]] = []
    for entry in finished:
        annotations += annotations_of(_instances_of(entry), entry["image_id"], len(annotations) + 1)
    return {
        "info": {"description": f"MaskCut masks of {images.name}, found without labels"},
        "images": [
            {
                "id": entry["image_id"],
                "file_name": entry["file_name"],
                "height": entry["hw"][0],
                "width": entry["hw"][1],
            }
            for entry in finished
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "object"}],
    }


def draw_overlays(
    images: ImageSet,
    finished: Sequence[Mapping[str, Any]],
    output: Path,
    title: str,
    options: FigureConfig,
) -> list[Path]:
    """Draw each image with its masks to `images/`, and the first ones together on a sheet.

    The images alone are PNG files of as many pixels as the originals have; the sheet is a figure.

    Returns:
        The files of the sheet.
    """
    if not finished:
        return []
    folder = output / "images"
    folder.mkdir(exist_ok=True)
    paths = {record.image_id: record.path for record in images.records}
    stems = file_stems([entry["file_name"] for entry in finished], {"sheet"})
    drawn: list[UInt8[np.ndarray, "_ _ 3"]] = []
    captions: list[str] = []
    for stem, entry in zip(stems, finished, strict=True):
        instances = _instances_of(entry)
        picture = draw_instances(read_image(paths[entry["image_id"]]), instances)
        Image.fromarray(picture).save(folder / f"{stem}.png")
        if len(drawn) == SHEET_PICTURES:
            continue
        drawn.append(shrunk(picture, SHEET_SIDE))
        captions.append(f"{entry['file_name']}: {len(instances)} mask{'s' * (len(instances) != 1)}")
    first = slice(SHEET_PICTURES)
    sheet = overlay_sheet(drawn[first], captions[first], title, width=options.width_inches)
    return save_figure(sheet, folder / "sheet.png", options)


def _instances_of(entry: Mapping[str, Any]) -> Instances:
    masks = np.zeros((len(entry["results"]), *entry["hw"]), dtype=bool)
    for mask, result in zip(masks, entry["results"], strict=True):
        mask[:] = decode_mask(result["segmentation"])
    return Instances(masks)
