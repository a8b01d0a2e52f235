"""Heads or atoms, ranked by what silencing each of them changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from crate_interp import analysis, hooks, models, visualization
from crate_interp.errors import InputError, counted
from crate_interp.files import checksum_of
from crate_interp.options import option
from crate_interp.options.choices import BatchSize
from crate_interp.options.ranges import Index, Natural
from crate_interp.runs.command import ImageFilesCommand, Reading
from crate_interp.runs.outputs import Arrays, Conclusion, Drawing, Table

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from crate_interp.data import ResizedImage
    from crate_interp.engine import StageClock
    from crate_interp.hooks import Observer, Site
    from crate_interp.runs.run import Run, SeenImage
    from crate_interp.visualization import Figure

    Effects = Float[np.ndarray, "I R"]
    Units = Int[np.ndarray, "R 2"]
    # Measures one image: a row of effects per block, and the number of the class.
    Measure = Callable[[Run, Tensor], tuple[Iterable[Tensor], int]]

__all__ = ["Ablate"]

RANKED = 10  # heads or atoms that are printed
_NO_CLASS = -1


@dataclass(kw_only=True)
class _Reading(Reading):
    """Heads or atoms to silence.

    Attributes:
        site: Site of the heads or atoms.
        units: Heads or atoms to silence: number of the block, and number in the block.
        count: Number of heads or atoms that there are in the blocks.
        estimate: Estimates by which `units` were chosen, mean over the images; `None` for all.
    """

    site: Site
    units: Units
    count: int
    estimate: Float[np.ndarray, " R"] | None = None


@dataclass(frozen=True, kw_only=True)
class Ablate(ImageFilesCommand):
    """Silence heads or atoms one by one; rank what changes."""

    group: ClassVar[str] = "look inside"
    one_by_one: ClassVar[bool] = True

    batch_size: BatchSize = option(
        "heads or atoms in a forward pass, each silenced in a copy of the image (auto: by tokens "
        "and memory)",
        "auto",
    )
    output: Path = option(
        "folder: figure, ranking (CSV), numbers of each image (npz)", presentation=True
    )
    target: Literal["heads", "atoms"] = option(
        "what to silence; atoms are sparse codes, for ViTs the neurons of the MLP", "heads"
    )
    block: Index | Literal["all"] = option("from 0; negative counts from the last", "all")
    effect: Literal["logit", "mask"] = option(
        "what may change: the score of a class, or the mask of MaskCut's first object (1 - IoU)",
        "logit",
    )
    class_: Index | None = option("number of the class (default: the predicted one)", None)
    measured: Natural = option(
        "atoms to silence: so many of the largest first-order estimate (--effect logit) or of the "
        "largest written energy (--effect mask), mean over the images; 0: all",
        100,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.class_ is not None and self.effect == "mask":
            raise InputError("--class goes with --effect logit; a mask has no class")

    def load_observer(self) -> Observer:
        """Load the model, in float32 by default: fewer bits would lose small differences."""
        from crate_interp.runs.inference import load_observer

        return load_observer(
            replace(self, precision="float32") if self.precision == "auto" else self
        )

    def reading(self, run: Run) -> _Reading:
        """List the heads or atoms, and refuse a block or a class that the model does not have."""
        model = run.observer.model
        site = hooks.Site.HEADS if self.target == "heads" else hooks.atom_site(model)
        units = self._all_units(run, site)
        if self.effect == "logit":
            hooks.check_classifier(model, self.class_)
        return _Reading(site=site, units=units, count=len(units))

    def collect(self, run: Run) -> None:
        """Measure the units; of many atoms, those of the largest estimates, after another pass."""
        units = run.reading.units
        if self.target == "atoms" and 0 < self.measured < len(units):
            entries = run.each(self.measure, partial(self._each, self._estimates), "estimates")
            if not entries:
                return
            estimate = np.mean([entry["effects"] for entry in entries], axis=0)
            rows = np.sort(np.argsort(-np.abs(estimate), kind="stable")[: self.measured])
            run.reading = replace(run.reading, units=units[rows], estimate=estimate[rows])
        # An image that failed before may be there when a stopped run goes on, and change the
        # choice: effects of other units are not mixed with those of these.
        checksum = checksum_of(run.reading.units.tobytes())
        run.each(self.measure, name=f"effects-{checksum[:16]}")

    def forward(self, run: Run, images: Sequence[ResizedImage], stage: StageClock) -> Iterable[Any]:
        """Silence the units in one image; several ablations of it are a batch."""
        return self._each(self._effects, run, images, stage)

    def measure(self, run: Run, image: SeenImage, output: Any) -> Mapping[str, Any]:
        """Keep the numbers of one image, or let it fail."""
        if isinstance(output, InputError):
            raise output
        effects, number = output
        return {"effects": effects, "class": np.array(number)}

    def conclude(self, run: Run) -> Conclusion:
        """Rank the units by their mean effect."""
        effects = np.stack([entry["effects"] for entry in run.entries])
        units, estimate = run.reading.units, run.reading.estimate
        columns = {
            f"{self.effect}_effect": effects.mean(axis=0),
            "deviation": effects.std(axis=0),
        }
        arrays = {
            "file_names": np.array([entry["file_name"] for entry in run.entries]),
            "block": units[:, 0],
            self._unit: units[:, 1],
            "effects": effects,
        }
        if self.effect == "logit":
            arrays["classes"] = np.stack([entry["class"] for entry in run.entries])
        if estimate is not None:
            arrays["estimate"] = columns["estimate"] = estimate
        ranking = np.argsort(-np.abs(effects.mean(axis=0)), kind="stable")
        rows = [
            [rank, *units[row], *(f"{values[row]:.6g}" for values in columns.values())]
            for rank, row in enumerate(ranking, start=1)
        ]
        table = Table("ablation", ("rank", "block", self._unit, *columns), rows)
        drawing = Drawing("ablation", self._figure(run, effects, ranking))
        text = self._describe(run.reading, effects, ranking)
        return Conclusion([drawing, table, Arrays("ablation", arrays)], text)

    @property
    def _unit(self) -> str:
        return self.target.removesuffix("s")

    def _all_units(self, run: Run, site: Site) -> Units:
        """Heads or atoms of the blocks that are asked for."""
        model = run.observer.model
        count = len(hooks.blocks_of(model))
        usable = range(count - 1 if self.effect == "mask" else count)
        blocks = list(usable)
        if self.block != "all":
            hooks.available_sites(model, self.block)  # refuses a block that there is not
            blocks = [self.block % count]
        if not blocks or blocks[0] not in usable:
            raise InputError(
                f"block {self.block}: expected 0 to {count - 2}; the mask is read where block "
                f"{count - 1} projects, before its own heads and atoms"
            )
        return np.array(
            [
                (block, number)
                for block in blocks
                for number in range(hooks.count_units(model, site, block))
            ]
        )

    def _each(
        self, measure: Measure, run: Run, images: Sequence[ResizedImage], stage: StageClock
    ) -> Iterable[Any]:
        """Effects on one image, and the class; or why there are none, for `measure` to raise."""
        import torch

        observer = run.observer
        resolution = hooks.any_resolution(observer.model, observer.stride)
        try:
            with stage("forward"), resolution, torch.inference_mode():
                effects, number = measure(run, observer.pixels([images[0].rgb]))
                return [(torch.cat(list(effects)).cpu().double().numpy(), number)]
        except InputError as error:
            return [error]

    def _estimates(self, run: Run, pixels: Tensor) -> tuple[Iterable[Tensor], int]:
        """First-order effects on the score of the class, or written energies."""
        model, site = run.observer.model, run.reading.site
        blocks = [block for block, _ in _by_block(run.reading.units)]
        if self.effect == "mask":
            with hooks.record(model, [site], blocks) as recorder:
                model(pixels)
            codes = recorder.activations
            rows = [analysis.written_energy(model, codes[site, block], block) for block in blocks]
            return rows, _NO_CLASS
        number = int(hooks.choose_classes(model(pixels), self.class_)[0])
        return analysis.estimate_logit_effects(model, pixels, number, site, blocks), number

    def _effects(self, run: Run, pixels: Tensor) -> tuple[Iterable[Tensor], int]:
        """Effects of the units, each silenced alone."""
        model, site, at_once = run.observer.model, run.reading.site, run.settings["batch_size"]
        groups = list(_by_block(run.reading.units))
        with models.inference_precision(run.observer.precision, model):
            if self.effect == "mask":
                masks = [analysis.mask_effects(model, pixels, site, *of, at_once) for of in groups]
                return masks, _NO_CLASS
            blocks = [block for block, _ in groups]
            with hooks.record(model, [hooks.Site.TOKENS_IN], blocks) as recorder:
                number = int(hooks.choose_classes(model(pixels), self.class_)[0])
            tokens = recorder.activations
            return [
                analysis.logit_effects(model, tokens, number, site, *of, at_once) for of in groups
            ], number

    def _figure(self, run: Run, effects: Effects, ranking: Int[np.ndarray, " R"]) -> Figure:
        from crate_interp.runs.class_names import class_names_of, name_class

        logit, model = self.effect == "logit", run.settings["model"]
        what = "drop of the class score" if logit else "change of the mask (1 − IoU)"
        label = f"{what} without the {self._unit}, mean of {counted(len(effects), 'image')}"
        if self.class_ is not None:
            count = int(getattr(run.observer.model, "num_classes", 0))
            label += f", {name_class(self.class_, class_names_of(self, count))}"
        units = run.reading.units
        if self.target == "heads":
            blocks = np.unique(units[:, 0]).tolist()
            matrix = effects.mean(axis=0).reshape(len(blocks), -1)
            return visualization.head_effects_figure(
                matrix, blocks, label, logit, model, self.width_inches
            )
        names = [f"block {block}  atom {number}" for block, number in units[ranking]]
        note = model
        if len(units) < run.reading.count:
            by = "first-order estimate" if logit else "written energy"
            note += f" · {len(units)} of {run.reading.count} atoms silenced, of the largest {by}"
        return visualization.atom_effects_figure(
            effects[:, ranking], names, label, note, self.width_inches
        )

    def _describe(self, reading: _Reading, effects: Effects, ranking: Int[np.ndarray, " R"]) -> str:
        """The first of the ranking, how good the estimate was, and how much was measured."""
        mean, deviation = effects.mean(axis=0), effects.std(axis=0)
        head = f"{self.effect} effect"
        lines = [f"{'block':>5} {self._unit:>6} {head:>13} {'deviation':>10}"]
        for row in ranking[:RANKED]:
            block, number = reading.units[row]
            lines.append(f"{block:5d} {number:6d} {mean[row]:13.4f} {deviation[row]:10.4f}")
        if reading.estimate is not None and self.effect == "logit":
            correlation = np.corrcoef(reading.estimate, mean)[0, 1]
            lines.append(f"first-order estimate and measurement: correlation {correlation:.3f}")
        return "\n".join(
            [*lines, f"{counted(len(effects), 'image')}, {counted(len(reading.units), 'unit')}"]
        )


def _by_block(units: Units) -> Iterator[tuple[int, list[int]]]:
    """Numbers of the blocks, and the numbers of the units in each."""
    for block in np.unique(units[:, 0]).tolist():
        yield block, units[units[:, 0] == block, 1].tolist()
