"""Masks, images and files that the tests of export formats share."""

import numpy as np

from crate_interp.data.export import EXPORTS, ExportedImage
from crate_interp.data.rle import results_of
from crate_interp.structures import Instances


def exported(image_id, file_name, masks, scores=None):
    instances = Instances(np.asarray(masks), scores)
    results = results_of(instances, image_id)
    return ExportedImage(image_id, file_name, instances.masks.shape[1:], results)


def write(folder, name, images, title="masks"):
    """Write the files of a format, as a run does."""
    for file, content in EXPORTS[name]().files(images, title):
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            with path.open("wb") as opened:
                content(opened)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content)
    return folder


def mask_of(hw, *boxes, holes=()):
    mask = np.zeros(hw, bool)
    for value, (top, left, bottom, right) in [
        *((True, box) for box in boxes),
        *((False, box) for box in holes),
    ]:
        mask[top:bottom, left:right] = value
    return mask


WHOLE = {
    "a rectangle": mask_of((40, 60), (5, 6, 30, 50)),
    "the whole image": mask_of((40, 60), (0, 0, 40, 60)),
    "a hole": mask_of((40, 60), (5, 6, 30, 50), holes=[(10, 20, 20, 30)]),
    "two holes, one at an edge": mask_of(
        (40, 60), (0, 0, 40, 60), holes=[(1, 1, 9, 9), (20, 20, 39, 59)]
    ),
    "parts that touch at a corner": mask_of((40, 60), (5, 5, 20, 20), (20, 20, 35, 40)),
    "one pixel": mask_of((40, 60), (7, 9, 8, 10)),
    "two pixels": mask_of((40, 60), (7, 9, 9, 10)),
    "a line": mask_of((40, 60), (39, 0, 40, 60)),
}


TORN = {
    "two parts, one with a hole": mask_of(
        (40, 60), (2, 2, 20, 20), (25, 30, 39, 59), holes=[(5, 5, 9, 9)]
    ),
    "a part in the hole of another": mask_of((40, 60), (5, 5, 35, 55), holes=[(8, 8, 30, 50)])
    | mask_of((40, 60), (15, 20, 22, 30)),
    "nothing": np.zeros((40, 60), bool),
    "noise": np.random.default_rng(0).random((40, 60)) < 0.3,
}


def images_of(masks_by_name):
    return [
        exported(number, f"{number}.png", masks)
        for number, masks in enumerate(masks_by_name, start=1)
    ]


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()
