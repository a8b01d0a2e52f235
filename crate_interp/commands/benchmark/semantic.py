"""Semantic segmentation by clusters of patches, a linear probe of them, or a trained head."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypedDict

import numpy as np

from crate_interp import data, evaluation, hooks, visualization
from crate_interp.commands.benchmark.labelled_images import BenchmarkCommand
from crate_interp.commands.benchmark.tables import class_scores, format_table, percent
from crate_interp.data.built_in import built_in_choices
from crate_interp.errors import InputError
from crate_interp.options import Range, option
from crate_interp.options.ranges import Seed
from crate_interp.runs.command import Reading
from crate_interp.runs.journal import JournalEntry
from crate_interp.runs.outputs import Conclusion

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

    from crate_interp.data import LabelledSet
    from crate_interp.evaluation.patch_classifier import PatchClassifier
    from crate_interp.runs.finished_run import Comparable, FinishedRun
    from crate_interp.runs.journal import Entry
    from crate_interp.runs.run import Run, SeenImage
    from crate_interp.structures import Activations
    from crate_interp.visualization import Section

__all__ = ["Semantic"]

NUMBERS = {"mean_iou": "mIoU", "mean_accuracy": "mAcc", "pixel_accuracy": "aAcc"}
CLASSIFIER = ("weight", "bias", "labels")  # arrays that are kept of it


class _Entry(JournalEntry):
    pairs: list[tuple[int, int, int]]


class _Results(TypedDict):
    mean_iou: float
    mean_accuracy: float
    pixel_accuracy: float


@dataclass
class _Reading(Reading):
    """Sites to record, and the classifier, once it is fitted."""

    classifier: PatchClassifier = field(init=False)


@dataclass(frozen=True, kw_only=True)
class Semantic(BenchmarkCommand):
    """Score labels of patches: clusters, a probe, the head."""

    group: ClassVar[str] = "score"
    entry: ClassVar[type] = _Entry

    data: Path = option(
        f"folder as VOC or as ADE20K has it; or a built-in set: {built_in_choices()}",
        positional=True,
        presentation=True,
    )
    method: Literal["kmeans", "linear", "head"] = option(
        "k-means of the features, a cluster a class, matched to the classes; logistic regression "
        "of them, learnt on --train-split; or the head of a model that was trained to class pixels",
        "kmeans",
    )
    split: str = option("part of the data to score on", "val")
    train_split: str = option("part of the data that a linear probe learns from", "train")
    patches: Annotated[int, Range(1, 100_000_000)] = option(
        "patches, of all images together, that clusters or probe learn from", 200_000
    )
    seed: Seed = option("of the choice of the patches, and of k-means", 0)

    def check(self) -> None:
        """Refuse a probe that would learn from an image that it is scored on."""
        super().check()
        scored = {record.path for record in self.labelled.images.records}
        common = [record for record in self.train.images.records if record.path in scored]
        if common and self.method == "linear":
            raise InputError(
                f"{common[0].path}: an image to be scored is among those that a probe learns from"
            )

    def default_name(self) -> str:
        """Start of the name of the run folder, where the user gives no output."""
        return f"{super().default_name()}-{self.method}"

    def open_labelled(self) -> LabelledSet:
        """Open the part of the data that is scored."""
        return data.open_labelled(self.data, self.split)

    @cached_property
    def train(self) -> LabelledSet:
        """Images that the classifier learns from; clusters are those of the scored images."""
        if self.method != "linear":
            return self.labelled
        return data.open_labelled(self.data, self.train_split).limit(self.limit)

    def reading(self, run: Run) -> _Reading:
        """Read the feature of the block."""
        from crate_interp.runs.provenance import describe_images

        if self.method == "head":
            self._check_head(run)
            return _Reading(["tokens"], [-1], settings={"feature": "tokens"})
        feature = self.site_of(run)
        settings = {"feature": feature, "train_images": describe_images(self.train.images)}
        return _Reading([feature], [self.block], settings=settings)

    def collect(self, run: Run) -> None:
        """Fit the classifier, or read the one that this run has fitted; then label the images."""
        from crate_interp.commands.benchmark.classifier_file import (
            read_classifier,
            write_classifier,
        )
        from crate_interp.evaluation.patch_classifier import PatchClassifier

        if self.method == "head":
            run.each(self.measure)
            return
        path, samples = run.output / "classifier.npz", "samples"
        arrays: Any = read_classifier(path, CLASSIFIER)
        if arrays is None:
            entries = run.each(self.sample, name=samples, images=self.train.images)
            if run.failed and self.method == "linear":
                raise InputError(run.failed[0]["reason"])
            classifier = self._fit(entries)
            arrays = {name: getattr(classifier, name) for name in CLASSIFIER}
            write_classifier(path, arrays, run.provenance)
        run.folder.journal(samples).remove()
        run.reading.classifier = PatchClassifier(**arrays)
        run.each(self.measure)

    def sample(self, run: Run, image: SeenImage, output: Activations) -> Mapping[str, Any]:
        """Keep features of some patches; for a probe, also the labels at their centres."""
        from crate_interp.evaluation.patch_classifier import sample_patches

        features = self._features(run, output)
        labels = np.zeros(len(features), np.uint8)
        if self.method == "linear":
            original = self.train.labels_of(image.record, image.geometry.original_hw)
            labels = image.geometry.original_to_grid(original).ravel()
        count = math.ceil(self.patches / len(self.train.images.records))
        chosen = sample_patches(labels != data.VOID, count, self.seed, image.record.image_id)
        return {"features": features[chosen], "labels": labels[chosen]}

    def measure(self, run: Run, image: SeenImage, output: Activations) -> Mapping[str, Any]:
        """Label the patches of an image, and count its pixels by label and truth."""
        with image.stage("score"):
            labels = self.labelled.labels_of(image.record, image.geometry.original_hw)
            if self.method == "head":
                predicted = hooks.patch_classes(run.observer.model, output)
            else:
                predicted = run.reading.classifier.predict(self._features(run, output))
            grid = predicted.reshape(1, *image.geometry.grid_hw)
            classes = len(self.labelled.classes)
            return evaluation.image_confusion(
                labels, image.geometry.grid_to_original(grid)[0], classes, classes
            )

    def conclude(self, run: Run) -> Conclusion:
        """Score all pixels of each class; clusters are matched to the classes before."""
        names, count = self.labelled.classes, len(run.entries)
        confusion = evaluation.total_confusion(
            run.entries,  # type: ignore[arg-type]  # a journal's entries are dictionaries
            len(names),
            len(names),
        )
        labels = np.arange(len(names))  # that the predicted ones stand for
        if self.method == "kmeans":
            labels = evaluation.classes_of_clusters(confusion)
            confusion = evaluation.match_clusters(confusion)
        score = evaluation.semantic_score(confusion)
        outputs, by_class = class_scores(
            run,
            names,
            _images_of_class(run.entries, len(names)),
            {"IoU": score.iou, "accuracy": score.accuracy},
            "IoU and accuracy of all pixels of a class (%)",
        )
        results = {name: getattr(score, name) for name in NUMBERS}
        settings = run.settings
        text = (
            f"{by_class}\n\n{settings['model']} at {settings['size']} px on {count} images "
            f"of {run.images.name}, {self.method}, %\n"
        )
        text += format_table(["", *NUMBERS.values()], [["", *map(percent, results.values())]])
        sections = self._sections(run, results, labels)
        return Conclusion(outputs, text, {**results, "images": count}, sections)

    @classmethod
    def compared(cls, run: FinishedRun) -> Comparable:
        """Give mIoU, mAcc and aAcc."""
        from crate_interp.runs.finished_run import Comparable

        results: Any = run.results(_Results)

        def score(records: Sequence[Entry]) -> dict[str, float]:
            counted: Any = records
            confusion = evaluation.total_confusion(counted, labels, labels)
            if run.settings.get("method") == "kmeans":
                confusion = evaluation.match_clusters(confusion)
            scores = evaluation.semantic_score(confusion)
            return {words: getattr(scores, name) for name, words in NUMBERS.items()}

        entries = {entry["file_name"]: entry for entry in run.entries(cls.entry) if entry["pairs"]}
        pairs = (pair for entry in entries.values() for pair in entry["pairs"])
        labels = 1 + max((max(pair[:2]) for pair in pairs), default=0)
        return Comparable(
            {words: results[name] for name, words in NUMBERS.items()},
            records=entries,
            bootstrap=partial(evaluation.bootstrap_scores, score),
        )

    def _sections(
        self, run: Run, results: Mapping[str, float], labels: Int64[np.ndarray, " P"]
    ) -> list[Section]:
        cells = [[self.method, *map(percent, results.values())]]
        table = visualization.PageTable(["%", *NUMBERS.values()], cells)
        accuracy = {}
        for entry in run.entries:
            record: Any = entry
            share = evaluation.image_accuracy(record, labels)
            if share is not None:
                accuracy[entry["image_id"]] = share
        background = self.labelled.background
        return [
            visualization.Section("Labels of patches", [table], "scores"),
            *self.score_sections(run, "Pixel accuracy", accuracy, background=background),
        ]

    def _check_head(self, run: Run) -> None:
        if (self.feature, self.block) != ("auto", -1):
            raise InputError(
                "--method head: reads what leaves the last block; expected no --feature, no --block"
            )
        hooks.check_classifier(run.observer.model)
        outputs, classes = run.observer.model.num_classes, len(self.labelled.classes)
        if outputs != classes:
            raise InputError(
                f"--method head: expected a head of the {classes} classes of "
                f"{self.labelled.images.name}, found one of {outputs}"
            )

    def _features(self, run: Run, output: Activations) -> Float[np.ndarray, "n D"]:
        features = output.patch_features(run.settings["feature"], self.block)[0]
        return np.ascontiguousarray(features.float().cpu().numpy().T)

    def _fit(self, entries: Sequence[Entry]) -> PatchClassifier:
        from crate_interp.evaluation.patch_classifier import fit_clusters, fit_linear_probe

        if not entries:
            raise InputError(f"{self.data}: expected images that can be read, found none")
        features = np.concatenate([entry["features"] for entry in entries])
        if self.method == "kmeans":
            return fit_clusters(features, len(self.train.classes), self.seed)
        return fit_linear_probe(features, np.concatenate([entry["labels"] for entry in entries]))


def _images_of_class(entries: Sequence[Entry], classes: int) -> Int64[np.ndarray, " C"]:
    """Count the images that each class occurs in."""
    images = np.zeros(classes, np.int64)
    for entry in entries:
        images[list({label for _, label, _ in entry["pairs"]})] += 1
    return images
