"""Overlays (arrays to RGB), figures (arrays to Figure) and pages (records to HTML)."""

from crate_interp.visualization.ablation import atom_effects_figure, head_effects_figure
from crate_interp.visualization.atlas import AtomRow, atom_sheet, context_window
from crate_interp.visualization.atlas_page import AtomCard, Thumbnail, atlas_page
from crate_interp.visualization.attention import (
    attention_curves,
    head_figure,
    layer_figure,
    maps_figure,
)
from crate_interp.visualization.attribution import attribution_figure
from crate_interp.visualization.class_scores import class_scores_figure
from crate_interp.visualization.curves import Curve, CurvePanel, draw_curves
from crate_interp.visualization.grid import Grid, Panel
from crate_interp.visualization.matrices import WHITE, coherence_figure, token_figure
from crate_interp.visualization.overlay import (
    contrasting_colours,
    draw_attention,
    draw_heat,
    draw_instances,
    draw_kept,
)
from crate_interp.visualization.page import (
    Bars,
    Facts,
    PageTable,
    Part,
    Picture,
    PictureStrip,
    Section,
    Words,
    write_page,
)
from crate_interp.visualization.pca import component_figure, pca_figure
from crate_interp.visualization.reconstruction import reconstruction_figure
from crate_interp.visualization.scatter import accuracy_figure
from crate_interp.visualization.sheet import comparison_figure, overlay_sheet
from crate_interp.visualization.style import Figure, write_figure
from crate_interp.visualization.svg_chart import Histogram, LineChart
from crate_interp.visualization.token_atlas_page import TokenCard, TokenContext, token_atlas_page

__all__ = [
    "WHITE",
    "AtomCard",
    "AtomRow",
    "Bars",
    "Curve",
    "CurvePanel",
    "Facts",
    "Figure",
    "Grid",
    "Histogram",
    "LineChart",
    "PageTable",
    "Panel",
    "Part",
    "Picture",
    "PictureStrip",
    "Section",
    "Thumbnail",
    "TokenCard",
    "TokenContext",
    "Words",
    "accuracy_figure",
    "atlas_page",
    "atom_effects_figure",
    "atom_sheet",
    "attention_curves",
    "attribution_figure",
    "class_scores_figure",
    "coherence_figure",
    "comparison_figure",
    "component_figure",
    "context_window",
    "contrasting_colours",
    "draw_attention",
    "draw_curves",
    "draw_heat",
    "draw_instances",
    "draw_kept",
    "head_effects_figure",
    "head_figure",
    "layer_figure",
    "maps_figure",
    "overlay_sheet",
    "pca_figure",
    "reconstruction_figure",
    "token_atlas_page",
    "token_figure",
    "write_figure",
    "write_page",
]
