"""Masks of a set of images by any segmenter, as COCO results, an AP table and overlays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar, TypedDict

from crate_interp import data, evaluation, files, segmentation, structures, visualization
from crate_interp.commands.block_sweep import ByBlockCommand
from crate_interp.commands.compared_ap import comparable_ap, kept_matches
from crate_interp.commands.published import published_maskcut
from crate_interp.commands.segment_page import count_masks, segment_sections
from crate_interp.commands.segmenter_choice import (
    SegmenterReading,
    method_of,
    method_option,
    method_variants,
    read_for_segmenter,
)
from crate_interp.data.built_in import built_in_choices
from crate_interp.data.export import EXPORTS
from crate_interp.errors import InputError, counted
from crate_interp.options import option, with_options_of
from crate_interp.options.choices import Refine
from crate_interp.options.ranges import Natural
from crate_interp.runs.command import Command
from crate_interp.runs.journal import Entry, JournalEntry
from crate_interp.runs.options import PLACES, FeatureOptions
from crate_interp.runs.outputs import Conclusion, Drawing, Json, Output, Picture, Text
from crate_interp.runs.picture_names import file_stems
from crate_interp.segmentation.segmenter import SEGMENTERS, Segmenter, image_name

if TYPE_CHECKING:
    from crate_interp.data import ExportedImage, ImageSet, ResizedImage
    from crate_interp.engine import StageClock
    from crate_interp.evaluation import ImageMatches
    from crate_interp.runs.finished_run import Comparable, FinishedRun
    from crate_interp.runs.run import Run, SeenImage
    from crate_interp.structures import Activations, Instances

__all__ = ["Segment", "SegmentCommand"]

SHEET_PICTURES = 16
SHEET_SIDE = 1024  # longest side of an image on the sheet, pixels


class _Rle(TypedDict):
    size: tuple[int, int]
    counts: str


class _Result(TypedDict):
    image_id: int
    category_id: int
    segmentation: _Rle
    bbox: tuple[float, float, float, float]
    score: float


class _Entry(JournalEntry):
    hw: tuple[int, int]
    results: list[_Result]


@dataclass(frozen=True, kw_only=True)
class SegmentCommand(FeatureOptions, ByBlockCommand):
    """A command that segments images; its subclasses say by which segmenter."""

    entry: ClassVar[type] = _Entry
    run_folder: ClassVar[bool] = True
    timed: ClassVar[bool] = True
    method: ClassVar[str]
    title: ClassVar[str]  # name of the segmenter in figures

    coco: str | None = option(
        f"COCO split (val2017), or a built-in set: {built_in_choices()}", None
    )
    coco_root: Path | None = option(
        "folder of the COCO splits and annotations", None, presentation=True
    )
    images: list[str] | None = option(
        f"{PLACES}; instead of --coco",
        None,
        several=str,
        metavar="PATH",
        presentation=True,
    )
    recursive: bool = option("search the folders in the folders, too", False, presentation=True)
    annotations: Path | None = option(
        "COCO annotations of --images, to score against", None, presentation=True
    )
    output: Path | None = option(
        "run folder (default: runs/METHOD-MODEL-DATA)", None, presentation=True
    )
    refine: Refine = option(
        "refinement at input resolution; pydensecrf needs the extra crf", "none"
    )
    visualize: Natural = option(
        "draw overlays of the first images, and a sheet of them", 16, presentation=True
    )
    export: list[str] = option(
        "formats of the masks, for other tools: coco (annotations.json; CVAT reads it), yolo "
        "(yolo/), labelme (labelme/), label-studio (label-studio/), png (masks/), parquet "
        "(masks.parquet), or another package's",
        ["coco"],
        several=str,
        presentation=True,
    )
    strict: bool = option("stop at the first image that cannot be read", False, presentation=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.export:
            EXPORTS[name]  # refuses what there is not
        if (self.coco is None) == (self.images is None):
            raise InputError("give either --coco SPLIT or --images DIR_OR_FILES")
        if self.annotations is not None and self.images is None:
            raise InputError("--annotations goes with --images; --coco brings its own")

    def open_images(self) -> ImageSet:
        """Open a split of COCO, or files and folders; what cannot be scored is refused now."""
        if self.coco is not None:
            images = data.open_coco(self.coco, self.coco_root)
        else:
            images = data.open_images(self.images or (), self.annotations, self.recursive)
        if images.annotations is not None:
            for iou_type in _iou_types(images.annotations):
                evaluation.prepare_ground_truth(images.annotations, iou_type, class_agnostic=True)
        return images if self.limit is None else images.limit(self.limit)

    def reading(self, run: Run) -> SegmenterReading:
        """Read what the segmenter asks for."""
        return read_for_segmenter(self, self.method, run)

    def forward(
        self, run: Run, images: Sequence[ResizedImage], stage: StageClock
    ) -> Iterable[Activations | Instances]:
        """Record a batch; a GPU cuts it together, a CPU leaves that to threads."""
        recorded = list(super().forward(run, images, stage))
        segmenter: Segmenter = run.reading.segmenter
        if not _are_cut_together(recorded):
            return recorded
        with stage("cut"):
            return segmenter.together(recorded, run.observer.geometry(images[0].original_hw))

    def measure(
        self, run: Run, image: SeenImage, output: Activations | Instances
    ) -> dict[str, Any]:
        """Segment an image, refine its masks, and bring them to its own pixels."""
        name = str(image.record.path)
        image_name.set(name)
        if not isinstance(output, structures.Instances):
            with image.stage("cut"):
                instances: Instances = run.reading.segmenter(output, image.geometry)
        else:
            instances = output
        with image.stage("refine"):
            device = run.observer.device
            instances = segmentation.on_original(
                instances, image.geometry, image.rgb, self.refine, device, name
            )
        with image.stage("encode"):
            results = data.results_of(instances, image.record.image_id)
        return {"hw": image.geometry.original_hw, "results": results}

    def conclude(self, run: Run) -> Conclusion:
        """Score the masks, and write them as COCO results, as annotations and as overlays."""
        matches = _match(run.images, run.entries)
        scores = {name: evaluation.average_precision(match) for name, match in matches.items()}
        published = self._published(run)
        masks = count_masks(run.entries)
        count = sum(masks.by_image)
        summary = {
            "average_precision": {name: asdict(score) for name, score in scores.items()},
            "images": len(run.entries),
            "masks": count,
            "published": published,
            "ground_truth": _ground_truth(run.images),
        }
        title = f"{self.title}, {run.settings['model']} on {run.images.name}"
        text = f"{counted(len(run.entries), 'image')}, {counted(count, 'mask')}"
        if scores:
            name, score = list(scores.items())[-1]
            title += f": {name} AP50 {100 * score.AP50:.1f}, AP {100 * score.AP:.1f}"
            text = evaluation.format_table(scores["box"], scores.get("mask")) + "\n" + text
        sections = segment_sections(run, masks, matches, scores, published)
        return Conclusion(self._outputs(run, matches, title), text, summary, sections)

    @classmethod
    def compared(cls, run: FinishedRun) -> Comparable:
        """Give AP, with the matches of each image."""
        from crate_interp.files import is_file, read_json_as

        path = run.place / "matches.json"
        matches = read_json_as(path, dict[str, Any]) if is_file(path) else {}
        return comparable_ap(run, matches, str(path))

    def _published(self, run: Run) -> dict[str, Any] | None:
        """Published numbers of MaskCut as the papers ran it, by metric, as shares of 1."""
        from crate_interp.runs.inference import release_of

        release = release_of(self, run.provenance["weights"]["sha256"])
        known = published_maskcut(release, run.images.name, len(run.images))
        if known is None or self.method != "maskcut" or self.refine != "none":
            return None
        values = {metric: value / 100 for metric, value in known[0].items()}
        return {**values, "source": known[1]}

    def _outputs(
        self, run: Run, matches: Mapping[str, Sequence[ImageMatches]], title: str
    ) -> Iterator[Output]:
        yield Text("results.json", partial(_write_results, run.entries))
        if matches:
            names = {record.image_id: record.file_name for record in run.images.records}
            in_order = [names[image_id] for image_id in sorted(names)]
            yield Json("matches", kept_matches(matches, in_order))
        masks = f"{self.title} masks of {run.images.name}"
        for name in self.export:
            for file, content in EXPORTS[name]().files(_Exported(run.entries), masks):
                yield Text(file, content)
        shown = run.entries[: self.visualize]
        ids = {entry["image_id"] for entry in shown}
        records = {
            record.image_id: record for record in run.images.records if record.image_id in ids
        }
        stems = file_stems([entry["file_name"] for entry in shown], {"sheet"})
        drawn: list[Any] = []
        captions: list[str] = []
        for stem, entry in zip(stems, shown, strict=True):
            instances = data.instances_of(entry["results"], entry["hw"])
            rgb = records[entry["image_id"]].read()
            picture = visualization.draw_instances(rgb, instances)
            yield Picture(f"images/{stem}", picture)
            if len(drawn) < SHEET_PICTURES:
                drawn.append(data.shrunk(picture, SHEET_SIDE))
                count = f"{len(instances)} mask{'s' * (len(instances) != 1)}"
                captions.append(f"{entry['file_name']}: {count}")
        if drawn:
            sheet = visualization.overlay_sheet(drawn, captions, title, width=self.width_inches)
            yield Drawing("images/sheet", sheet)


@dataclass(frozen=True, kw_only=True)
class Segment(SegmentCommand):
    """Find objects by any segmenter, and score them.

    `crate-interp segment --method NAME --help` lists the options of a segmenter.
    """

    group: ClassVar[str] = "find masks"

    variants = staticmethod(method_variants)

    @classmethod
    def kind_for(cls, arguments: Sequence[str]) -> type[Command]:
        """Add the options of the segmenter that `--method`, or the file of `--config`, names."""
        name = method_of(arguments)
        return with_options_of(cls, [SEGMENTERS[name]], [method_option("maskcut")], title=name)


def _iou_types(annotations: Mapping[str, Any]) -> dict[Any, str]:
    """Kinds of scores that a ground truth allows, and their names in the summary."""
    has_masks = evaluation.has_masks(annotations)
    return {"bbox": "box", "segm": "mask"} if has_masks else {"bbox": "box"}


def _are_cut_together(recorded: Sequence[Activations]) -> bool:
    """Whether a batch is for a GPU to cut; not one that has a NaN: the others of it are to go on.

    Asking waits for the model, so that the seconds of a stage are its own.
    """
    if len({of_image.grid_hw for of_image in recorded}) > 1:
        return False
    tensors = [tensor for of_image in recorded for tensor in of_image.values()]
    return all(tensor.is_cuda and bool(tensor.isfinite().all()) for tensor in tensors)


def _match(images: ImageSet, entries: Iterable[Entry]) -> dict[str, list[ImageMatches]]:
    """Match boxes and masks; images that could not be read count as images without a mask."""
    if images.annotations is None:
        return {}
    results = list(_results_of(entries))
    match = partial(
        evaluation.image_matches,
        images.annotations,
        results,
        image_ids=[record.image_id for record in images.records],
    )
    types = _iou_types(images.annotations).items()
    return {name: match(iou_type=iou_type) for iou_type, name in types}


def _ground_truth(images: ImageSet) -> dict[str, str] | None:
    """Name the annotation file, and give its checksum, for those who score the run again."""
    source = images.records[0].source
    if source is None:
        return None
    return {"file": str(source.resolve()), "sha256": files.checksum_of(files.read_bytes(source))}


def _results_of(entries: Iterable[Entry]) -> Iterator[dict[str, Any]]:
    return (result for entry in entries for result in entry["results"])


def _write_results(entries: Iterable[Entry], file: IO[bytes]) -> None:
    from crate_interp.files import write_json_pieces  # not for --help

    write_json_pieces(file, _results_of(entries))


@dataclass(frozen=True)
class _Exported:
    """Images of entries, made anew each time that they are gone through."""

    entries: Iterable[Entry]

    def __iter__(self) -> Iterator[ExportedImage]:
        for entry in self.entries:
            yield data.ExportedImage(
                entry["image_id"], entry["file_name"], entry["hw"], entry["results"]
            )
