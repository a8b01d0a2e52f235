"""Top-1 and top-5 accuracy of probes of a frozen model: linear, and k nearest neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypedDict

import numpy as np

from crate_interp import data, evaluation, visualization
from crate_interp.commands.benchmark.tables import class_scores, format_table, percent
from crate_interp.commands.image_features import POOLS, features_of, reading_of
from crate_interp.errors import InputError
from crate_interp.options import Range, option
from crate_interp.options.choices import Feature
from crate_interp.options.ranges import AtLeastOne, Index
from crate_interp.runs.command import ImageCommand, Reading
from crate_interp.runs.journal import JournalEntry
from crate_interp.runs.options import PLACES
from crate_interp.runs.outputs import Conclusion

if TYPE_CHECKING:
    from crate_interp.data import ClassFolders, ImageSet
    from crate_interp.evaluation.probes import LinearProbe, NeighbourProbe
    from crate_interp.runs.finished_run import Comparable, FinishedRun
    from crate_interp.runs.journal import Entry
    from crate_interp.runs.run import Run, SeenImage
    from crate_interp.structures import Activations
    from crate_interp.visualization import Section

__all__ = ["Classification"]

METHODS = ("linear", "knn")
ARRAYS = ("weight", "bias", "features", "labels", "strength")  # that are kept of the probes
Temperature = Annotated[float, Range(0, 100, (0,))]
Strength = Annotated[float, Range(0, 1e12, (0,))]


class _Entry(JournalEntry):
    label: int
    ranks: dict[str, int]


class _Results(TypedDict):
    linear: dict[str, float]
    knn: dict[str, float]


@dataclass
class _Reading(Reading):
    """Sites to record; once they are fitted, the probes and the C of the linear one."""

    probes: Mapping[str, LinearProbe | NeighbourProbe] = field(init=False)
    strength: float = field(init=False)


@dataclass(frozen=True, kw_only=True)
class Classification(ImageCommand):
    """Score a linear and a k-NN probe by accuracy.

    The class of an image is the name of the folder that it is in. Features of the frozen model are
    computed once, without augmentation. The linear probe is scikit-learn's logistic regression; the
    nearest neighbours vote by cosine, as DINO's do.
    """

    group: ClassVar[str] = "score"
    entry: ClassVar[type] = _Entry
    run_folder: ClassVar[bool] = True

    train: str = option(
        f"images to learn from, in a folder per class: {PLACES}; or `demo`: scenes, whose "
        "largest object is the class",
        positional=True,
        presentation=True,
    )
    test: str = option(
        "images to score, in such folders; or `demo`: other scenes",
        positional=True,
        presentation=True,
    )
    feature: Feature = option(
        "what to read with --pool mean or class (auto: subspace for CRATE, key for ViT)", "auto"
    )
    block: Index = option("block to read, from 0; negative counts from the last", -1)
    pool: Literal["mean", "class", "head"] = option(POOLS, "head")
    regularization: Strength | Literal["auto"] = option(
        "C of the logistic regression; auto: from 1e-6 to 1e6 the best on every fifth training "
        "image of each class, as CLIP's authors chose it; then all of them are learnt from",
        "auto",
    )
    neighbours: AtLeastOne = option("k: training images that vote", 20)
    temperature: Temperature = option("cosine by which a vote counts e times as much", 0.07)
    output: Path | None = option(
        "run folder (default: runs/benchmark-classification-MODEL-TEST)", None, presentation=True
    )

    def check(self) -> None:
        """Refuse an image that is both learnt from and scored, and a class never learnt."""
        scored = {record.path for record in self.scored.records}
        common = [record for record in self.learnt.records if record.path in scored]
        if common:
            raise InputError(
                f"{common[0].path}: an image to be scored is among those that a probe learns from"
            )
        if len(self.learnt.classes) < 2:
            raise InputError(
                f"{self.train}: expected folders of two classes or more, found "
                f"{list(self.learnt.classes)}"
            )
        unknown = sorted({*self.scored.classes} - {*self.learnt.classes})
        if unknown:
            raise InputError(
                f"{self.test}: expected the classes of {self.train}, found {', '.join(unknown[:5])}"
            )

    def open_images(self) -> ImageSet:
        """Open the images that are scored."""
        return self.scored

    @cached_property
    def learnt(self) -> ClassFolders:
        """Images that the probes learn from; the first ones are of all classes."""
        return self._open(self.train, "train")

    @cached_property
    def scored(self) -> ClassFolders:
        """Images that are scored; the first ones are of all classes."""
        return self._open(self.test, "val")

    def reading(self, run: Run) -> _Reading:
        """Read the feature of the block."""
        from crate_interp.runs.provenance import describe_images

        reading = reading_of(run, self.feature, self.block, self.pool)
        reading["settings"]["train_images"] = describe_images(self.learnt)
        return _Reading(**reading)

    def collect(self, run: Run) -> None:
        """Fit the probes, or read those that this run has fitted; then score the images."""
        from crate_interp.commands.benchmark.classifier_file import (
            read_classifier,
            write_classifier,
        )
        from crate_interp.evaluation.probes import LinearProbe, NeighbourProbe

        path, journal = run.output / "probes.npz", "train"
        arrays: Any = read_classifier(path, ARRAYS)
        if arrays is None:
            entries = run.each(self.sample, name=journal, images=self.learnt)
            if run.failed:
                raise InputError(run.failed[0]["reason"])
            arrays = self._fit(entries)
            write_classifier(path, arrays, run.provenance)
        run.folder.journal(journal).remove()
        votes = (len(self.learnt.classes), self.neighbours, self.temperature)
        run.reading.probes = {
            "linear": LinearProbe(arrays["weight"], arrays["bias"]),
            "knn": NeighbourProbe(arrays["features"], arrays["labels"], *votes),
        }
        run.reading.strength = float(arrays["strength"])
        run.each(self.measure)

    def sample(self, run: Run, image: SeenImage, output: Activations) -> Mapping[str, Any]:
        """Keep the feature of an image to learn from."""
        return {"features": features_of(run, output, self.block, self.pool)}

    def measure(self, run: Run, image: SeenImage, output: Activations) -> Mapping[str, Any]:
        """Count the classes that each probe puts before the right one."""
        import torch

        with image.stage("score"):
            features = features_of(run, output, self.block, self.pool)[None]
            name = self.scored.classes[self.scored.labels[image.record.image_id]]
            label = self.learnt.classes.index(name)
            ranks = {
                method: evaluation.class_ranks(
                    torch.from_numpy(probe.scores(features)), torch.tensor([label])
                )[0]
                for method, probe in run.reading.probes.items()
            }
        return {"label": label, "ranks": ranks}

    def conclude(self, run: Run) -> Conclusion:
        """Average over the images, and over those of each class."""
        entries, names = run.entries, self.learnt.classes
        labels = np.array([entry["label"] for entry in entries], int)
        counts = np.bincount(labels, minlength=len(names))
        by_class = {}
        for method in METHODS:
            first = [entry["ranks"][method] == 0 for entry in entries]
            right = np.bincount(labels, first, minlength=len(names))
            by_class[method] = right / np.where(counts, counts, np.nan)
        outputs, printed = class_scores(run, names, counts, by_class, "top-1 accuracy (%)")
        results = {method: _accuracy(entries, method) for method in METHODS}
        strength = run.reading.strength
        learnt = len(run.reading.probes["knn"].labels)
        text = (
            f"{printed}\n\n{run.settings['model']} at {run.settings['size']} px, learnt from "
            f"{learnt} images, scored on {len(entries)} of {run.images.name}, %; "
            f"C = {strength:.3g}, k = {self.neighbours}\n"
        )
        rows = [[method, *map(percent, scores.values())] for method, scores in results.items()]
        text += format_table(["", "top-1", "top-5"], rows)
        table = visualization.PageTable(["%", "top-1", "top-5"], rows)
        sections: list[Section] = [visualization.Section("Accuracy", [table], "scores")]
        of_all = {"images": len(entries), "train_images": learnt, "regularization": strength}
        return Conclusion(outputs, text, {**results, **of_all}, sections)

    @classmethod
    def compared(cls, run: FinishedRun) -> Comparable:
        """Give top-1 and top-5 accuracy of each probe."""
        from crate_interp.runs.finished_run import Comparable

        results: Any = run.results(_Results)
        return Comparable(
            _named(results),
            records={entry["file_name"]: entry for entry in run.entries(cls.entry)},
            bootstrap=partial(evaluation.bootstrap_scores, _scores),
        )

    def _open(self, place: str, part: str) -> ClassFolders:
        name = data.built_in_name(place)
        if name is None:
            images: Any = data.classes_by_folder(data.open_images([place], recursive=True))
        else:
            images = data.open_built_in_classes(name, part)
        limited: ClassFolders = images.limit(self.limit)
        return limited

    def _fit(self, entries: Sequence[Entry]) -> dict[str, Any]:
        from crate_interp.evaluation.probes import NeighbourProbe, choose_strength, fit_linear

        features = np.stack([entry["features"] for entry in entries])
        labels = np.array([self.learnt.labels[entry["image_id"]] for entry in entries])
        strength = self.regularization
        if strength == "auto":
            strength = choose_strength(features, labels)
        linear, neighbours = (
            fit_linear(features, labels, strength),
            NeighbourProbe.of(features, labels),
        )
        return {
            "weight": linear.weight,
            "bias": linear.bias,
            "features": neighbours.features,
            "labels": neighbours.labels,
            "strength": np.array(strength),
        }


def _accuracy(entries: Sequence[Entry], method: str) -> dict[str, float]:
    score = evaluation.accuracy_score([entry["ranks"][method] for entry in entries])
    return {f"top{k}": accuracy for k, accuracy in score.accuracy.items()}


def _scores(entries: Sequence[Entry]) -> dict[str, float]:
    return _named({method: _accuracy(entries, method) for method in METHODS})


def _named(results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {f"{method} top-{k}": results[method][f"top{k}"] for method in METHODS for k in (1, 5)}
