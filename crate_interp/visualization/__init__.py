"""Pictures of what was found: overlays (arrays to RGB) and figures (arrays to Figure)."""

from crate_interp.visualization.curves import Curve, Panel, draw_curves
from crate_interp.visualization.overlay import draw_instances
from crate_interp.visualization.pca import pca_figure
from crate_interp.visualization.reconstruction import reconstruction_figure
from crate_interp.visualization.sheet import overlay_sheet

__all__ = [
    "Curve",
    "Panel",
    "draw_curves",
    "draw_instances",
    "overlay_sheet",
    "pca_figure",
    "reconstruction_figure",
]
