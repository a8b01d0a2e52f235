"""Coherence of the heads' subspaces, as matrices and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from crate_interp import analysis, visualization
from crate_interp.options import option
from crate_interp.runs.command import Command
from crate_interp.runs.options import FigureOptions, WeightsOptions

__all__ = ["Subspaces"]


@dataclass(frozen=True, kw_only=True)
class Subspaces(Command, WeightsOptions, FigureOptions):
    """Measure whether the heads' subspaces are orthogonal."""

    group: ClassVar[str] = "look inside"

    model: str = option("CRATE or CRATE-alpha: name, alias, or one of our safetensors files")
    weights: Path | None = option(
        "weight file in any official layout, not the released one; `random`: untrained", None
    )
    model_args: dict[str, Any] = option("sizes that differ from the named model's (JSON)", {})
    output: Path = option("the figure, NAME.png; a CSV goes with it", presentation=True)

    def run(self) -> int:
        """Draw a matrix of cosines for each block, and write their means.

        Raises:
            InputError: The model has no subspaces, or cannot be loaded; a file cannot be written.
        """
        from crate_interp.runs.figure_files import check_figure_path, list_files, save_figure
        from crate_interp.runs.inference import describe_model, describe_weights, load_model
        from crate_interp.runs.number_files import write_table
        from crate_interp.runs.provenance import settings_of, versions

        check_figure_path(self.output)
        model, source = load_model(self)
        blocks = analysis.subspace_coherence(model)
        rows = [(number, one.within, one.between) for number, one in enumerate(blocks)]
        note = (
            f"{describe_model(self.model, self.weights)}: |cosine| of any two directions of the "
            f"{blocks[0].num_heads} subspaces, those of a head adjacent; black 0, white "
            f"{visualization.WHITE} and more. Titles have the mean over directions of one head, "
            "and of two heads."
        )
        figure = visualization.coherence_figure(
            [one.cosines for one in blocks],
            [f"block {number}: {own:.2f}, {other:.2f}" for number, own, other in rows],
            note,
            self.width_inches,
        )
        drawn = save_figure(figure, self.output, self)
        about = {
            "weights": describe_weights(source),
            "settings": settings_of(self),
            "versions": versions(),
        }
        table = self.output.with_suffix(".csv")
        write_table(table, ("block", "within_heads", "between_heads"), rows, about)
        print("mean |cosine|  within heads  between heads")
        for number, own, other in rows:
            print(f"block {number:<7d}  {own:12.3f}  {other:13.3f}")
        print(list_files([*drawn, table]))
        return 0
