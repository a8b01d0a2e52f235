"""Accuracy of models against the cost of a forward pass."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.ticker import EngFormatter, NullFormatter

from crate_interp.visualization.chart import COLOURS, LABEL, SMALL, draw_frame, write_below
from crate_interp.visualization.style import Figure

__all__ = ["accuracy_figure"]

_INCHES = (5.2, 3.4)


def accuracy_figure(points: Sequence[tuple[str, float, float]], note: str = "") -> Figure:
    """Draw a dot for each model, with its name; multiply-adds on a logarithmic axis.

    Args:
        points: Name, multiply-adds of an image in 10^9, and accuracy in percent.
        note: Words below the figure.
    """
    figure = Figure(figsize=_INCHES, layout="constrained")
    axes = figure.subplots()
    families = list(dict.fromkeys(_family_of(name) for name, *_ in points))
    for name, cost, accuracy in points:
        colour = COLOURS[families.index(_family_of(name)) % len(COLOURS)]
        axes.plot([cost], [accuracy], "o", color=colour, markersize=5)
        axes.annotate(
            name,
            (cost, accuracy),
            xytext=(5, -2.5),
            textcoords="offset points",
            fontsize=SMALL - 1,
            color=colour,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(0.22, 0.1)
    axes.set_xlabel("multiply-adds (10⁹)", fontsize=LABEL)
    axes.set_ylabel("top-1 (%)", fontsize=LABEL)
    draw_frame(axes)
    write_below(figure, note)
    return figure


def _family_of(name: str) -> str:
    return "crate_alpha" if name.startswith("crate_alpha") else name.split("_")[0]
