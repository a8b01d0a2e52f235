"""What heads attend to, as figures and numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from crate_interp import data, hooks, segmentation
from crate_interp.commands.attention_figure import (
    FIGURES,
    AttendedImage,
    AttentionFigure,
    AttentionReading,
)
from crate_interp.errors import InputError
from crate_interp.options import option, part_of, with_options_of
from crate_interp.options.choices import KeepBy
from crate_interp.options.numbers import pixel_of
from crate_interp.options.ranges import Index, Share
from crate_interp.runs.command import Command, ImageFilesCommand
from crate_interp.runs.journal import JournalEntry
from crate_interp.runs.outputs import Arrays, Conclusion
from crate_interp.runs.picture_names import file_stems

if TYPE_CHECKING:
    from crate_interp.runs.run import Run, SeenImage
    from crate_interp.structures import Activations

__all__ = ["Attention"]

PICTURE_HEIGHT = 480  # of figures, pixels


class _Entry(JournalEntry):
    hw: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Attention(ImageFilesCommand):
    """Draw what heads attend to; measure how far they look."""

    group: ClassVar[str] = "look inside"
    entry: ClassVar[type] = _Entry
    one_grid: ClassVar[str] = "figures and curves put the maps of all images on one grid"

    output: Path = option("folder of the figures and their numbers (npz, CSV)", presentation=True)
    figure: list[str] = option("figures to draw", ["heads"], several=str)
    block: Index = option("block to read, from 0; negative counts from the last", -1)
    head: Literal["all", "mean"] | Index = option(
        "of heads and layers: each head, their mean, or one head, from 0", "all"
    )
    patch: str | None = option(
        "Y,X: attention of the patch at this pixel of the original image, not of the class token",
        None,
        also=["query"],
    )
    threshold: Share = option("share that a mask keeps", 0.6)
    threshold_by: KeepBy = option(
        "what is shared out: the mass of attention (DINO) or the patches (CRATE)", "mass"
    )

    @classmethod
    def kind_for(cls, arguments: Sequence[str]) -> type[Command]:
        """Add the options of all figures, and their names to `--figure`."""
        del arguments
        kinds = {name: FIGURES[name] for name in FIGURES.names()}
        names: Any = Literal[tuple(kinds)]
        help_text = "; ".join(f"{name}: {kind.summary}" for name, kind in kinds.items())
        figure = "figure", list[names], option(help_text, ["heads"], several=names)
        return with_options_of(cls, [*kinds.values()], [figure])

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.figure:
            raise InputError("figure: expected at least one, found none")
        self._figures()
        self._pixel_yx()

    def reading(self, run: Run) -> AttentionReading:
        """Read the queries and keys that the figures need, if the model has them."""
        block, num_heads, num_blocks = self._check_model(run)
        figures = self._figures()
        for name, figure in figures.items():
            # Of a figure that is not drawn, options that were given are checked all the same.
            if name in self.figure or figure != type(figure)():
                figure.check(len(run.images), num_blocks, num_heads)
        drawn = [figures[name] for name in dict.fromkeys(self.figure)]
        taken = {name for figure in figures.values() for name in figure.files}
        records = run.images.records
        stems = file_stems([record.file_name for record in records], taken)
        every_block = any(figure.every_block for figure in drawn)
        return AttentionReading(
            [hooks.Site.QUERY, hooks.Site.KEY],
            range(num_blocks) if every_block else [block],
            pictures=max(figure.pictures for figure in drawn),
            figures=drawn,
            block=block,
            pixel_yx=self._pixel_yx(),
            head=self.head,
            stems={record.image_id: stem for record, stem in zip(records, stems, strict=True)},
        )

    def measure(self, run: Run, image: SeenImage, output: Activations) -> Mapping[str, Any]:
        """Keep maps, masks, what the figures measure, and the picture that they show."""
        import torch

        try:
            attended = AttendedImage(output, image, run.reading)
        except InputError as error:
            raise InputError(f"{image.record.path}: patch: {error}") from error
        maps = attended.maps_of_heads(run.reading.block)
        masks = segmentation.attention_masks(
            torch.from_numpy(maps).flatten(1), self.threshold_by, self.threshold
        )
        height, width = image.geometry.original_hw
        entry: dict[str, Any] = {"hw": (height, width), "maps": maps}
        entry["masks"] = masks.numpy().reshape(maps.shape)
        for figure in run.reading.figures:
            entry |= figure.measure(attended)
        if image.picture is not None:
            shown_hw = PICTURE_HEIGHT, max(1, round(PICTURE_HEIGHT * width / height))
            entry["picture"] = data.resize_image(image.picture, shown_hw)
        return entry

    def conclude(self, run: Run) -> Conclusion:
        """Draw the figures, and write the numbers of each image."""
        drawn = [figure.conclude(run) for figure in run.reading.figures]
        text = "\n".join(conclusion.text for conclusion in drawn if conclusion.text)
        outputs = (conclusion.outputs for conclusion in drawn)
        return Conclusion(chain(*outputs, _numbers(run)), text)

    def _figures(self) -> dict[str, AttentionFigure]:
        """All figures, with their options, by name."""
        return {name: part_of(self, FIGURES[name]) for name in FIGURES.names()}

    def _pixel_yx(self) -> tuple[int, int] | None:
        return None if self.patch is None else pixel_of("patch", self.patch)

    def _check_model(self, run: Run) -> tuple[int, int, int]:
        """Refuse a model without what is read; give block, its number of heads, and of blocks."""
        model = run.observer.model
        sites = hooks.available_sites(model, self.block)
        if hooks.Site.QUERY not in sites:
            raise InputError(
                f"{self.model}: no attention can be read at block {self.block}; it has "
                f"{', '.join(site.value for site in sites)}"
            )
        if hooks.Site.CLS_ATTENTION not in sites and self.patch is None:
            raise InputError(
                f"{self.model}: expected a model with a class token, found none; give --patch Y,X, "
                "a pixel of the image, for the attention of the patch there"
            )
        num_blocks = len(hooks.blocks_of(model))
        block = self.block % num_blocks
        num_heads = hooks.count_units(model, hooks.Site.HEADS, block)
        if not isinstance(self.head, str) and not 0 <= self.head < num_heads:
            raise InputError(
                f"head {self.head} is out of range: the model has heads 0 to {num_heads - 1}"
            )
        return block, num_heads, num_blocks


def _numbers(run: Run) -> Iterator[Arrays]:
    figures: Sequence[AttentionFigure] = run.reading.figures
    names = dict.fromkeys(["maps", "masks", *(name for own in figures for name in own.numbers)])
    for entry in run.entries:
        yield Arrays(run.reading.stems[entry["image_id"]], {name: entry[name] for name in names})
