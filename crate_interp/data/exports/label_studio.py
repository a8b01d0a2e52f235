"""Masks as predictions that Label Studio imports, to correct them by hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import IO, Any
from urllib.parse import quote

import numpy as np
from jaxtyping import Bool

from crate_interp.data.export import Content, Export, ExportedImage
from crate_interp.files import write_json_pieces

__all__ = ["LabelStudioExport", "packed_rle"]

_ABOUT = """<!-- Labelling setup for tasks.json. Images are those of a local storage: its folder is
     LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT, with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true. -->
<View>
  <Image name="image" value="$image"/>
  <BrushLabels name="label" toName="image">
    <Label value="object"/>
  </BrushLabels>
</View>
"""
_WORD = 8  # bits of a value: a channel of a pixel
_LENGTHS = (3, 4, 8, 16)  # bits that the length of a run may have


class LabelStudioExport(Export):
    """Writes `label-studio/tasks.json`, one task per image, and `label-studio/setup.xml`.

    A task has one prediction, with a region of brush strokes for each mask: the mask as Label
    Studio's own RLE, pixel by pixel, with holes and parts as they are, and its score.
    """

    def files(self, images: Iterable[ExportedImage], title: str) -> Iterator[tuple[str, Content]]:
        """Write one file of all images, and the labelling setup that it is for."""
        yield "label-studio/tasks.json", partial(_write, images, title)
        yield "label-studio/setup.xml", _ABOUT


def _write(images: Iterable[ExportedImage], title: str, file: IO[bytes]) -> None:
    write_json_pieces(file, (_task(image, title) for image in images))


def _task(image: ExportedImage, title: str) -> dict[str, Any]:
    height, width = image.hw
    regions = [
        {
            "id": f"{image.image_id}-{number}",
            "type": "brushlabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "score": float(score),
            "value": {"format": "rle", "rle": packed_rle(mask), "brushlabels": ["object"]},
        }
        for number, (mask, score) in enumerate(
            zip(image.instances.masks, image.instances.scores, strict=True), start=1
        )
    ]
    place = quote(image.file_name, errors="surrogateescape")
    return {
        "data": {"image": f"/data/local-files/?d={place}"},
        "predictions": [{"model_version": title, "result": regions}],
    }


def packed_rle(mask: Bool[np.ndarray, "H W"]) -> list[int]:
    """Pack a mask as Label Studio stores brush strokes: the runs of an RGBA image, bit by bit.

    A header has the number of values (32 bits), the bits of a value less one (5) and, four times,
    the bits of a length less one (4). A run is the bit 1, which of the four lengths it has (2),
    its length less one, and its value. All four channels of a pixel are 255 or 0.

    Returns:
        Bytes, as numbers from 0 to 255.
    """
    pixels = mask.ravel()
    ends = np.append(np.flatnonzero(pixels[1:] != pixels[:-1]) + 1, pixels.size)
    bits = [f"{4 * pixels.size:032b}{_WORD - 1:05b}", *(f"{size - 1:04b}" for size in _LENGTHS)]
    for length, on in zip(np.diff(ends, prepend=0).tolist(), pixels[ends - 1], strict=True):
        bits += _run(4 * length, "1" * _WORD if on else "0" * _WORD)
    packed = np.packbits(np.frombuffer("".join(bits).encode(), np.uint8) == ord("1"))
    values: list[int] = packed.tolist()
    return values


def _run(length: int, value: str) -> Iterator[str]:
    """Bits of a run of equal values; one longer than the longest length is several."""
    longest = 1 << _LENGTHS[-1]
    while length:
        count = min(length, longest)
        which = next(i for i, size in enumerate(_LENGTHS) if count <= 1 << size)
        yield f"1{which:02b}{count - 1:0{_LENGTHS[which]}b}{value}"
        length -= count
