"""Sections of a page about one score of each image: its distribution, the best and the worst."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from crate_interp import data, structures, visualization
from crate_interp.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Bool, UInt8

    from crate_interp.runs.journal import Entry
    from crate_interp.runs.run import Run
    from crate_interp.visualization import Histogram, PictureStrip, Section

    # Gives the masks of an entry by the words below them; takes the height and width of the image,
    # pixels.
    MasksOf = Callable[[Entry, tuple[int, int]], Mapping[str, Bool[np.ndarray, "M H W"]]]

__all__ = ["score_histogram", "score_pictures", "strip_of"]

SHOWN = 4  # images at each end
SIDE = 320  # longest side of a picture, pixels


def score_histogram(name: str, scores: Mapping[int, float]) -> Histogram:
    """Show how a score is spread over the images.

    Args:
        name: Name of the score.
        scores: Score of each image that has one, by id, in [0, 1].
    """
    values = np.array(list(scores.values()), float)
    median = f": median {np.median(values):.2f}" if len(values) else ""
    title = f"{name} of an image{median}"
    return visualization.Histogram(title, values, (0.0, 1.0), 20, name, "images")


def score_pictures(
    run: Run, name: str, scores: Mapping[int, float], masks_of: MasksOf
) -> list[Section]:
    """Show the images of the highest and of the lowest score.

    Args:
        run: The run.
        name: Name of the score.
        scores: Score of each image that has one, by id.
        masks_of: Masks to show; they may be of another size than the image, not of another shape.
    """
    order = sorted(scores, key=lambda image_id: (-scores[image_id], image_id))
    ends = {
        "Best": order[: min(SHOWN, (len(order) + 1) // 2)],
        "Worst": order[::-1][: min(SHOWN, len(order) // 2)],
    }
    chosen = {number for numbers in ends.values() for number in numbers}
    entries = {entry["image_id"]: entry for entry in run.entries if entry["image_id"] in chosen}
    return [
        visualization.Section(
            f"{end} images by {name}",
            [
                strip_of(run, entries[number], f"{name} {scores[number]:.2f}", masks_of)
                for number in numbers
            ],
            end.lower(),
        )
        for end, numbers in ends.items()
    ]


def strip_of(run: Run, entry: Entry, caption: str, masks_of: MasksOf) -> PictureStrip:
    """Show an image alone, and with its masks; one that can no longer be read, with the reason.

    Args:
        run: The run.
        entry: Entry of the image.
        caption: Words beside its name.
        masks_of: As `score_pictures`.
    """
    record = next(item for item in run.images.records if item.image_id == entry["image_id"])
    try:
        rgb = record.read()
        masks = masks_of(entry, (rgb.shape[0], rgb.shape[1]))
    except InputError as error:
        return visualization.PictureStrip(entry["file_name"], [], f"{caption}; {error}")
    small = data.shrunk(rgb, SIDE)
    pictures = [("image", small)]
    pictures += [(words, _drawn(small, of_kind)) for words, of_kind in masks.items()]
    return visualization.PictureStrip(entry["file_name"], pictures, caption)


def _drawn(
    rgb: UInt8[np.ndarray, "h w 3"], masks: Bool[np.ndarray, "M H W"]
) -> UInt8[np.ndarray, "h w 3"]:
    height, width = rgb.shape[:2]
    original = (masks.shape[1], masks.shape[2])
    shrinking = structures.ImageGeometry((height, width), original, (1, 1))
    small = shrinking.input_to_original(masks)
    return visualization.draw_instances(rgb, structures.Instances(small))
