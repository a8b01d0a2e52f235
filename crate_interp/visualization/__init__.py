"""Pictures of what was found: overlays (arrays to RGB) and figures (arrays to Figure)."""

from crate_interp.visualization.ablation import atom_effects_figure, head_effects_figure
from crate_interp.visualization.attribution import attribution_figure
from crate_interp.visualization.comparison import class_scores_figure, comparison_figure
from crate_interp.visualization.curves import Curve, Panel, draw_curves
from crate_interp.visualization.overlay import draw_instances
from crate_interp.visualization.pca import pca_figure
from crate_interp.visualization.reconstruction import reconstruction_figure
from crate_interp.visualization.sheet import overlay_sheet

__all__ = [
    "Curve",
    "Panel",
    "atom_effects_figure",
    "attribution_figure",
    "class_scores_figure",
    "comparison_figure",
    "draw_curves",
    "draw_instances",
    "head_effects_figure",
    "overlay_sheet",
    "pca_figure",
    "reconstruction_figure",
]
