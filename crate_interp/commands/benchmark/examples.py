"""The first images with their masks, as a figure: kept by `measure`, drawn by `conclude`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from crate_interp import data, structures, visualization
from crate_interp.options import Range
from crate_interp.runs.journal import JournalEntry
from crate_interp.runs.outputs import Drawing

if TYPE_CHECKING:
    from jaxtyping import Bool, UInt8

    from crate_interp.runs.journal import Entry
    from crate_interp.runs.run import Run, SeenImage

__all__ = [
    "MOST_EXAMPLES",
    "ExampleEntry",
    "Examples",
    "draw_examples",
    "example_of",
    "masks_of_example",
]

MOST_EXAMPLES = 100
EXAMPLE_SIDE = 1024  # longest side of an image in the figure, pixels

Examples = Annotated[int, Range(0, MOST_EXAMPLES)]  # rows of a figure


class ExampleEntry(JournalEntry, total=False):
    """Entries of the first images in the journal, beside arrays.

    Attributes:
        hw: Height and width of the image, pixels.
        captions: Words below the columns.
    """

    hw: tuple[int, int]
    captions: list[str]


def example_of(
    image: SeenImage,
    truth: Bool[np.ndarray, "G H W"],
    masks: Bool[np.ndarray, "M h w"],
    captions: Sequence[str],
) -> dict[str, Any]:
    """Keep what the figure shows of an image, the picture at the size that is shown.

    Args:
        image: One of the first images, which has its picture.
        truth: Masks of the classes or objects, which do not overlap, in the image's own pixels.
        masks: Masks on the patch grid: those of the first column, one for each class or object,
            then one for each other column.
        captions: Words below the columns, that of the truth first.
    """
    numbers = np.zeros(image.geometry.original_hw, np.uint8)
    for number, mask in enumerate(truth, start=1):
        numbers[mask] = number
    picture = data.shrunk(np.asarray(image.picture), EXAMPLE_SIDE)
    height, width = picture.shape[:2]
    shrinking = structures.ImageGeometry((height, width), image.geometry.original_hw, (1, 1))
    return {
        "hw": image.geometry.original_hw,
        "captions": list(captions),
        "picture": picture,
        "truth": shrinking.input_to_original(numbers[None])[0],
        "masks": masks,
    }


def draw_examples(run: Run, count: int, titles: Sequence[str]) -> list[Drawing]:
    """Draw the figure `masks` of the first images, if one of them has not failed.

    Args:
        run: The run.
        count: Number of images, those that failed among them.
        titles: Words above the columns, that of the truth first.
    """
    first = {record.image_id for record in run.images.records[:count]}
    examples = [entry for entry in run.pictured if entry["image_id"] in first]
    if not examples:
        return []
    rows = [_drawn(run, entry, titles) for entry in examples]
    captions = [entry["captions"] for entry in examples]
    note, width = "{model} at {size} px".format_map(run.settings), run.command.width_inches
    figure = visualization.comparison_figure(rows, titles, captions, note, width)
    return [Drawing("masks", figure)]


def masks_of_example(
    run: Run, entry: Entry, titles: Sequence[str]
) -> dict[str, Bool[np.ndarray, "M H W"]]:
    """Give the masks that `example_of` kept, at the size of the picture that is shown.

    Args:
        run: The run.
        entry: Entry of one of the first images.
        titles: Words for each column, that of the truth first.
    """
    numbers, masks = entry["truth"], entry["masks"]
    geometry = replace(run.observer.geometry(entry["hw"]), original_hw=numbers.shape)
    masks = geometry.grid_to_original(masks)
    count = len(masks) - (len(titles) - 2)  # classes or objects
    truth = numbers == np.arange(1, count + 1)[:, None, None]
    others = [masks[number : number + 1] for number in range(count, len(masks))]
    return dict(zip(titles, (truth, masks[:count], *others), strict=True))


def _drawn(run: Run, entry: Entry, titles: Sequence[str]) -> list[UInt8[np.ndarray, "H W 3"]]:
    """Draw the image with the truth and with the masks; a class or object has one colour."""
    rgb, shown = entry["picture"], list(masks_of_example(run, entry, titles).values())
    colours = visualization.contrasting_colours(rgb, shown[0]) if len(shown[0]) else None
    return [
        visualization.draw_instances(
            rgb,
            structures.Instances(each),
            colours=None if colours is None else colours[: len(each)],
        )
        for each in shown
    ]
