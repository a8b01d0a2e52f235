"""The command `attention`: what heads attend to, as figures and numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from crate_interp.analysis import attended_keys, attention_statistics
from crate_interp.commands.attention_files import AttentionFiles, ObservedImage
from crate_interp.config import AttentionConfig
from crate_interp.data import ImageRecord, ResizedImage, resize_image
from crate_interp.engine import StageClock
from crate_interp.errors import InputError
from crate_interp.hooks import (
    Observer,
    Site,
    attention_map,
    available_sites,
    blocks_of,
    count_units,
)
from crate_interp.runs.observation import load_observer, observe, open_pictures
from crate_interp.structures import Activations, ImageGeometry

__all__ = ["run"]

PICTURE_HEIGHT = 480  # of figures, pixels


def run(config: AttentionConfig) -> int:
    """Draw the figures and write their numbers.

    Returns:
        0, or 1 if an image failed.

    Raises:
        InputError: No image; a block or a head that the model does not have; a model without a
            class token, and no query; as `load_observer`.
        CheckpointError: The weights cannot be had or do not fit.
    """
    observer = load_observer(config)
    images = open_pictures(config)
    reading = _reading_of(observer, config)
    if reading.keys and min(len(images), reading.num_heads) < 2:
        raise InputError(
            "heads auto: expected two images and two heads or more to compare, found "
            f"{len(images)} and {reading.num_heads}; name heads, for instance --heads 0"
        )
    files = AttentionFiles(config, observer, images, reading.block)
    failed = 0
    sites = [Site.QUERY, Site.KEY]
    for image in observe(observer, images.records, sites, reading.blocks, reading, config):
        if image.result is None:
            failed += 1
        else:
            files.add(image.record, image.result)
    files.finish()
    return 1 if failed else 0


@dataclass(frozen=True)
class _Reading:
    """What is read of each image.

    Attributes:
        config: Of the command.
        observer: With the model.
        num_heads: Of the model.
        block: That is read, from 0.
        blocks: Whose queries and keys are recorded: this one, or all.
        layers: Whether the maps of all blocks are wanted.
        keys: Whether the agreement of heads is wanted.
        statistics: Whether distance, entropy and rollout are.
    """

    config: AttentionConfig
    observer: Observer
    num_heads: int
    block: int
    blocks: list[int]
    layers: bool
    keys: bool
    statistics: bool

    def __call__(
        self, record: ImageRecord, image: ResizedImage, activations: Activations, _: StageClock
    ) -> ObservedImage:
        geometry = self.observer.geometry(image.original_hw)
        patch = self._patch_of(record, geometry)
        layers = {number: attention_map(activations, number, patch)[0] for number in self.blocks}
        maps = layers[self.block]
        statistics = keys = None
        if self.statistics:
            spacing_hw = geometry.stride_hw or geometry.patch_hw
            statistics = attention_statistics(activations, spacing_hw, patch)
        if self.keys:
            of_patches = activations.patch_features(Site.KEY, self.block)[0].T
            keys = attended_keys(maps.flatten(1), of_patches).cpu()
        height, width = image.original_hw
        shown_hw = PICTURE_HEIGHT, max(1, round(PICTURE_HEIGHT * width / height))
        return ObservedImage(
            resize_image(record.read(), shown_hw),
            image.original_hw,
            maps.cpu().numpy(),
            torch.stack(list(layers.values())).cpu().numpy() if self.layers else None,
            statistics,
            keys,
        )

    def _patch_of(self, record: ImageRecord, geometry: ImageGeometry) -> tuple[int, int] | None:
        if self.config.query_yx is None:
            return None
        try:
            return geometry.patch_at(*self.config.query_yx)
        except InputError as error:
            raise InputError(f"{record.path}: query: {error}") from error


def _reading_of(observer: Observer, config: AttentionConfig) -> _Reading:
    """Find out what to read, and refuse what the model does not have."""
    sites = available_sites(observer.model, config.block)
    if Site.QUERY not in sites:
        raise InputError(
            f"{config.model}: no attention can be read at block {config.block}; it has "
            f"{', '.join(site.value for site in sites)}"
        )
    if Site.CLS_ATTENTION not in sites and config.query is None:
        raise InputError(
            f"{config.model}: expected a model with a class token, found none; give --query Y,X, a "
            "pixel of the image, for the attention of the patch there"
        )
    blocks = blocks_of(observer.model)
    block = config.block % len(blocks)
    num_heads = count_units(observer.model, Site.HEADS, block)
    named = [] if isinstance(config.head, str) else [config.head]
    for head in named + (config.head_numbers or []):
        if not 0 <= head < num_heads:
            raise InputError(
                f"head {head} is out of range: the model has heads 0 to {num_heads - 1}"
            )
    for number in config.rollout_numbers or []:
        if number >= len(blocks):
            raise InputError(
                f"rollout_blocks: block {number} is out of range: the model has blocks 0 to "
                f"{len(blocks) - 1}"
            )
    asked = set(config.figure)
    return _Reading(
        config,
        observer,
        num_heads,
        block,
        blocks=list(range(len(blocks))) if asked & {"layers", "rollout", "curves"} else [block],
        layers="layers" in asked,
        keys="semantics" in asked and config.head_numbers is None,
        statistics=bool(asked & {"rollout", "curves"}),
    )
