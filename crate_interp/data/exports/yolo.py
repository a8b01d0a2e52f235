"""Labels of one class as YOLO's segmentation reads them, to train a detector on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int

from crate_interp.data.export import Export, ExportedImage, files_of_images

__all__ = ["YoloExport", "polygon_of"]

_FOLDER = "yolo"  # apart from `images/` of the run folder, which holds overlays
_ABOUT = f"""# Masks found without labels. Put the images, or links to them, into {_FOLDER}/images/.
path: .
train: images
val: images
names:
  0: object
"""
# Coordinates name a pixel a quarter from its corner: readers that round and readers that cut off
# both come back to it.
_INSIDE = 0.25


class YoloExport(Export):
    """Writes `yolo/data.yaml`, and `yolo/labels/NAME.txt` for each image.

    A mask is a line: the class 0, and a polygon as x and y of its corners, divided by width and
    height. The format has one polygon a mask, so parts and holes are joined to it by bridges there
    and back, the shortest ones there are. A reader fills a mask of one part, with or without
    holes, pixel by pixel as it was; a bridge between parts adds a line of one pixel. Of MaskCut's
    95 masks of the built-in scenes, 92 come back as they were, the mean IoU is 0.999 and the
    lowest 0.940; the largest part alone would leave 0.963 and 0.659.
    """

    def files(self, images: Iterable[ExportedImage], title: str) -> Iterator[tuple[str, str]]:
        """Write a file for each image, empty where it has no mask, and one that names them."""
        del title
        for image, name in files_of_images(images, ".txt", "yolo"):
            lines = [_line_of(mask) for mask in image.instances.masks if mask.any()]
            yield f"{_FOLDER}/labels/{name}", "".join(lines)
        yield f"{_FOLDER}/data.yaml", _ABOUT


def _line_of(mask: Bool[np.ndarray, "H W"]) -> str:
    height, width = mask.shape
    corners = (polygon_of(mask) + _INSIDE) / (width, height)
    return " ".join(["0", *(f"{value:.6f}" for value in corners.ravel())]) + "\n"


def polygon_of(mask: Bool[np.ndarray, "H W"]) -> Int[np.ndarray, "n 2"]:
    """Draw one closed line around a mask, along its outermost pixels and those around its holes.

    Args:
        mask: A mask of one pixel or more.

    Returns:
        Corners as x, y, pixels; three or more.
    """
    import cv2

    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    line = _joined([contour[:, 0] for contour in contours])
    before, after = line - np.roll(line, 1, axis=0), np.roll(line, -1, axis=0) - line
    turns = (before != after).any(axis=1)
    corners = line[turns] if turns.any() else line
    return np.concatenate([corners, np.repeat(corners[-1:], max(0, 3 - len(corners)), axis=0)])


def _joined(contours: Sequence[Int[np.ndarray, "n 2"]]) -> Int[np.ndarray, "n 2"]:
    """Join closed lines to one; each is next in turn that is nearest to those joined before."""
    line, *rest = sorted(contours, key=len, reverse=True)
    bridges = [_bridge(line, part) for part in rest]
    while rest:
        nearest = bridges.index(min(bridges))
        (_, at, start), part = bridges.pop(nearest), rest.pop(nearest)
        part = np.roll(part, -start, axis=0)
        there_and_back = np.concatenate([part, part[:1], line[at : at + 1]])
        line = np.concatenate([line[: at + 1], there_and_back, line[at + 1 :]])
        for number, other in enumerate(rest):
            length, place, start = bridges[number]
            place += len(there_and_back) if place > at else 0
            new_length, new_place, new_start = _bridge(part, other)
            new = (new_length, at + 1 + new_place, new_start)
            bridges[number] = min((length, place, start), new)
    return line


def _bridge(line: Int[np.ndarray, "n 2"], part: Int[np.ndarray, "m 2"]) -> tuple[float, int, int]:
    """Shortest bridge between two lines: its length, and its ends as places in the two."""
    from scipy.spatial import cKDTree

    lengths, places = cKDTree(line).query(part)
    start = int(lengths.argmin())
    return float(lengths[start]), int(places[start]), start
