"""Compression and sparsity of each block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from crate_interp import analysis
from crate_interp.explorer.scene import Scene
from crate_interp.explorer.view import Answer, View, same_options
from crate_interp.visualization import LineChart
from crate_interp.visualization.page import PageTable, Part

__all__ = ["Rates"]

_TITLES = {
    "coding_rate": ("Coding rate of the heads' subspaces (nats)", 1.0),
    "sparsity": ("Entries of the codes that are not zero (%)", 100.0),
    "objective": ("Objective: R - Rᶜ - λ ‖A‖₀ / N (nats)", 1.0),
}


@dataclass(frozen=True, kw_only=True)
class Rates(View):
    """What a white box optimises, block by block."""

    title: ClassVar[str] = "Rate and sparsity"
    summary: ClassVar[str] = "How far each block compresses the tokens, and how sparse it codes."
    place: ClassVar[int] = 50
    uses_patch: ClassVar[bool] = False

    def look(self, scene: Scene) -> Answer:
        """Measure the blocks on the picture."""
        activations = scene.all_blocks(*analysis.objective_sites(scene.backbone))
        measured = analysis.layer_objective(scene.backbone, activations)
        values = {
            name: getattr(measured, name)[0].cpu().numpy()
            for name in _TITLES
            if getattr(measured, name) is not None
        }
        return Answer(
            f"{scene.model.name}, {scene.model.depth} blocks, on this picture alone.",
            parts=list(_parts(scene.model.name, values)),
            numbers=values,
            command=same_options("layers", self, scene, output="layers.png"),
        )


def _parts(model: str, values: dict[str, np.ndarray]) -> Iterator[Part]:
    """A chart for each quantity, and a table of all."""
    shown = {name: 100 * (1 - own) if name == "sparsity" else own for name, own in values.items()}
    for name, own in shown.items():
        blocks = np.arange(len(own), dtype=float)
        low, high = min(0.0, float(own.min())), max(0.0, float(own.max())) * 1.05 or 1.0
        yield LineChart(
            _TITLES[name][0], blocks, [(model, own)], "block", "",
            (0.0, max(1.0, float(len(own) - 1))), (low, high),
        )  # fmt: skip
    header = ("block", *(_TITLES[name][0] for name in shown))
    rows = [
        [str(block), *(f"{own[block]:.4g}" for own in shown.values())]
        for block in range(len(values["coding_rate"]))
    ]
    yield PageTable(header, rows)
