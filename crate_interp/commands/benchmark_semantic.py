"""The command `benchmark semantic`: semantic segmentation by clusters, or by a linear probe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64, UInt8

from crate_interp.commands.benchmark_files import format_table, percent, write_class_scores
from crate_interp.commands.classifier_files import read_classifier, write_classifier
from crate_interp.config import SemanticBenchmarkConfig
from crate_interp.data import VOID, ImageRecord, LabelledSet, ResizedImage, open_labelled
from crate_interp.engine import StageClock
from crate_interp.errors import InputError
from crate_interp.evaluation import (
    ImageConfusion,
    image_confusion,
    match_clusters,
    semantic_score,
    total_confusion,
)
from crate_interp.evaluation.patch_classifier import (
    PatchClassifier,
    fit_clusters,
    fit_linear_probe,
    sample_patches,
)
from crate_interp.hooks import Observer, Site
from crate_interp.runs.journal import JournalEntry
from crate_interp.runs.number_files import versions, weights_of
from crate_interp.runs.observation import feature_of, load_observer, observe
from crate_interp.runs.resumable import (
    default_output,
    describe_images,
    finish_run,
    observe_into,
    settings_of,
)
from crate_interp.runs.run_folder import open_run_folder
from crate_interp.structures import Activations

__all__ = ["run"]

_PRESENTATION = {"data", "output", "weights", "workers"}

Sample = tuple[Float[np.ndarray, "s D"], UInt8[np.ndarray, " s"]]


class _Entry(JournalEntry, ImageConfusion):
    pass


def run(config: SemanticBenchmarkConfig) -> int:
    """Fit clusters or a probe, label the images, or go on with a stopped run; print the tables.

    Returns:
        0, or 1 if an image or its labels could not be read.

    Raises:
        InputError: The data lack something, or an image that a probe learns from cannot be read.
    """
    data = open_labelled(config.data, config.split).limit(config.limit)
    train = data
    if config.method == "linear":
        train = open_labelled(config.data, config.train_split).limit(config.limit)
        _refuse_common(data, train)
    observer = load_observer(config)
    feature = feature_of(config, observer)
    weights = weights_of(config)
    settings = settings_of(config, observer, data.images, weights, _PRESENTATION)
    settings |= {"feature": feature.value, "train_images": describe_images(train.images)}
    name = f"benchmark-semantic-{config.method}"
    output = config.output or default_output(name, config, data.images)
    with open_run_folder(output, settings, _Entry) as folder:
        about = {"weights": weights, "settings": settings, "versions": versions()}
        benchmark = _Benchmark(config, data, observer, feature, about)
        classifier = benchmark.classifier(output / "classifier.npz", train)
        entries, failed = observe_into(
            folder,
            observer,
            data.images.records,
            ([feature], [config.block]),
            partial(benchmark.entry_of, classifier),
            config,
        )
        confusion = total_confusion(entries, len(data.classes), len(data.classes))
        score = semantic_score(
            match_clusters(confusion) if config.method == "kmeans" else confusion
        )
        by_class = write_class_scores(
            output / "classes.png",
            data.classes,
            _images_of_class(entries, len(data.classes)),
            {"IoU": score.iou, "accuracy": score.accuracy},
            "IoU and accuracy of all pixels of a class (%)",
            about,
            config,
        )
        print(
            f"{by_class}\n\n{settings['model']} at {settings['size']} px on {len(entries)} images "
            f"of {data.images.name}, {config.method}, %"
        )
        numbers = (score.mean_iou, score.mean_accuracy, score.pixel_accuracy)
        print(format_table(["", "mIoU", "mAcc", "aAcc"], [["", *map(percent, numbers)]]))
        names = ("mean_iou", "mean_accuracy", "pixel_accuracy")
        results = {**dict(zip(names, numbers, strict=True)), "images": len(entries)}
        return finish_run(folder, results, failed, weights, settings)


@dataclass(frozen=True)
class _Benchmark:
    """What is done with one image."""

    config: SemanticBenchmarkConfig
    data: LabelledSet
    observer: Observer
    feature: Site
    about: Mapping[str, Any]

    def classifier(self, path: Path, train: LabelledSet) -> PatchClassifier:
        """Fit the classifier, or read what an earlier part of this run has fitted."""
        found = read_classifier(path)
        if found is not None:
            return found
        config = self.config
        records = train.images.records
        sample_of = partial(self.sample_of, train, math.ceil(config.patches / len(records)))
        samples = []
        for image in observe(
            self.observer, records, [self.feature], [config.block], sample_of, config
        ):
            if image.result is not None:
                samples.append(image.result)
            elif image.error is not None and config.method == "linear":
                raise image.error  # an image to cluster is named again when it is to be scored
        if not samples:
            raise InputError(f"{config.data}: expected images that can be read, found none")
        features, labels = (np.concatenate(arrays) for arrays in zip(*samples, strict=True))
        if config.method == "linear":
            fitted = fit_linear_probe(features, labels)
        else:
            fitted = fit_clusters(features, len(train.classes), config.seed)
        write_classifier(path, fitted, self.about)
        return fitted

    def sample_of(
        self,
        train: LabelledSet,
        count: int,
        record: ImageRecord,
        image: ResizedImage,
        activations: Activations,
        _: StageClock,
    ) -> Sample:
        """Features of some patches; for a probe, also the labels at their centres."""
        features = self.features(activations)
        labels = np.zeros(len(features), np.uint8)
        if self.config.method == "linear":
            original = train.labels_of(record, image.original_hw)
            labels = self.observer.geometry(image.original_hw).original_to_grid(original).ravel()
        chosen = sample_patches(labels != VOID, count, self.config.seed, record.image_id)
        return features[chosen], labels[chosen]

    def entry_of(
        self,
        classifier: PatchClassifier,
        record: ImageRecord,
        image: ResizedImage,
        activations: Activations,
        stage: StageClock,
    ) -> ImageConfusion:
        with stage("score"):
            labels = self.data.labels_of(record, image.original_hw)
            geometry = self.observer.geometry(image.original_hw)
            predicted = classifier.predict(self.features(activations)).reshape(geometry.grid_hw)
            predicted = geometry.grid_to_original(predicted[None])[0]
            classes = len(self.data.classes)
            return image_confusion(labels, predicted, classes, classes)

    def features(self, activations: Activations) -> Float[np.ndarray, "n D"]:
        found = activations.patch_features(self.feature, self.config.block)[0]
        return np.ascontiguousarray(found.float().cpu().numpy().T)


def _images_of_class(entries: Sequence[Mapping[str, Any]], classes: int) -> Int64[np.ndarray, " C"]:
    images = np.zeros(classes, np.int64)
    for entry in entries:
        images[list({label for _, label, _ in entry["pairs"]})] += 1
    return images


def _refuse_common(data: LabelledSet, train: LabelledSet) -> None:
    paths = {record.path for record in data.images.records}
    common = [record.path for record in train.images.records if record.path in paths]
    if common:
        raise InputError(
            f"{common[0]}: an image to be scored is among those that a probe learns from"
        )
