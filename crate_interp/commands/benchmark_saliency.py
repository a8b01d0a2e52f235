"""The command `benchmark saliency`: masks of the salient object, by three methods."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crate_interp.commands.benchmark_files import Example, draw_examples, format_table, percent
from crate_interp.commands.published import published_saliency
from crate_interp.config import SaliencyBenchmarkConfig
from crate_interp.data import ImageRecord, LabelledSet, ResizedImage, open_saliency
from crate_interp.engine import StageClock
from crate_interp.errors import InputError
from crate_interp.evaluation import ImageSaliency, image_saliency, saliency_score
from crate_interp.hooks import Observer, Site, available_sites
from crate_interp.runs.inference import release_of
from crate_interp.runs.journal import JournalEntry
from crate_interp.runs.number_files import versions, weights_of, write_table
from crate_interp.runs.observation import feature_of, load_observer, observe
from crate_interp.runs.resumable import (
    default_output,
    finish_run,
    observe_into,
    settings_of,
)
from crate_interp.runs.run_folder import open_run_folder
from crate_interp.segmentation import attention_masks, principal_component, tokencut
from crate_interp.structures import Activations, Instances
from crate_interp.visualization import contrasting_colours, draw_instances

__all__ = ["run"]

_logger = logging.getLogger(__name__)

_PRESENTATION = {"images", "masks", "output", "pictures", "recursive", "weights", "workers"}


class _Entry(JournalEntry):
    methods: dict[str, ImageSaliency]


def run(config: SaliencyBenchmarkConfig) -> int:
    """Score the images, or go on with a stopped run, and print the table.

    Returns:
        0, or 1 if an image or its mask could not be read.

    Raises:
        InputError: A mask is missing, there is no image, or none can be read.
    """
    data = open_saliency(config.images, config.masks, config.recursive).limit(config.limit)
    observer = load_observer(config)
    feature = feature_of(config, observer)
    sites = [feature]
    if Site.CLS_ATTENTION in available_sites(observer.model, config.block):
        sites.append(Site.CLS_ATTENTION)
    else:
        _logger.warning("%s has no class token: no mask of its attention", config.model)
    benchmark = _Benchmark(config, data, observer, feature)
    weights = weights_of(config)
    settings = settings_of(config, observer, data.images, weights, _PRESENTATION)
    settings["feature"] = feature.value
    output = config.output or default_output("benchmark-saliency", config, data.images)
    records, wanted = data.images.records, (sites, [config.block])
    with open_run_folder(output, settings, _Entry) as folder:
        entries, failed = observe_into(
            folder, observer, records, wanted, benchmark.entry_of, config
        )
        results = _scores_of(entries)
        if config.pictures:
            shown = records[: config.pictures]
            outcomes = observe(observer, shown, *wanted, benchmark.example_of, config)
            examples = [image.result for image in outcomes if image.result is not None]
            note = "{model} at {size} px".format_map(settings)
            draw_examples(output / "masks.png", examples, ["truth", *results], note, config)
        about = {"weights": weights, "settings": settings, "versions": versions()}
        header = ("image", "method", "max_f", "iou", "accuracy")
        write_table(output / "masks.csv", header, _rows_of(entries), about)
        print(f"{settings['model']} at {settings['size']} px on {len(entries)} images, %")
        rows = [
            [method, *(percent(score[key]) for key in ("max_f", "iou", "accuracy"))]
            for method, score in results.items()
        ]
        published = published_saliency(
            release_of(config, weights["sha256"]), str(config.images.resolve()), len(entries)
        )
        if published is not None:
            rows.append(["TokenCut, published", *map(str, published)])
        print(format_table(["", "max F", "IoU", "accuracy"], rows))
        return finish_run(folder, {"scores": results}, failed, weights, settings)


Grid = tuple[Float[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]


@dataclass(frozen=True)
class _Benchmark:
    """What is done with one image."""

    config: SaliencyBenchmarkConfig
    data: LabelledSet
    observer: Observer
    feature: Site

    def maps_of(self, record: ImageRecord, activations: Activations) -> dict[str, Grid]:
        """Saliency in [0, 1], and mask, of each method on the patch grid."""
        config, grid_hw = self.config, activations.grid_hw
        features = activations.patch_features(self.feature, config.block)[0].float()
        cut = tokencut(features, grid_hw, config.tau, name=str(record.path)).mask
        maps = {"TokenCut": (cut.double(), cut)}
        if (Site.CLS_ATTENTION, config.block) in activations:
            rows = activations[Site.CLS_ATTENTION, config.block][0].float()
            mean = rows[:, activations.num_prefix_tokens :].mean(dim=0)
            mask = attention_masks(mean, "mass", config.keep)
            maps["attention"] = (_stretched(mean).view(grid_hw), mask.view(grid_hw))
        principal = principal_component(features, grid_hw)
        maps["principal component"] = (_stretched(principal.scores), principal.mask)
        return {
            name: (soft.cpu().numpy(), mask.cpu().numpy()) for name, (soft, mask) in maps.items()
        }

    def on_original(self, grid: np.ndarray, image: ResizedImage) -> np.ndarray:
        geometry = self.observer.geometry(image.original_hw)
        return np.asarray(geometry.grid_to_original(grid[None])[0])

    def entry_of(
        self, record: ImageRecord, image: ResizedImage, activations: Activations, stage: StageClock
    ) -> dict[str, Any]:
        with stage("score"):
            truth = self.data.labels_of(record, image.original_hw) == 1
            found = {}
            for name, grids in self.maps_of(record, activations).items():
                soft, mask = (self.on_original(grid, image) for grid in grids)
                found[name] = image_saliency(soft, mask, truth)
        return {"methods": found}

    def example_of(
        self, record: ImageRecord, image: ResizedImage, activations: Activations, _: StageClock
    ) -> Example:
        truth = self.data.labels_of(record, image.original_hw) == 1
        rgb = record.read()
        colours = contrasting_colours(rgb, truth[None])  # one object, one colour in all its masks
        draw = partial(draw_instances, rgb, colours=colours)
        masks, captions = [truth], [record.file_name]
        for grids in self.maps_of(record, activations).values():
            soft, mask = (self.on_original(grid, image) for grid in grids)
            masks.append(mask)
            captions.append(f"IoU {percent(image_saliency(soft, mask, truth)['iou'])}")
        return Example.drawn((draw(Instances(mask[None])) for mask in masks), captions)


def _stretched(scores: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Bring numbers to [0, 1]; equal ones become 0."""
    lowest, highest = scores.min(), scores.max()
    return (scores - lowest) / torch.where(highest > lowest, highest - lowest, 1.0)


def _rows_of(
    entries: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[str, str, float, float, float]]:
    """Of each image, a line for each method."""
    for entry in entries:
        for name, found in entry["methods"].items():
            yield entry["file_name"], name, max(found["f"]), found["iou"], found["accuracy"]


def _scores_of(entries: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    if not entries:
        raise InputError("expected images and masks that can be read, found none")
    return {
        name: asdict(saliency_score([entry["methods"][name] for entry in entries]))
        for name in entries[0]["methods"]
    }
