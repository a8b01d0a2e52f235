"""Compression and sparsity of each block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from crate_interp import analysis, hooks
from crate_interp.explorer.scene import Scene
from crate_interp.explorer.view import Answer, View, same_options
from crate_interp.visualization import LineChart
from crate_interp.visualization.page import PageTable

__all__ = ["Rates"]

_TITLES = {
    "coding_rate": "Coding rate of the heads' {} (nats)",
    "sparsity": "{} (%)",
    "objective": "Objective: R − Rᶜ − λ ‖A‖₀ / N (nats)",
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
        sites = analysis.objective_sites(scene.backbone)
        measured = analysis.layer_objective(scene.backbone, scene.all_blocks(*sites))
        values = {
            name: getattr(measured, name)[0].cpu().numpy()
            for name in _TITLES
            if getattr(measured, name) is not None
        }
        keys = "keys" if hooks.Site.KEY in sites else "subspaces"
        zeros = "Neurons above zero" if hooks.Site.NEURONS in sites else "Codes that are not zero"
        titles = {
            "coding_rate": _TITLES["coding_rate"].format(keys),
            "sparsity": _TITLES["sparsity"].format(zeros),
            "objective": _TITLES["objective"],
        }
        shown = {
            titles[name]: 100 * (1 - own) if name == "sparsity" else own
            for name, own in values.items()
        }
        return Answer(
            f"{scene.model.name}, {scene.model.depth} blocks, on this picture alone.",
            parts=[*_charts(scene.model.name, shown), _table(shown)],
            numbers=values,
            command=same_options("layers", self, scene, output="layers.png"),
        )


def _charts(model: str, shown: Mapping[str, Float[np.ndarray, " L"]]) -> Iterator[LineChart]:
    """A chart for each quantity; 0 is always on it."""
    for title, own in shown.items():
        blocks = np.arange(len(own), dtype=float)
        low, high = 1.05 * min(0.0, float(own.min())), 1.05 * max(0.0, float(own.max()))
        limits = (low, high) if low < high else (0.0, 1.0)
        ends = (0.0, max(1.0, float(len(own) - 1)))
        yield LineChart(title, blocks, [(model, own)], "block", "", ends, limits, whole=True)


def _table(shown: Mapping[str, Float[np.ndarray, " L"]]) -> PageTable:
    """One line for each block."""
    rows = [
        [str(block), *(f"{value:.4g}" for value in of_block)]
        for block, of_block in enumerate(zip(*shown.values(), strict=True))
    ]
    return PageTable(("block", *shown), rows)
