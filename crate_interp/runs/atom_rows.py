"""Descriptions of the atoms of an atlas, for sheets and headings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from crate_interp.runs.atlas_files import AtlasSource, StoredAtlas, read_thumbnail
from crate_interp.runs.inference import describe_model
from crate_interp.visualization import AtomRow

__all__ = ["atom_row", "describe_site"]


def describe_site(source: AtlasSource) -> str:
    """Say in a heading whose atoms these are."""
    weights = Path(source.weights) if source.weights else None
    kind = "neurons" if source.site == "neurons" else "sparse-code atoms"
    model = describe_model(source.model, weights)
    return f"{model}: {kind} of block {source.block}, on {source.images}"


def atom_row(
    folder: Path,
    stored: StoredAtlas,
    atom: int,
    value_map: Float[np.ndarray, "h w"] | None = None,
    share: float | None = None,
) -> AtomRow:
    """Describe an atom for a sheet, with its patches from the thumbnails.

    Args:
        folder: Folder of the atlas.
        stored: Content of the folder.
        atom: Number of the atom, from 0.
        value_map: Value of the atom at each patch of one image, instead of its mean map.
        share: Part of the atom in what the block writes there, in [0, 1].
    """
    atlas, patches = stored.atlas, []
    for number, patch in zip(atlas.top_images[atom], atlas.top_patches[atom], strict=True):
        if number >= 0:
            rgb = read_thumbnail(folder, stored, int(number))
            geometry = replace(stored.source.geometry, original_hw=rgb.shape[:2])
            place = divmod(int(patch), geometry.grid_hw[1])
            patches.append((rgb, geometry.patch_box(*place)))
    lines = [] if share is None else [f"{100 * share:.1f} % of what is written"]
    lines.append(f"fires on {100 * atlas.patch_frequency[atom]:.2g} % of patches")
    if atlas.best_class[atom] >= 0:
        lines.append(stored.source.classes[atlas.best_class[atom]])
        lines.append(f"selectivity {atlas.selectivity[atom]:.2f}")
    name = "neuron" if stored.source.site == "neurons" else "atom"
    return AtomRow(
        f"{name} {atom}", lines, atlas.mean_map[atom] if value_map is None else value_map, patches
    )
