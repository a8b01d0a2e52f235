"""Probes: how far segmentation has emerged, measured while a model is trained."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crate_interp.data import ImageSet, LabelledSet, labelled_kinds, open_coco, open_labelled
from crate_interp.data.built_in import built_in_name
from crate_interp.hooks import Site, available_sites
from crate_interp.models.backbones import Backbone
from crate_interp.segmentation import MaskCut
from crate_interp.training.emergence import measure_blocks
from crate_interp.training.probe_columns import ProbeColumn, column_of
from crate_interp.training.recipe import Recipe

__all__ = ["Probe"]

_logger = logging.getLogger(__name__)


class Probe:
    """Measures a model on a few images with masks, at the sizes and blocks of a recipe.

    MaskCut (tau 0.15, 3 masks), TokenCut and attention read the same blocks; all is computed in
    float32 (`measure_emergence`).

    Args:
        recipe: Recipe, which names images, sizes and blocks.
        backbone: Model to measure, with any weights.

    Attributes:
        has_attention: Whether the model has a class token, whose attention can be measured.

    Raises:
        InputError: There are no such images, or a size or block does not fit the model.
    """

    def __init__(self, recipe: Recipe, backbone: Backbone) -> None:
        self._recipe = recipe
        self._images = _open_images(recipe)
        for size in recipe.probe_sizes:
            for block in recipe.probe_blocks:
                MaskCut(backbone, size=size, block=block)  # refuses what is wrong at once
        self.has_attention = Site.CLS_ATTENTION in available_sites(backbone)

    def measure(self, backbone: Backbone) -> dict[str, float]:
        """Measure a model, which is in evaluation mode afterwards.

        Returns:
            Numbers by the names of their columns.

        Raises:
            InputError: The images cannot be read, or have no masks.
        """
        recipe, numbers = self._recipe, dict[str, float]()
        backbone.eval()
        for side in recipe.probe_sizes:
            size = None if isinstance(recipe.probe_size, int | None) else side
            with _without_warnings():
                predictor = MaskCut(backbone, size=side)
                measured = measure_blocks(predictor, self._images, recipe.probe_blocks)
            for block, emergence in zip(recipe.probe_blocks, measured, strict=True):
                cut_block = None if isinstance(recipe.probe_block, int | None) else block
                for name, value in emergence.cut_numbers().items():
                    numbers[ProbeColumn(name, size, cut_block).name] = value
            for name, value in measured[0].layer_numbers().items():
                numbers[column_of(name)._replace(size=size).name] = value
        return numbers


def _open_images(recipe: Recipe) -> ImageSet | LabelledSet:
    place = Path(recipe.probe_set)
    images: ImageSet | LabelledSet
    kinds = labelled_kinds().values()
    if built_in_name(place) is None and any(kind.recognises(place) for kind in kinds):
        images = open_labelled(place, "val")
    else:
        images = open_coco(place.name, None if place.name == recipe.probe_set else place.parent)
    if isinstance(recipe.probe_pictures, int):
        return images.limit(recipe.probe_pictures)
    return images.between(*recipe.probe_pictures)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep cuts from telling of each image with nothing to cut in it."""
    cutting = logging.getLogger("crate_interp.segmentation")
    before = cutting.level
    cutting.setLevel(logging.ERROR)
    try:
        yield
    finally:
        cutting.setLevel(before)
