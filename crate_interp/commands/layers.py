"""Compression and sparsity of the blocks of models, as curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from crate_interp import analysis, hooks, visualization
from crate_interp.options import option
from crate_interp.runs.command import Reading
from crate_interp.runs.journal import JournalEntry
from crate_interp.runs.outputs import Conclusion, Drawing, Table
from crate_interp.runs.several_models import SeveralModelsCommand

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import nn

    from crate_interp.runs.run import Run, SeenImage
    from crate_interp.structures import Activations
    from crate_interp.visualization import CurvePanel

    Numbers = dict[str, Float[np.ndarray, "B L"]]

__all__ = ["Layers"]


class _Entry(JournalEntry, total=False):
    coding_rate: list[float]
    sparsity: list[float]
    objective: list[float]


# What is measured, and its title in the figure, which has non-zeros as the papers do.
QUANTITIES = {
    "coding_rate": "Compression: coding rate Rᶜ (nats)",
    "sparsity": "Sparsity: non-zero codes ‖A‖₀ / (d N) (%)",
    "objective": "Objective: R − Rᶜ − λ ‖A‖₀ / N (nats)",
}
COLUMNS = ("model", "image", "block", "compressed", "coding_rate", "counted", "sparsity")


@dataclass
class _Reading(Reading):
    """Sites read of a model, and its thresholds λ in words; empty for a model without."""

    thresholds: str = ""


@dataclass(frozen=True, kw_only=True)
class Layers(SeveralModelsCommand):
    """Measure compression and sparsity of each block.

    These, and both at once, are what a white box optimises.
    """

    group: ClassVar[str] = "look inside"
    output_is_file: ClassVar[bool] = True
    entry: ClassVar[type] = _Entry

    output: Path = option("the figure, NAME.png; a CSV goes with it", presentation=True)

    def reading(self, run: Run) -> _Reading:
        """Read what the objective takes, of all blocks."""
        model = run.observer.model
        blocks = range(len(hooks.blocks_of(model)))
        return _Reading(analysis.objective_sites(model), blocks, thresholds=_thresholds_of(model))

    def measure(self, run: Run, image: SeenImage, output: Activations) -> Mapping[str, Any]:
        """Measure the blocks on one image."""
        objective = analysis.layer_objective(run.observer.model, output)
        values = {name: getattr(objective, name) for name in QUANTITIES}
        return {name: value[0].tolist() for name, value in values.items() if value is not None}

    def conclude(self, run: Run) -> Conclusion:
        """Draw the curves of all models, and write the numbers of each image and block."""
        measured = [(part, _numbers_of(part)) for part in run.parts]
        images = min(len(part.entries) for part in run.parts)
        x_label = f"block (band: standard deviation of {images} images)" if images > 1 else "block"
        panels, note = _panels_of(measured), _note_of(run.parts)
        figure = visualization.draw_curves(panels, x_label, note, self.width_inches)
        columns = (*COLUMNS, "objective")
        rows = ([row.get(name, "") for name in columns] for row in _rows_of(measured))
        lines = [
            f"{part.settings['model']}: {_first_and_last(part, name, values)}"
            for part, numbers in measured
            for name, values in numbers.items()
        ]
        table = Table(run.stem, columns, rows)
        return Conclusion([Drawing(run.stem, figure), table], "\n".join(lines))


def _first_and_last(run: Run, name: str, values: Float[np.ndarray, "B L"]) -> str:
    """Say what a quantity is in the first block and in the last; of codes, what is not zero."""
    unit = ""
    if name == "sparsity":
        name = "neurons above zero" if "neurons" in _sites_of(run) else "codes that are not zero"
        values, unit = 100 * (1 - values), " %"
    first, last = (_mean_and_deviation(values)[0][block] for block in (0, -1))
    return f"{name} {first:.4g}{unit} in the first block, {last:.4g}{unit} in the last"


def _sites_of(run: Run) -> list[str]:
    """Names of the sites that were read."""
    return [hooks.Site(site).value for site in run.reading.sites]


def _thresholds_of(model: nn.Module) -> str:
    atoms = [hooks.anatomy_at(model, block).atoms for block in range(len(hooks.blocks_of(model)))]
    thresholds = {one.threshold for one in atoms if one is not None and one.threshold is not None}
    return ", ".join(f"{value:g}" for value in sorted(thresholds))


def _numbers_of(run: Run) -> Numbers:
    """Quantities that the model has, one row per image, one column per block."""
    names = [name for name in QUANTITIES if name in run.entries[0]]
    return {name: np.array([entry[name] for entry in run.entries]) for name in names}


def _panels_of(measured: Sequence[tuple[Run, Numbers]]) -> list[CurvePanel]:
    """One panel for each quantity that some model has."""
    panels = []
    for quantity, title in QUANTITIES.items():
        curves = []
        for run, numbers in measured:
            if quantity in numbers:
                values = numbers[quantity]
                if quantity == "sparsity":
                    values = 100 * (1 - values)
                mean, deviation = _mean_and_deviation(values)
                x = np.arange(len(mean), dtype=float)
                label = _label_of(run)
                curves.append(visualization.Curve(label, x, mean[:, None], deviation[:, None]))
        if curves:
            panels.append(visualization.CurvePanel(title, curves))
    return panels


def _note_of(runs: Sequence[Run]) -> str:
    """Meanings of the symbols in the titles."""
    note = "N: tokens of an image. R, Rᶜ: coding rate of all tokens, and in the heads' subspaces."
    thresholds = {
        run.settings["model"]: run.reading.thresholds for run in runs if run.reading.thresholds
    }
    if thresholds:
        note += (
            " ‖A‖₀: non-zero entries of the codes A, which have d for each token. λ: what an entry "
            "costs, the threshold of the block's sparse step: "
        )
        note += "; ".join(f"{name} {values}" for name, values in thresholds.items())
    return note


def _label_of(run: Run) -> str:
    """Name of a model, and what is measured in place of subspaces and codes if it has none."""
    substitutes = {"key": "keys", "neurons": "neurons above 0"}
    read = "; ".join(words for site, words in substitutes.items() if site in _sites_of(run))
    return f"{run.settings['model']} ({read})" if read else str(run.settings["model"])


def _mean_and_deviation(
    values: Float[np.ndarray, "B L"],
) -> tuple[Float[np.ndarray, " L"], Float[np.ndarray, " L"]]:
    """Over images; one image has no deviation, NaN."""
    if len(values) == 1:
        return values[0], np.full(values.shape[1], np.nan)
    return values.mean(axis=0), values.std(axis=0, ddof=1)


def _rows_of(measured: Sequence[tuple[Run, Numbers]]) -> Iterator[dict[str, Any]]:
    """Lines of the file: of each image, each block."""
    for run, numbers in measured:
        sites = _sites_of(run)
        read = {
            "compressed": next(site for site in sites if site in ("subspace", "key")),
            "counted": next((site for site in sites if site in ("codes", "neurons")), ""),
        }
        for row, entry in enumerate(run.entries):
            for block in range(numbers["coding_rate"].shape[1]):
                of_block = {name: float(values[row, block]) for name, values in numbers.items()}
                named = {"model": run.settings["model"], "image": entry["file_name"]}
                yield {**named, "block": block, **read, **of_block}
