"""Attention masks against labelled images, by mIoU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict

import numpy as np

from crate_interp import data, evaluation, hooks, visualization
from crate_interp.commands.benchmark.examples import (
    MOST_EXAMPLES,
    ExampleEntry,
    Examples,
    draw_examples,
    example_of,
)
from crate_interp.commands.benchmark.labelled_images import BenchmarkCommand
from crate_interp.commands.benchmark.tables import class_scores, format_table, percent
from crate_interp.commands.block_sweep import ByBlockCommand
from crate_interp.commands.published import published_attention_miou
from crate_interp.data.built_in import built_in_choices
from crate_interp.errors import InputError
from crate_interp.options import option
from crate_interp.options.choices import KeepBy, Resolution
from crate_interp.options.ranges import Share
from crate_interp.runs.command import Reading
from crate_interp.runs.outputs import Conclusion

if TYPE_CHECKING:
    from jaxtyping import Bool, UInt8

    from crate_interp.data import LabelledSet
    from crate_interp.evaluation import (
        AttentionProtocol,
        AttentionSegmentationScore,
    )
    from crate_interp.runs.finished_run import Comparable, FinishedRun
    from crate_interp.runs.journal import Entry
    from crate_interp.runs.run import Run, SeenImage
    from crate_interp.structures import Activations
    from crate_interp.visualization import Section

    LabelMap = UInt8[np.ndarray, "H W"]

__all__ = ["Voc2012"]

PREFIX = "mIoU, "
TITLES = ("truth", "best head", "mean head", "principal component")


class _Entry(ExampleEntry):
    classes: list[int]
    heads: list[list[float]]
    mean_head: list[float]
    principal: list[float]


class _Results(TypedDict):
    mean_iou: dict[str, float]
    published: dict[str, float | str] | None


@dataclass(frozen=True, kw_only=True)
class Voc2012(BenchmarkCommand, ByBlockCommand):
    """Score attention masks by mIoU, as papers do on VOC 2012."""

    group: ClassVar[str] = "score"
    entry: ClassVar[type] = _Entry

    data: Path = option(
        "folder of JPEGImages, SegmentationClass and ImageSets; or a built-in set: "
        f"{built_in_choices()}",
        positional=True,
        presentation=True,
    )
    split: str = option("list of images, ImageSets/Segmentation/SPLIT.txt", "val")
    protocol: KeepBy = option(
        "patches that a mask keeps: the share of the patches (entries: CRATE papers) or of the "
        "attention (mass: DINO)",
        "entries",
    )
    keep: Share = option("that share", 0.6)
    per: Literal["class", "object"] = option(
        "what has a best head: a class of an image (CRATE), or an object", "class"
    )
    background: bool = option("background counts as a class", False)
    resolution: Resolution = option("compare at the image's pixels, or on the patch grid", "full")
    pictures: Examples = option("draw the masks of the first images", 6, presentation=True)

    def open_labelled(self) -> LabelledSet:
        """Open a labelled set of any kind; objects are refused where it tells none apart."""
        labelled = data.open_labelled(self.data, self.split, otherwise="voc")
        if self.per == "object" and labelled.read_objects is None:
            lack = f"{labelled.images.name}: tells no objects apart"
            if labelled.classes == data.VOC_CLASSES:
                lack = f"{self.data / 'SegmentationObject'}: no such folder"
            raise InputError(f"{lack}, which --per object needs")
        return labelled

    def reading(self, run: Run) -> Reading:
        """Read the attention of the class token, and the feature."""
        feature = self.site_of(run)
        sites = [hooks.Site.CLS_ATTENTION, feature]
        hooks.record(run.observer.model, sites, [self.block])  # refuses what the model lacks
        return Reading(sites, [self.block], MOST_EXAMPLES, {"feature": feature})

    def measure(self, run: Run, image: SeenImage, output: Activations) -> Mapping[str, Any]:
        """Compare the masks of the heads, of their mean and of the component with the labels."""
        with image.stage("score"):
            attention = output[hooks.Site.CLS_ATTENTION, self.block][0].float()
            patches = attention[:, output.num_prefix_tokens :].unflatten(1, output.grid_hw)
            features = output.patch_features(run.settings["feature"], self.block)[0].float()
            masks = evaluation.candidate_masks(patches, features, self._protocol)
            record, hw = image.record, image.geometry.original_hw
            labels = self.labelled.labels_of(record, hw)
            objects = self.labelled.objects_of(record, hw) if self.per == "object" else None
            overlaps = evaluation.image_overlaps(
                masks, image.geometry, labels, objects, self._protocol
            )
        if image.picture is None:
            return overlaps
        return {**overlaps, **self._example(image, masks, labels, objects)}

    def conclude(self, run: Run) -> Conclusion:
        """Average over images and over classes, beside the published number."""
        labelled, entries = self.labelled, run.entries
        score = evaluation.attention_segmentation_score(
            entries,  # type: ignore[arg-type]  # a journal's entries are dictionaries
            len(labelled.classes),
        )
        label = f"IoU by {self.protocol} (%, mean over the images of a class)"
        outputs, by_class = class_scores(
            run, labelled.classes, score.images_of_class, score.by_class, label
        )
        results = {
            "mean_iou": score.mean_iou,
            "mean_iou_over_classes": {
                method: float(np.nanmean(score.by_class[method])) for method in score.mean_iou
            },
            "head": score.head,
            "images": score.images,
            "published": self._published(run),
        }
        outputs += draw_examples(run, self.pictures, TITLES)
        text = f"{by_class}\n\n{self._report(run, score, results)}"
        return Conclusion(outputs, text, results, self._sections(run, results))

    @classmethod
    def compared(cls, run: FinishedRun) -> Comparable:
        """Give the mean IoU by method, over images."""
        from crate_interp.runs.finished_run import Comparable, split_published

        results = run.results(_Results)

        def score(records: Sequence[Entry]) -> dict[str, float]:
            scored: Any = records
            return _named(evaluation.attention_segmentation_score(scored, classes).mean_iou)

        entries = {e["file_name"]: e for e in run.entries(cls.entry) if e["classes"]}
        classes = 1 + max((max(entry["classes"]) for entry in entries.values()), default=0)
        published, source = split_published(results["published"])
        return Comparable(
            _named(results["mean_iou"]),
            published={f"{PREFIX}best head": value for value in published.values()},
            source=source,
            records=entries,
            bootstrap=partial(evaluation.bootstrap_scores, score),
        )

    def _sections(self, run: Run, results: Mapping[str, Any]) -> list[Section]:
        published = results["published"]
        rows = [
            [method, percent(mean), percent(results["mean_iou_over_classes"][method])]
            for method, mean in results["mean_iou"].items()
        ]
        if published is not None:
            words = f"best head, published ({published['source']})"
            rows.append([words, percent(published["mean_iou"]), ""])
        quiet = frozenset([len(rows) - 1]) if published else frozenset()
        table = visualization.PageTable(["mIoU, %", "over images", "over classes"], rows, quiet)
        best = {
            entry["image_id"]: float(np.max(entry["heads"], axis=0).mean())
            for entry in run.entries
            if entry["classes"]
        }
        background = self._protocol.background
        return [
            visualization.Section("Attention masks", [table], "scores"),
            *self.score_sections(run, "IoU of the best head", best, TITLES, background),
        ]

    @property
    def _protocol(self) -> AttentionProtocol:
        background = None if self.background else self.labelled.background
        return evaluation.AttentionProtocol(self.protocol, self.keep, background, self.resolution)

    def _example(
        self,
        image: SeenImage,
        masks: Bool[np.ndarray, "K+2 h w"],
        labels: LabelMap,
        objects: LabelMap | None,
    ) -> dict[str, Any]:
        """Keep the masks of the best heads and the others, with their IoU in the image's pixels."""
        protocol = replace(self._protocol, resolution="full")
        overlaps = evaluation.image_overlaps(masks, image.geometry, labels, objects, protocol)
        truth, classes = data.truth_masks(labels, objects, protocol.background)
        heads = np.array(overlaps["heads"])
        best = heads.argmax(axis=0)
        ious = (heads.max(axis=0), overlaps["mean_head"], overlaps["principal"])
        best_iou, mean_iou, principal_iou = (
            f"IoU {percent(float(np.mean(values)))}" if len(classes) else "" for values in ious
        )
        names = ", ".join(self.labelled.classes[label] for label in np.unique(classes))
        numbers = ", ".join(str(head) for head in np.unique(best))
        captions = [names, f"{best_iou}, head {numbers}", mean_iou, principal_iou]
        return example_of(image, truth, masks[[*best, -2, -1]], captions)

    def _published(self, run: Run) -> dict[str, Any] | None:
        from crate_interp.runs.inference import release_of

        if self.labelled.classes != data.VOC_CLASSES:
            return None
        release = release_of(self, run.provenance["weights"]["sha256"])
        score = published_attention_miou(release, self.protocol, self.split, len(run.entries))
        return None if score is None else {"mean_iou": score[0] / 100, "source": score[1]}

    def _report(
        self, run: Run, score: AttentionSegmentationScore, results: Mapping[str, Any]
    ) -> str:
        rows = [
            [
                f"one head ({score.head})" if method == "one head" else method,
                percent(mean_iou),
                percent(results["mean_iou_over_classes"][method]),
            ]
            for method, mean_iou in score.mean_iou.items()
        ]
        settings = run.settings
        lines = [
            f"{settings['model']} at {settings['size']} px on {score.images} images of "
            f"{run.images.name}, %",
            f"{self.protocol}, share {self.keep:g}; a head per {self.per}; background "
            f"{'counts' if self.background else 'does not count'}; {self.resolution} resolution",
            format_table(["mIoU", "over images", "over classes"], rows),
        ]
        published = results["published"]
        if published is not None:
            lines.append(
                f"published, best head, all 1449 images of VOC 2012 val: "
                f"{percent(published['mean_iou'])} ({published['source']})"
            )
        return "\n".join(lines)


def _named(mean_iou: Mapping[str, float]) -> dict[str, float]:
    return {f"{PREFIX}{method}": value for method, value in mean_iou.items()}
