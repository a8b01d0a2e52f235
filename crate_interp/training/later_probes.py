"""Probes of a run measured afterwards, of the weights that its folder holds."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from crate_interp.errors import InputError, shorten
from crate_interp.files import is_file, read_json_as, read_table, write_whole
from crate_interp.training.probe import Probe
from crate_interp.training.run_weights import RunWeights

__all__ = ["PROBE_KEYS", "missing_probes", "probe_run", "probes_itself"]

PROBE_KEYS = ("probe_set", "probe_pictures", "probe_size", "probe_block")
"""Keys of a recipe that decide the numbers of its probes."""


def probes_itself(run: Path) -> bool:
    """Whether the recipe of a run has probes of its own."""
    return PROBE_KEYS[0] in read_json_as(run / "settings.json", dict[str, Any])


def missing_probes(weights: RunWeights, path: Path) -> list[int]:
    """List the updates whose weights the run holds and that a file of probes lacks.

    Args:
        weights: Weights of the run; its recipe's `probe_every` leaves out updates between.
        path: File of probes; need not be there.

    Raises:
        InputError: There are no weights, the file is damaged, or its probes are others.
    """
    steps = weights.steps()
    if not steps:
        raise InputError(f"{weights.run}: expected checkpoints or milestones, found none")
    every = weights.recipe.probe_every or 1
    lines: set[float] = set()
    if is_file(path):
        _refuse_other_probes(weights, path)
        names, rows = read_table(path)
        lines = {row.numbers[names.index("step")] for row in rows}
    return [step for step in steps if step % every == 0 and step not in lines]


def probe_run(
    weights: RunWeights,
    path: Path,
    steps: Sequence[int],
    device: torch.device,
) -> Iterator[int]:
    """Measure the weights of a run, and add a line of each to a file of probes.

    Args:
        weights: Weights of the run; its recipe says what is measured.
        path: File of probes; beside it, `NAME.json` tells of which images, sizes and blocks.
        steps: Numbers of finished updates.
        device: Device to measure on.

    Yields:
        The number of each update once it is measured.

    Raises:
        InputError: The images or weights cannot be had, or the file has other columns.
    """
    probe: Probe | None = None
    for step in steps:
        backbone = weights.load(step).to(device)
        probe = probe or Probe(weights.recipe, backbone)
        numbers = probe.measure(backbone)
        if not is_file(path):
            with write_whole(path.with_suffix(".json"), "w") as file:
                json.dump(_probes_of(weights), file, indent=1)
        _insert_line(path, {"step": step, **numbers})
        yield step


def _probes_of(weights: RunWeights) -> dict[str, Any]:
    """The keys of the probes, as plain JSON types."""
    keys = {name: getattr(weights.recipe, name) for name in PROBE_KEYS}
    plain: dict[str, Any] = json.loads(json.dumps(keys))
    return plain


def _refuse_other_probes(weights: RunWeights, path: Path) -> None:
    """Refuse to add to a file whose probes were of other images, sizes or blocks."""
    beside = path.with_suffix(".json")
    if not is_file(beside) and not probes_itself(weights.run):
        raise InputError(
            f"{path}: expected {beside.name} beside it, which tells of which probes it is, found "
            "none; choose another --output"
        )
    source = beside if is_file(beside) else weights.run / "settings.json"
    stored, own = read_json_as(source, dict[str, Any]), _probes_of(weights)
    for name in PROBE_KEYS:
        if stored.get(name) != own[name]:
            raise InputError(
                f"{path}: probes of other keys ({name} was {shorten(stored.get(name))}, now "
                f"{shorten(own[name])}); choose another --output"
            )


def _insert_line(path: Path, row: Mapping[str, Any]) -> None:
    names, rows = read_table(path) if is_file(path) else ([], [])
    names = names or list(row)
    if names != list(row):
        raise InputError(
            f"{path}: expected the columns {shorten(list(row))}, found {shorten(names)}"
        )
    step = names.index("step")
    lines = {kept.numbers[step]: kept.cells for kept in rows}
    lines[row["step"]] = [str(value) for value in row.values()]
    with write_whole(path, "w") as file:
        csv.writer(file).writerows([names, *(lines[number] for number in sorted(lines))])
