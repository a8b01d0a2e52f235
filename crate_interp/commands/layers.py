"""The command `layers`: what the blocks of models compress and how sparse they code, as curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from crate_interp.analysis import LayerObjective, layer_objective, objective_sites
from crate_interp.config import LayersConfig
from crate_interp.data import ImageRecord, ImageSet, ResizedImage
from crate_interp.engine import StageClock
from crate_interp.errors import InputError
from crate_interp.hooks import Site, anatomy_at, blocks_of
from crate_interp.runs.figure_files import check_figure_path, list_files, save_figure
from crate_interp.runs.inference import describe_model
from crate_interp.runs.number_files import about_of, write_table
from crate_interp.runs.observation import load_observer, observe, open_pictures
from crate_interp.structures import Activations
from crate_interp.visualization import Curve, CurvePanel, draw_curves
from crate_interp.weights import create_on_meta, names_a_file, resolve_name

__all__ = ["run"]

# What is measured, and its title in the figure, which has non-zeros as the papers do.
QUANTITIES = {
    "coding_rate": "Compression: coding rate Rᶜ (nats)",
    "sparsity": "Sparsity: non-zero codes ‖A‖₀ / (d N) (%)",
    "objective": "Objective: R − Rᶜ − λ ‖A‖₀ / N (nats)",
}
COLUMNS = ("model", "image", "block", "compressed", "coding_rate", "counted", "sparsity")


@dataclass(frozen=True, eq=False)
class _Measured:
    """What was measured of one model, one row an image, one column a block.

    Attributes:
        name: Of the model, in the figure and the file.
        sites: What was read of it.
        file_names: Of the images.
        thresholds: λ of the blocks, in words; empty for a model that has none.
        numbers: By name: `coding_rate`, and `sparsity` and `objective` where there are any.
        about: What they were made of.
    """

    name: str
    sites: tuple[Site, ...]
    file_names: list[str]
    thresholds: str
    numbers: dict[str, Float[np.ndarray, "B L"]]
    about: Mapping[str, Any]


def run(config: LayersConfig) -> int:
    """Draw the curves, as PNG and PDF, and write the numbers of each image and block as CSV.

    Returns:
        0, or 1 if an image could not be read.

    Raises:
        InputError: No image, none that can be read, or a model that there is not.
    """
    check_figure_path(config.output)
    configs = [replace(config, model=name) for name in config.model.split(",")]
    _check_models(configs)
    images = open_pictures(config)
    measured = [_measure(model, images) for model in configs]
    found = min(len(one.file_names) for one in measured)
    x_label = f"block (band: standard deviation of {found} images)" if found > 1 else "block"
    panels = _panels_of(measured)
    figure = draw_curves(panels, x_label, _note_of(measured), config.width_inches)
    drawn = save_figure(figure, config.output, config)
    table = config.output.with_suffix(".csv")
    columns = (*COLUMNS, "objective")
    rows = [[row.get(name, "") for name in columns] for one in measured for row in _rows_of(one)]
    write_table(table, columns, rows, {"models": [one.about for one in measured]})
    for one in measured:
        for name, values in one.numbers.items():
            first, last = (_mean_and_deviation(values)[0][block] for block in (0, -1))
            print(f"{one.name}: {name} {first:.4g} in the first block, {last:.4g} in the last")
    print(f"{list_files([*drawn, table])}: {found} images")
    return int(found < len(images))


def _check_models(configs: Sequence[LayersConfig]) -> None:
    """Refuse the last name before the first model has run."""
    for config in configs:
        if not names_a_file(config.model):
            create_on_meta(resolve_name(config.model), **config.model_args)
        elif not Path(config.model).is_file():
            raise InputError(f"{config.model}: no such weight file")
    names = [describe_model(config.model, config.weights) for config in configs]
    if len(set(names)) < len(names):
        raise InputError(f"model: expected each model once, found {', '.join(names)}")


def _measure(config: LayersConfig, images: ImageSet) -> _Measured:
    observer = load_observer(config)
    sites = objective_sites(observer.model)
    blocks = range(len(blocks_of(observer.model)))

    def finish(
        _: ImageRecord, __: ResizedImage, activations: Activations, ___: StageClock
    ) -> LayerObjective:
        return layer_objective(observer.model, activations)

    file_names: list[str] = []
    found: list[LayerObjective] = []
    outcomes = observe(observer, images.records, sites, blocks, finish, config)
    with closing(outcomes):
        for image in outcomes:
            if image.result is not None:
                file_names.append(image.record.file_name)
                found.append(image.result)
    if not found:
        raise InputError(f"{images.name}: none of the {len(images)} images could be read")
    numbers = {}
    for name in QUANTITIES:
        values = [getattr(one, name) for one in found]
        if values[0] is not None:
            numbers[name] = torch.cat(values).cpu().numpy()
    name, about = describe_model(config.model, config.weights), about_of(config, observer)
    return _Measured(name, sites, file_names, _thresholds_of(observer.model), numbers, about)


def _thresholds_of(model: nn.Module) -> str:
    atoms = [anatomy_at(model, block).atoms for block in range(len(blocks_of(model)))]
    thresholds = {one.threshold for one in atoms if one is not None and one.threshold is not None}
    return ", ".join(f"{value:g}" for value in sorted(thresholds))


def _panels_of(measured: Sequence[_Measured]) -> list[CurvePanel]:
    """One panel a quantity that some model has."""
    panels = []
    for quantity, title in QUANTITIES.items():
        curves = []
        for one in measured:
            if quantity in one.numbers:
                values = one.numbers[quantity]
                if quantity == "sparsity":
                    values = 100 * (1 - values)
                mean, deviation = _mean_and_deviation(values)
                x = np.arange(len(mean), dtype=float)
                curves.append(Curve(_label_of(one), x, mean[:, None], deviation[:, None]))
        if curves:
            panels.append(CurvePanel(title, curves))
    return panels


def _note_of(measured: Sequence[_Measured]) -> str:
    """What the symbols of the titles stand for."""
    note = "N: tokens of an image. R, Rᶜ: coding rate of all tokens, and in the heads' subspaces."
    thresholds = {one.name: one.thresholds for one in measured if one.thresholds}
    if thresholds:
        note += (
            " ‖A‖₀: non-zero entries of the codes A, which have d for each token. λ: what an entry "
            "costs, the threshold of the block's sparse step: "
        )
        note += "; ".join(f"{name} {values}" for name, values in thresholds.items())
    return note


def _label_of(one: _Measured) -> str:
    """The name of a model; of a ViT, also what was measured in place of subspaces and codes."""
    if Site.SUBSPACE in one.sites:
        return one.name
    read = "keys; neurons above 0" if Site.NEURONS in one.sites else "keys"
    return f"{one.name} ({read})"


def _mean_and_deviation(
    values: Float[np.ndarray, "B L"],
) -> tuple[Float[np.ndarray, " L"], Float[np.ndarray, " L"]]:
    """Over images; one image has no deviation, NaN."""
    if len(values) == 1:
        return values[0], np.full(values.shape[1], np.nan)
    return values.mean(axis=0), values.std(axis=0, ddof=1)


def _rows_of(one: _Measured) -> Iterator[dict[str, Any]]:
    """Lines of the file: of each image, each block."""
    sites = {
        "compressed": next(site.value for site in one.sites if site in (Site.SUBSPACE, Site.KEY)),
        "counted": next((s.value for s in one.sites if s in (Site.CODES, Site.NEURONS)), ""),
    }
    for row, file_name in enumerate(one.file_names):
        for block in range(one.numbers["coding_rate"].shape[1]):
            numbers = {name: float(values[row, block]) for name, values in one.numbers.items()}
            yield {"model": one.name, "image": file_name, "block": block, **sites, **numbers}
