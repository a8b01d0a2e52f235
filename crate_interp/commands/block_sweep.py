"""A command run for every block of its model, as one table and one chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crate_interp import hooks, visualization
from crate_interp.commands.benchmark.tables import format_table
from crate_interp.commands.compare import read_run
from crate_interp.errors import InputError
from crate_interp.options import option
from crate_interp.runs.command import OF_SIGNALS, ImageCommand

if TYPE_CHECKING:
    from crate_interp.visualization import CurvePanel

__all__ = ["ByBlockCommand"]


@dataclass(frozen=True, kw_only=True)
class ByBlockCommand(ImageCommand):
    """A command that reads one block, or every block in turn."""

    by_block: bool = option(
        "run every block, each in a folder block-N of the output; blocks.csv and blocks.png have "
        "the numbers of all",
        False,
        presentation=True,
    )

    def run(self) -> int:
        """Work off the images once, or once for every block.

        Returns:
            0, or 1 if an image failed. If a signal stopped a block, its exit code: the same
            command goes on.

        Raises:
            InputError: As `ImageCommand.run`; or blocks cannot be compared.
        """
        return _sweep(self) if self.by_block else super().run()


def _sweep(command: ByBlockCommand) -> int:
    from crate_interp.runs.figure_files import list_files, save_figure
    from crate_interp.runs.number_files import write_table
    from crate_interp.runs.provenance import default_output, versions

    own = {one.name: one.default for one in fields(command)}
    if "block" not in own:
        raise InputError("--by-block: the segmenter reads no block of its own")
    changed: Any = command
    if changed.block != own["block"]:
        raise InputError("--block: has no effect with --by-block, which runs all")
    output = command.output
    if output is None:
        named = default_output(command.default_name(), command.model, command.open_images())
        output = named.with_name(f"{named.name}-by-block")
    blocks = range(len(hooks.blocks_of(command.load_observer().model)))
    codes = []
    for block in blocks:
        place = output / f"block-{block}"
        print(f"block {block} of {len(blocks)}:", flush=True)
        options: dict[str, Any] = {"by_block": False, "block": block, "output": place}
        codes.append(replace(command, **options).run())
        if codes[-1] > OF_SIGNALS:
            return codes[-1]
    measured = [read_run(output / f"block-{block}")[1] for block in blocks]
    names = list(measured[0].metrics)
    if not names:
        raise InputError("--by-block: expected images with a ground truth, found none to score by")
    scale, unit = (100, ", %") if measured[0].percent else (1, "")
    values = np.array([[scale * one.metrics[name] for name in names] for one in measured])
    about = {"command": command.command_name(), "model": command.model, "versions": versions()}
    cells = [[str(block), *map(str, row)] for block, row in zip(blocks, values, strict=True)]
    write_table(output / "blocks.csv", ["block", *names], cells, about)
    figure = visualization.draw_curves(
        _panels(names, values, unit), "block", command.model, command.width_inches
    )
    files = save_figure(figure, output / "blocks.png", command)
    shown = [[str(n), *(f"{value:.1f}" for value in row)] for n, row in enumerate(values)]
    print(format_table([f"block{unit}", *names], shown))
    print(list_files([*files, Path("blocks.csv")]))
    return max(codes)


def _panels(names: Sequence[str], values: Any, unit: str) -> list[CurvePanel]:
    """One panel for each kind of number, such as AP of boxes."""
    x = np.arange(len(values), dtype=float)
    panels: dict[str, list[Any]] = {}
    for name, column in zip(names, values.T, strict=True):
        kind, _, rest = name.replace(",", "").partition(" ")
        panels.setdefault(kind, []).append(visualization.Curve(rest or kind, x, column[:, None]))
    return [visualization.CurvePanel(f"{kind}{unit}", curves) for kind, curves in panels.items()]
