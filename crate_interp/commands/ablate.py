"""The command `ablate`: heads or atoms, ranked by what silencing each of them changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from crate_interp.analysis import (
    estimate_logit_effects,
    logit_effects,
    mask_effects,
    written_energy,
)
from crate_interp.config import AblateConfig
from crate_interp.data import ImageRecord, ResizedImage
from crate_interp.engine import StageClock
from crate_interp.errors import InputError
from crate_interp.hooks import (
    Observer,
    Site,
    any_resolution,
    atom_site,
    available_sites,
    check_classifier,
    choose_classes,
    count_units,
    record,
)
from crate_interp.hooks.sites import blocks_of
from crate_interp.models import inference_precision
from crate_interp.runs.class_names import class_names_of, name_class
from crate_interp.runs.figure_files import list_files, save_figure
from crate_interp.runs.inference import batch_size_of, describe_model, workers_of
from crate_interp.runs.number_files import about_of, write_arrays, write_table
from crate_interp.runs.observation import load_observer, open_pictures, process_pictures
from crate_interp.visualization import Figure, atom_effects_figure, head_effects_figure

__all__ = ["run"]

Numbers = Float[np.ndarray, " R"]


@dataclass(frozen=True, eq=False)
class _Units:
    """The heads or atoms that are looked at, one a row.

    Attributes:
        block: From 0.
        number: In the block.
    """

    block: Int[np.ndarray, " R"]
    number: Int[np.ndarray, " R"]

    def __getitem__(self, rows: Any) -> _Units:
        return _Units(self.block[rows], self.number[rows])

    def by_block(self) -> list[tuple[int, list[int]]]:
        """Numbers of each block, in the order of the rows, which has the blocks ascending."""
        blocks = np.unique(self.block).tolist()
        return [(block, self.number[self.block == block].tolist()) for block in blocks]


def run(config: AblateConfig) -> int:
    """Silence, measure, and write `ablation.csv`, `.npz`, `.png` and `.pdf`.

    Returns:
        0, or 1 if an image failed, which is named.

    Raises:
        InputError: No image; a block or class that the model does not have; a model without a
            classifier; nothing could be measured.
    """
    observer = load_observer(config)
    if config.precision == "auto":  # effects are small differences, which fewer bits would lose
        observer = replace(observer, precision="float32")
    records = open_pictures(config).records
    site = _site_of(observer, config)
    units = _all_units(observer.model, site, config)
    if config.effect == "logit":
        check_classifier(observer.model, config.class_)
    measured, estimate = units, None
    if config.target == "atoms" and 0 < config.measured < len(units.block):
        _, estimates, _ = _each_image(partial(_estimate, units=units), records, observer, config)
        estimate = estimates.mean(axis=0)
        rows = np.sort(np.argsort(-np.abs(estimate), kind="stable")[: config.measured])
        measured, estimate = units[rows], estimate[rows]
    names, effects, classes = _each_image(
        partial(_measure, units=measured), records, observer, config
    )
    arrays = _arrays_of(config, measured, names, effects, classes)
    _write(config, arrays, estimate, about_of(config, observer))
    num_classes = int(getattr(observer.model, "num_classes", 0))
    figure = _figure(config, measured, effects, len(units.block), num_classes)
    drawn = save_figure(figure, _file(config, "png"), config)
    _report(config, measured, effects, estimate)
    files = list_files([*drawn, _file(config, "csv"), _file(config, "npz")])
    print(f"{files}: {len(effects)} images, {len(measured.block)} units")
    return int(len(names) < len(records))


def _all_units(model: nn.Module, site: Site, config: AblateConfig) -> _Units:
    count = len(blocks_of(model))
    usable = range(count - 1 if config.effect == "mask" else count)
    if config.block == "all":
        blocks = list(usable)
    else:
        available_sites(model, config.block)  # refuses a block that there is not
        blocks = [config.block % count]
    if not blocks or blocks[0] not in usable:
        raise InputError(
            f"block {config.block}: expected 0 to {count - 2}; the mask is read where block "
            f"{count - 1} projects, before its own heads and atoms"
        )
    numbers = [np.arange(count_units(model, site, block)) for block in blocks]
    repeated = [np.full(len(own), block) for own, block in zip(numbers, blocks, strict=True)]
    return _Units(np.concatenate(repeated), np.concatenate(numbers))


def _each_image(
    measure: Callable[..., tuple[Numbers, int]],
    records: Any,
    observer: Observer,
    config: AblateConfig,
) -> tuple[list[str], Float[np.ndarray, "I R"], list[int]]:
    """Names of the images that did not fail, what was measured of each, and the class."""

    def forward(
        images: list[ResizedImage], _: StageClock
    ) -> list[tuple[Numbers, int] | InputError]:
        try:  # an error of one image, which `finish` raises again for it
            with any_resolution(observer.model, observer.stride):
                return [measure(observer.pixels([images[0].rgb]), observer, config)]
        except InputError as error:
            return [error]

    def finish(
        record: ImageRecord, _: ResizedImage, found: tuple[Numbers, int] | InputError, __: Any
    ) -> tuple[str, Numbers, int]:
        if isinstance(found, InputError):
            raise InputError(f"{record.path}: {found}")
        return record.file_name, *found

    workers = workers_of(config.workers)
    outcomes = process_pictures(observer, records, forward, finish, 1, workers)
    results = [image.result for image in outcomes if image.result is not None]
    if not results:
        raise InputError("none of the images could be measured")
    names, numbers, classes = zip(*results, strict=True)
    return list(names), np.stack(numbers), list(classes)


def _site_of(observer: Observer, config: AblateConfig) -> Site:
    return Site.HEADS if config.target == "heads" else atom_site(observer.model)


def _estimate(
    pixels: Tensor, observer: Observer, config: AblateConfig, units: _Units
) -> tuple[Numbers, int]:
    """First-order effects on the logit, or the written energy, of all units."""
    model, site = observer.model, _site_of(observer, config)
    blocks = [block for block, _ in units.by_block()]
    if config.effect == "mask":
        with torch.inference_mode(), record(model, [site], blocks) as recorder:
            model(pixels)
        found = recorder.activations
        rows = [written_energy(model, found[site, block], block) for block in blocks]
        return torch.cat(rows).cpu().double().numpy(), -1
    with torch.inference_mode():
        number = int(choose_classes(model(pixels), config.class_)[0])
    rows = estimate_logit_effects(model, pixels, number, site, blocks)
    return torch.cat(rows).cpu().double().numpy(), number


def _measure(
    pixels: Tensor, observer: Observer, config: AblateConfig, units: _Units
) -> tuple[Numbers, int]:
    """Effects of the units, each silenced alone."""
    model, site = observer.model, _site_of(observer, config)
    at_once = batch_size_of(config.batch_size, observer)
    groups = units.by_block()
    with inference_precision(observer.precision, observer.model), torch.inference_mode():
        if config.effect == "mask":
            rows = [mask_effects(model, pixels, site, *group, at_once) for group in groups]
            return torch.cat(rows).cpu().double().numpy(), -1
        with record(model, [Site.TOKENS_IN], [block for block, _ in groups]) as recorder:
            number = int(choose_classes(model(pixels), config.class_)[0])
        rows = [
            logit_effects(
                model,
                recorder.activations,
                number,
                site,
                block,
                own,
                at_once,
            )
            for block, own in groups
        ]
    return torch.cat(rows).cpu().double().numpy(), number


def _file(config: AblateConfig, suffix: str) -> Any:
    return config.output / f"ablation.{suffix}"


def _ranking(effects: Float[np.ndarray, "I R"]) -> Int[np.ndarray, " R"]:
    return np.argsort(-np.abs(effects.mean(axis=0)), kind="stable")


def _unit(config: AblateConfig) -> str:
    return config.target.removesuffix("s")


def _arrays_of(
    config: AblateConfig,
    units: _Units,
    names: list[str],
    effects: Float[np.ndarray, "I R"],
    classes: list[int],
) -> dict[str, Any]:
    arrays: dict[str, Any] = {
        "file_names": np.array(names),
        "block": units.block,
        _unit(config): units.number,
    }
    arrays |= {"effects": effects}
    if config.effect == "logit":
        arrays |= {"classes": np.array(classes)}
    return arrays


def _write(
    config: AblateConfig,
    arrays: dict[str, Any],
    estimate: Numbers | None,
    about: Mapping[str, Any],
) -> None:
    effects = arrays["effects"]
    columns = {f"{config.effect}_effect": effects.mean(axis=0), "deviation": effects.std(axis=0)}
    if estimate is not None:
        arrays["estimate"] = columns["estimate"] = estimate
    write_arrays(_file(config, "npz"), arrays, about)
    units = ("block", _unit(config))
    rows = [
        [rank, *(arrays[name][row] for name in units), *(f"{c[row]:.6g}" for c in columns.values())]
        for rank, row in enumerate(_ranking(effects), start=1)
    ]
    write_table(_file(config, "csv"), ("rank", *units, *columns), rows, about)


def _figure(
    config: AblateConfig,
    units: _Units,
    effects: Float[np.ndarray, "I R"],
    of: int,
    num_classes: int,
) -> Figure:
    logit = config.effect == "logit"
    what = "drop of the class score" if logit else "change of the mask (1 − IoU)"
    label = f"{what} without the {_unit(config)}, mean of {len(effects)} images"
    if config.class_ is not None:
        label += f", {name_class(config.class_, class_names_of(config, num_classes))}"
    model = describe_model(config.model, config.weights)
    width = config.width_inches
    if config.target == "heads":
        groups = units.by_block()
        matrix = effects.mean(axis=0).reshape(len(groups), -1)
        blocks = [block for block, _ in groups]
        return head_effects_figure(matrix, blocks, label, logit, model, width)
    order = _ranking(effects)
    names = [f"block {units.block[row]}  atom {units.number[row]}" for row in order]
    note = model
    if len(order) < of:
        by = "first-order estimate" if logit else "written energy"
        note += f" · {len(order)} of {of} atoms silenced, of the largest {by}"
    return atom_effects_figure(effects[:, order], names, label, note, width)


def _report(
    config: AblateConfig,
    units: _Units,
    effects: Float[np.ndarray, "I R"],
    estimate: Numbers | None,
) -> None:
    print(f"{'block':>5} {_unit(config):>6} {config.effect + ' effect':>13} {'deviation':>10}")
    for row in _ranking(effects)[:10]:
        own = effects[:, row]
        print(f"{units.block[row]:5d} {units.number[row]:6d} {own.mean():13.4f} {own.std():10.4f}")
    if estimate is not None and config.effect == "logit":
        correlation = np.corrcoef(estimate, effects.mean(axis=0))[0, 1]
        print(f"first-order estimate and measurement: correlation {correlation:.3f}")
