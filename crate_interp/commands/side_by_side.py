"""The masks that several models find in the same images, as one figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from crate_interp import data, segmentation, visualization, weights
from crate_interp.commands.segmenter_choice import (
    SegmenterReading,
    method_of,
    method_option,
    method_variants,
    read_for_segmenter,
)
from crate_interp.errors import InputError
from crate_interp.options import option, with_options_of
from crate_interp.options.choices import Refine
from crate_interp.runs.command import Command
from crate_interp.runs.journal import JournalEntry
from crate_interp.runs.outputs import Conclusion, Drawing, Output, Table
from crate_interp.runs.several_models import SeveralModelsCommand
from crate_interp.segmentation.segmenter import SEGMENTERS, image_name

if TYPE_CHECKING:
    from crate_interp.runs.run import Run, SeenImage
    from crate_interp.structures import Activations

__all__ = ["SideBySide"]

SHOWN = 16  # images across the figure; the numbers are of all
PICTURE_SIDE = 480  # longest side of an image in the figure, pixels


class _Entry(JournalEntry):
    areas: list[float]


@dataclass(frozen=True, kw_only=True)
class SideBySide(SeveralModelsCommand):
    """Draw the masks of several models, images across.

    `crate-interp side-by-side --method NAME --help` lists the options of a segmenter.
    """

    group: ClassVar[str] = "find masks"
    output_is_file: ClassVar[bool] = True
    entry: ClassVar[type] = _Entry
    method: ClassVar[str]

    refine: Refine = option(
        "refinement at input resolution; pydensecrf needs the extra crf", "none"
    )
    untrained: bool = option("show the first model with random weights as well", False)
    output: Path = option("the figure, NAME.png; a CSV goes with it", presentation=True)

    variants = staticmethod(method_variants)

    @classmethod
    def kind_for(cls, arguments: Sequence[str]) -> type[Command]:
        """Add the options of the segmenter that `--method` names."""
        kind = SEGMENTERS[method_of(arguments, "tokencut")]
        return with_options_of(cls, [kind], [method_option("tokencut")])

    def check(self) -> None:
        """Refuse a file as the model whose weights are to be random."""
        first = self.model.split(",")[0]
        if self.untrained and weights.names_a_file(first):
            raise InputError(
                f"untrained: expected the name of a model first, found the weight file {first}"
            )
        super().check()

    def parts(self) -> Sequence[SeveralModelsCommand]:
        """One command for each model."""
        models = super().parts()
        return [*models, replace(models[0], weights=Path("random"))] if self.untrained else models

    def reading(self, run: Run) -> SegmenterReading:
        """Read what the segmenter asks for, and the pictures that are shown."""
        return read_for_segmenter(self, self.method, run, SHOWN)

    def measure(self, run: Run, image: SeenImage, output: Activations) -> Mapping[str, Any]:
        """Segment an image; keep the shares of its masks, and the picture with them on it."""
        image_name.set(str(image.record.path))
        instances = segmentation.on_original(
            run.reading.segmenter(output, image.geometry),
            image.geometry,
            image.rgb,
            self.refine,
            run.observer.device,
            str(image.record.path),
        )
        entry: dict[str, Any] = {"areas": instances.masks.mean(axis=(1, 2)).tolist()}
        if image.picture is not None:
            drawn = visualization.draw_instances(image.picture, instances)
            entry["picture"] = data.shrunk(image.picture, PICTURE_SIDE)
            entry["drawn"] = data.shrunk(drawn, PICTURE_SIDE)
        return entry

    def conclude(self, run: Run) -> Conclusion:
        """Draw one row for each model, and write the areas of all masks."""
        lines = []
        for part in run.parts:
            cut = sum(bool(entry["areas"]) for entry in part.entries)
            lines.append(f"{part.settings['model']}: masks in {cut} of {len(part.entries)} images")
        return Conclusion(_outputs(run), "\n".join(lines))


def _outputs(run: Run) -> Iterator[Output]:
    pictured = [{entry["image_id"]: entry for entry in part.pictured} for part in run.parts]
    # An image that failed with one model has no place in a figure that compares them.
    common = [number for number in pictured[0] if all(number in of_part for of_part in pictured)]
    if common:
        settings = run.settings
        note = [f"{settings['method']}, block {settings['block']}, {run.observer.size} px"]
        if settings["refine"] != "none":
            note.append(f"refined by {settings['refine']}")
        if len(common) < len(run.images):
            note.append(f"{len(common)} of {len(run.images)} images")
        rows = [[visualization.Panel(pictured[0][number]["picture"]) for number in common]]
        rows += [[_panel(of_part[number]) for number in common] for of_part in pictured]
        names = ["image", *(str(part.settings["model"]) for part in run.parts)]
        figure = visualization.Grid(rows, names).draw(
            note=" · ".join(note), width=run.command.width_inches
        )
        yield Drawing(run.stem, figure)
    lines = (
        (part.settings["model"], entry["file_name"], number, area)
        for part in run.parts
        for entry in part.entries
        for number, area in enumerate(entry["areas"] or [0.0])
    )
    yield Table(run.stem, ("model", "image", "mask", "area"), lines)


def _panel(entry: Mapping[str, Any]) -> visualization.Panel:
    return visualization.Panel(entry["drawn"], caption="" if entry["areas"] else "no mask")
