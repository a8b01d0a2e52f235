"""Masks of the salient object, by three methods."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

import numpy as np

from crate_interp import data, evaluation, hooks, segmentation, visualization
from crate_interp.commands.benchmark.examples import (
    MOST_EXAMPLES,
    ExampleEntry,
    Examples,
    draw_examples,
    example_of,
)
from crate_interp.commands.benchmark.labelled_images import BenchmarkCommand
from crate_interp.commands.benchmark.tables import format_table, percent
from crate_interp.commands.published import SALIENCY_SOURCE, published_saliency
from crate_interp.data.built_in import built_in_choices
from crate_interp.errors import InputError
from crate_interp.options import option
from crate_interp.options.ranges import Cosine, Share
from crate_interp.runs.command import Reading
from crate_interp.runs.outputs import Conclusion, Output, Table

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from crate_interp.data import LabelledSet
    from crate_interp.runs.finished_run import Comparable, FinishedRun
    from crate_interp.runs.journal import Entry
    from crate_interp.runs.run import Run, SeenImage
    from crate_interp.structures import Activations
    from crate_interp.visualization import Section

    Maps = dict[str, tuple[Float[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]]

__all__ = ["Saliency"]

_logger = logging.getLogger(__name__)

SCORES = ("max_f", "iou", "accuracy")
SCORE_NAMES = ("max F", "IoU", "accuracy")


class _Saliency(TypedDict):
    f: list[float]
    iou: float
    accuracy: float


class _Methods(TypedDict):
    methods: dict[str, _Saliency]


class _Entry(ExampleEntry, _Methods):
    pass


class _Published(TypedDict, total=False):
    published: dict[str, float | str] | None


class _Results(_Published):
    scores: dict[str, dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Saliency(BenchmarkCommand):
    """Score masks of the salient object, of three methods.

    They are TokenCut, attention, and the first principal component.
    """

    group: ClassVar[str] = "score"
    entry: ClassVar[type] = _Entry

    images: Path = option(
        "folder of images; or a built-in set, whose largest objects are salient: "
        f"{built_in_choices()}",
        positional=True,
        presentation=True,
    )
    masks: Path | None = option(
        "folder of their masks, of the same names, white being the object; a built-in set needs "
        "none",
        None,
        positional=True,
        presentation=True,
    )
    recursive: bool = option(
        "search the folders in the folders, too; masks lie alike", False, presentation=True
    )
    tau: Cosine = option("of TokenCut: patches are alike above this cosine similarity", 0.2)
    keep: Share = option("share of the attention, by mass, that its mask keeps", 0.6)
    pictures: Examples = option("draw the masks of the first images", 6, presentation=True)

    def open_labelled(self) -> LabelledSet:
        """Open the images with their masks; a built-in set comes with its own."""
        if self.masks is None:
            name = data.built_in_name(self.images)
            if name is None:
                raise InputError(f"{self.images}: expected the folder of its masks as well")
            return data.open_largest_objects(name)
        return data.open_saliency(self.images, self.masks, self.recursive)

    def reading(self, run: Run) -> Reading:
        """Read the feature, and the attention of the class token where there is one."""
        feature = self.site_of(run)
        sites = [feature]
        if hooks.Site.CLS_ATTENTION in hooks.available_sites(run.observer.model, self.block):
            sites.append(hooks.Site.CLS_ATTENTION.value)
        else:
            _logger.warning("%s has no class token: no mask of its attention", self.model)
        return Reading(sites, [self.block], MOST_EXAMPLES, {"feature": feature})

    def measure(self, run: Run, image: SeenImage, output: Activations) -> Mapping[str, Any]:
        """Compare the masks and maps of all methods with the object."""
        with image.stage("score"):
            geometry = image.geometry
            truth = self.labelled.labels_of(image.record, geometry.original_hw) == 1
            maps, scores = self._maps(run, image, output), {}
            for name, grids in maps.items():
                soft, mask = (geometry.grid_to_original(grid[None])[0] for grid in grids)
                scores[name] = evaluation.image_saliency(soft, mask, truth)
        if image.picture is None:
            return {"methods": scores}
        captions = [f"IoU {percent(of_method['iou'])}" for of_method in scores.values()]
        masks = np.stack([mask for _, mask in maps.values()])
        example = example_of(image, truth[None], masks, [image.record.file_name, *captions])
        return {"methods": scores, **example}

    def conclude(self, run: Run) -> Conclusion:
        """Average over the images, beside the published numbers."""
        scores = _scores_of(run.entries)
        outputs: list[Output] = [Table("masks", ("image", "method", *SCORES), _rows(run.entries))]
        outputs += draw_examples(run, self.pictures, ["truth", *scores])
        published = self._published(run)
        results = {"scores": scores, "published": published}
        sections = self._sections(run, scores, published)
        return Conclusion(outputs, self._report(run, scores, published), results, sections)

    @classmethod
    def compared(cls, run: FinishedRun) -> Comparable:
        """Give the scores of all methods."""
        from crate_interp.runs.finished_run import Comparable, split_published

        results = run.results(_Results)
        records = {
            entry["file_name"]: {
                name: {**saliency, "f": np.array(saliency["f"])}
                for name, saliency in entry["methods"].items()
            }
            for entry in run.entries(cls.entry)
        }
        published, source = split_published(results.get("published"))
        return Comparable(
            _named(results["scores"]),
            published=_named({"TokenCut": published}),
            source=source,
            records=records,
            bootstrap=partial(evaluation.bootstrap_scores, _score_named),
        )

    def _sections(
        self,
        run: Run,
        scores: Mapping[str, Mapping[str, Any]],
        published: Mapping[str, Any] | None,
    ) -> list[Section]:
        rows = _percent_rows(scores, published)
        quiet = frozenset([len(rows) - 1]) if published else frozenset()
        table = visualization.PageTable(["%", *SCORE_NAMES], rows, quiet)
        first = next(iter(scores))
        ious = {entry["image_id"]: entry["methods"][first]["iou"] for entry in run.entries}
        return [
            visualization.Section("Masks of the salient object", [table], "scores"),
            *self.score_sections(run, f"{first} IoU", ious, ["truth", *scores], 0),
        ]

    def _published(self, run: Run) -> dict[str, Any] | None:
        """TokenCut's numbers on the whole set, as shares of 1."""
        from crate_interp.runs.inference import release_of

        release = release_of(self, run.provenance["weights"]["sha256"])
        known = published_saliency(release, str(self.images.resolve()), len(run.entries))
        if known is None:
            return None
        values = {name: value / 100 for name, value in known._asdict().items()}
        return {**values, "source": SALIENCY_SOURCE}

    def _maps(self, run: Run, image: SeenImage, output: Activations) -> Maps:
        """Saliency in [0, 1], and mask, of each method on the patch grid."""
        grid_hw = output.grid_hw
        features = output.patch_features(run.settings["feature"], self.block)[0].float()
        name = str(image.record.path)
        cut = segmentation.tokencut(features, grid_hw, self.tau, name=name).mask.cpu().numpy()
        maps = {"TokenCut": (cut.astype(np.float64), cut)}
        if (hooks.Site.CLS_ATTENTION, self.block) in output:
            rows = output[hooks.Site.CLS_ATTENTION, self.block][0].float()
            mean = rows[:, output.num_prefix_tokens :].mean(dim=0)
            mask = segmentation.attention_masks(mean, "mass", self.keep).view(grid_hw)
            maps["attention"] = (_stretched(mean.view(grid_hw).cpu().numpy()), mask.cpu().numpy())
        principal = segmentation.principal_component(features, grid_hw)
        soft = _stretched(principal.scores.cpu().numpy())
        return {**maps, "principal component": (soft, principal.mask.cpu().numpy())}

    def _report(
        self,
        run: Run,
        scores: Mapping[str, Mapping[str, Any]],
        published: Mapping[str, Any] | None,
    ) -> str:
        settings, rows = run.settings, _percent_rows(scores, published)
        heading = f"{settings['model']} at {settings['size']} px on {len(run.entries)} images, %"
        return f"{heading}\n{format_table(['', *SCORE_NAMES], rows)}"


def _percent_rows(
    scores: Mapping[str, Mapping[str, Any]], published: Mapping[str, Any] | None
) -> list[list[str]]:
    """Write the scores of each method, and the published ones of TokenCut below."""
    shown = dict(scores) if published is None else {**scores, "TokenCut, published": published}
    return [[name, *(percent(score[key]) for key in SCORES)] for name, score in shown.items()]


def _stretched(scores: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Bring numbers to [0, 1]; equal ones become 0."""
    lowest, highest = scores.min(), scores.max()
    return np.asarray((scores - lowest) / (highest - lowest if highest > lowest else 1))


def _rows(entries: Sequence[Entry]) -> Iterator[tuple[str, str, float, float, float]]:
    """Give a line for each method of each image."""
    for entry in entries:
        for name, found in entry["methods"].items():
            yield entry["file_name"], name, max(found["f"]), found["iou"], found["accuracy"]


def _score_named(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    scores = {
        name: asdict(evaluation.saliency_score([record[name] for record in records]))
        for name in records[0]
    }
    return _named(scores)


def _named(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {
        f"{method} {words}": score[name]
        for method, score in scores.items()
        for name, words in zip(SCORES, SCORE_NAMES, strict=True)
        if name in score
    }


def _scores_of(entries: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    if not entries:
        raise InputError("expected images and masks that can be read, found none")
    return {
        name: asdict(evaluation.saliency_score([entry["methods"][name] for entry in entries]))
        for name in entries[0]["methods"]
    }
