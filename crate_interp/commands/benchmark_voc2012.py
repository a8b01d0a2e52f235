"""The command `benchmark voc2012`: attention masks against labelled images, by mIoU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from crate_interp.commands.benchmark_files import (
    Example,
    draw_examples,
    format_table,
    percent,
    write_class_scores,
)
from crate_interp.commands.published import published_attention_miou
from crate_interp.config import VocBenchmarkConfig
from crate_interp.data import (
    VOC_CLASSES,
    ImageRecord,
    LabelledSet,
    ResizedImage,
    open_labelled,
    truth_masks,
)
from crate_interp.engine import StageClock
from crate_interp.errors import InputError
from crate_interp.evaluation import (
    AttentionProtocol,
    AttentionSegmentationScore,
    ImageOverlaps,
    attention_segmentation_score,
    candidate_masks,
    image_overlaps,
)
from crate_interp.evaluation.attention_segmentation import METHODS
from crate_interp.hooks import Observer, Site, record
from crate_interp.runs.inference import release_of
from crate_interp.runs.journal import JournalEntry
from crate_interp.runs.number_files import versions, weights_of
from crate_interp.runs.observation import feature_of, load_observer, observe
from crate_interp.runs.resumable import (
    default_output,
    finish_run,
    observe_into,
    settings_of,
)
from crate_interp.runs.run_folder import open_run_folder
from crate_interp.structures import Activations, Instances
from crate_interp.visualization import contrasting_colours, draw_instances

__all__ = ["run"]

LabelMap = UInt8[np.ndarray, "H W"]

_PRESENTATION = {"data", "output", "pictures", "weights", "workers"}


class _Entry(JournalEntry, ImageOverlaps):
    pass


def run(config: VocBenchmarkConfig) -> int:
    """Score the images, or go on with a stopped run, and print the tables.

    Returns:
        0, or 1 if an image or its labels could not be read.

    Raises:
        InputError: The data lack something, no image has a class or object, or the model has no
            class token.
    """
    data = _open_data(config)
    observer = load_observer(config)
    feature = feature_of(config, observer)
    wanted = ([Site.CLS_ATTENTION, feature], [config.block])
    record(observer.model, *wanted)  # what the model lacks, one wants to know now
    benchmark = _Benchmark(config, data, observer, feature)
    weights = weights_of(config)
    settings = settings_of(config, observer, data.images, weights, _PRESENTATION)
    settings["feature"] = feature.value
    output = config.output or default_output("benchmark-voc2012", config, data.images)
    records = data.images.records
    with open_run_folder(output, settings, _Entry) as folder:
        entries, failed = observe_into(
            folder, observer, records, wanted, benchmark.entry_of, config
        )
        score = attention_segmentation_score(entries, len(data.classes))
        by_class = write_class_scores(
            output / "classes.png",
            data.classes,
            score.images_of_class,
            score.by_class,
            f"IoU by {config.protocol} (%, mean over the images of a class)",
            {"weights": weights, "settings": settings, "versions": versions()},
            config,
        )
        if config.pictures:
            shown = records[: config.pictures]
            outcomes = observe(observer, shown, *wanted, benchmark.example_of, config)
            examples = [image.result for image in outcomes if image.result is not None]
            note = "{model} at {size} px".format_map(settings)
            draw_examples(output / "masks.png", examples, _Benchmark.TITLES, note, config)
        release = release_of(config, weights["sha256"]) if data.classes == VOC_CLASSES else None
        results = _results_of(config, score, release, len(entries))
        print(f"{by_class}\n\n{_report(config, settings, score, results)}")
        return finish_run(folder, results, failed, weights, settings)


@dataclass(frozen=True)
class _Benchmark:
    """What is done with one image."""

    config: VocBenchmarkConfig
    data: LabelledSet
    observer: Observer
    feature: Site

    TITLES = ("truth", "best head", "mean head", "principal component")

    @property
    def protocol(self) -> AttentionProtocol:
        config = self.config
        background = None if config.background else self.data.background
        return AttentionProtocol(config.protocol, config.keep, background, config.resolution)

    def entry_of(
        self, record: ImageRecord, image: ResizedImage, activations: Activations, stage: StageClock
    ) -> ImageOverlaps:
        with stage("score"):
            geometry = self.observer.geometry(image.original_hw)
            truth = self.truth_of(record, image.original_hw)
            return image_overlaps(self.masks_of(activations), geometry, *truth, self.protocol)

    def masks_of(self, activations: Activations) -> Bool[np.ndarray, "K+2 h w"]:
        """Masks of the heads, of their mean, and of the principal component."""
        attention = activations[Site.CLS_ATTENTION, self.config.block][0].float()
        patches = attention[:, activations.num_prefix_tokens :]
        features = activations.patch_features(self.feature, self.config.block)[0].float()
        return candidate_masks(patches.unflatten(1, activations.grid_hw), features, self.protocol)

    def truth_of(
        self, record: ImageRecord, original_hw: tuple[int, int]
    ) -> tuple[LabelMap, LabelMap | None]:
        """Labels, and objects if these are what has a best head."""
        labels = self.data.labels_of(record, original_hw)
        if self.config.per == "class":
            return labels, None
        return labels, self.data.objects_of(record, original_hw)

    def example_of(
        self, record: ImageRecord, image: ResizedImage, activations: Activations, _: StageClock
    ) -> Example:
        """The image with the truth and the masks, a colour a class or object."""
        geometry = self.observer.geometry(image.original_hw)
        labels, objects = self.truth_of(record, image.original_hw)
        masks, protocol = self.masks_of(activations), replace(self.protocol, resolution="full")
        found = image_overlaps(masks, geometry, labels, objects, protocol)
        truth, classes = truth_masks(labels, objects, protocol.background)
        masks = geometry.grid_to_original(masks)
        heads, rgb = np.array(found["heads"]), record.read()
        best = heads.argmax(axis=0)
        shown = (truth, masks[best], masks[-2:-1], masks[-1:])
        colours = contrasting_colours(rgb, truth)
        names = ", ".join(self.data.classes[label] for label in np.unique(classes))
        ious = (heads.max(axis=0), found["mean_head"], found["principal"])
        numbers = ", ".join(str(head) for head in np.unique(best))
        best_iou, mean_iou, principal_iou = (
            f"IoU {percent(float(np.mean(values)))}" if len(classes) else "" for values in ious
        )
        return Example.drawn(
            (
                draw_instances(rgb, Instances(each), colours=colours[: len(each)])
                if len(truth)
                else draw_instances(rgb, Instances(each))
                for each in shown
            ),
            [names, f"{best_iou}, head {numbers}", mean_iou, principal_iou],
        )


def _open_data(config: VocBenchmarkConfig) -> LabelledSet:
    data = open_labelled(config.data, config.split, otherwise="voc")
    if config.per == "object" and data.read_objects is None:
        lack = f"{data.images.name}: tells no objects apart"
        if data.classes == VOC_CLASSES:
            lack = f"{config.data / 'SegmentationObject'}: no such folder"
        raise InputError(f"{lack}, which --per object needs")
    return data.limit(config.limit)


def _results_of(
    config: VocBenchmarkConfig, score: AttentionSegmentationScore, release: str | None, count: int
) -> dict[str, Any]:
    """What the summary says."""
    found = published_attention_miou(release, config.protocol, config.split, count)
    return {
        "mean_iou": score.mean_iou,
        "mean_iou_over_classes": {m: float(np.nanmean(score.by_class[m])) for m in METHODS},
        "head": score.head,
        "images": score.images,
        "published": None if found is None else {"mean_iou": found[0] / 100, "source": found[1]},
    }


def _report(
    config: VocBenchmarkConfig,
    settings: Mapping[str, Any],
    score: AttentionSegmentationScore,
    results: Mapping[str, Any],
) -> str:
    rows = [
        [
            f"one head ({score.head})" if method == "one head" else method,
            percent(score.mean_iou[method]),
            percent(results["mean_iou_over_classes"][method]),
        ]
        for method in METHODS
    ]
    lines = [
        f"{settings['model']} at {settings['size']} px on {score.images} images of "
        f"{settings['images']['name']}, %",
        f"{config.protocol}, share {config.keep:g}; a head per {config.per}; background "
        f"{'counts' if config.background else 'does not count'}; {config.resolution} resolution",
        format_table(["mIoU", "over images", "over classes"], rows),
    ]
    published = results["published"]
    if published is not None:
        lines.append(
            f"published, best head, all 1449 images of VOC 2012 val: "
            f"{percent(published['mean_iou'])} ({published['source']})"
        )
    return "\n".join(lines)
