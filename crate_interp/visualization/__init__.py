"""Pictures of what was found: overlays (arrays to RGB) and figures (arrays to Figure)."""

from crate_interp.visualization.attention import (
    attention_curves,
    head_figure,
    layer_figure,
    maps_figure,
)
from crate_interp.visualization.comparison import class_scores_figure, comparison_figure
from crate_interp.visualization.curves import Curve, Panel, draw_curves
from crate_interp.visualization.overlay import (
    draw_attention,
    draw_heat,
    draw_instances,
    draw_kept,
)
from crate_interp.visualization.reconstruction import reconstruction_figure
from crate_interp.visualization.sheet import overlay_sheet

__all__ = [
    "Curve",
    "Panel",
    "attention_curves",
    "class_scores_figure",
    "comparison_figure",
    "draw_attention",
    "draw_curves",
    "draw_heat",
    "draw_instances",
    "draw_kept",
    "head_figure",
    "layer_figure",
    "maps_figure",
    "overlay_sheet",
    "reconstruction_figure",
]
