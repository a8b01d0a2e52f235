"""Atoms that write a patch or the picture, with their strongest patches from an atlas."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np

from crate_interp import hooks, visualization, weights
from crate_interp.explorer.scene import Scene, ShownAtlas
from crate_interp.explorer.view import Answer, Shown, View, same_options
from crate_interp.options import Range, option
from crate_interp.options.ranges import Index
from crate_interp.visualization.page import PageTable

__all__ = ["Atoms"]

_PATCHES = 3  # strongest patches of an atom


@dataclass(frozen=True, kw_only=True)
class Atoms(View):
    """Atoms of the largest share in what a block writes."""

    title: ClassVar[str] = "Atoms"
    summary: ClassVar[str] = (
        "Sparse-code atoms, or a ViT's neurons, that write the patch that you click, or all of the "
        "picture."
    )
    place: ClassVar[int] = 40

    block: Index = option("block to read", -1)
    count: Annotated[int, Range(1, 20)] = option("atoms to show", 6)

    def look(self, scene: Scene) -> Answer:
        """Show the atoms that write the patch that was clicked, or the picture."""
        block = scene.block(self.block)
        site = hooks.atom_site(scene.backbone, block)
        activations = scene.activations([site], [block])
        codes = activations.patch_features(site, block)[0].T
        dictionary = hooks.written_dictionary(scene.backbone, block)
        columns, where = scene.geometry.grid_hw[1], "this picture"
        chosen = codes
        if scene.patch is not None:
            row, column = scene.patch
            chosen, where = codes[[row * columns + column]], "this patch"
        found = hooks.atom_contributions(chosen, dictionary)
        order = np.argsort(-found.share, kind="stable")[: self.count].tolist()
        maps = (
            codes.T[order].unflatten(1, scene.geometry.grid_hw).clamp(min=0).float().cpu().numpy()
        )
        note = _lacking(scene, site, block)
        atlas = scene.atlas if not note else None
        name = "neuron" if site is hooks.Site.NEURONS else "atom"
        shown: list[Shown] = []
        for atom, values in zip(order, scene.on_shown(maps), strict=True):
            words = f"{name} {atom}: {found.share[atom]:.1%}"
            shown.append(Shown(words, visualization.draw_attention(scene.shown, values)))
            if atlas is not None:
                shown += _strongest(atlas, atom, f"{name} {atom}")
        command = [] if atlas is None else same_options(
            *("atoms", self, scene),
            size=None, block=None, atlas=atlas.name, patch=scene.pixel,
            output="atoms.png",
        )  # fmt: skip
        return Answer(
            f"What writes {where}, in block {block} of {scene.model.name}? Shares of "
            f"what the block writes there; together {found.share[order].sum():.1%}.{note}",
            shown,
            [_table(atlas, order)] if atlas is not None else [],
            numbers={"share": found.share, "norm": found.norm, "maps": maps},
            command=command,
        )


def _lacking(scene: Scene, site: hooks.Site, block: int) -> str:
    """Say why there are no patches of an atlas; empty where there are."""
    make = (
        f" crate-interp atlas FOLDER --model {scene.model.name} --block {block} --output atlas; "
        "then start the page with --atlas atlas."
    )
    if scene.atlas is None:
        return f" For their strongest patches, make an atlas of many pictures:{make}"
    source = scene.atlas.stored.source
    if (
        source.parameters_sha256 == weights.parameters_checksum(scene.backbone)
        and (source.site, source.block) == (site, block)
        and source.geometry.input_hw == scene.geometry.input_hw
    ):
        return ""
    return (
        f" The atlas is of block {source.block} of {source.model} at {source.geometry.input_hw[0]} "
        f"px; for this one:{make}"
    )


def _strongest(atlas: ShownAtlas, atom: int, name: str) -> Iterator[Shown]:
    """Pictures around the patches where the atom is strongest, with the patch framed."""
    numbers, stored = atlas.stored.atlas, atlas.stored
    places = zip(numbers.top_images[atom], numbers.top_patches[atom], strict=True)
    for image, patch in list(places)[:_PATCHES]:
        if image < 0:
            continue
        rgb = atlas.pictures[int(image)]
        geometry = replace(stored.source.geometry, original_hw=(rgb.shape[0], rgb.shape[1]))
        box = geometry.patch_box(*divmod(int(patch), geometry.grid_hw[1]))
        yield Shown(f"{name}: strongest", _framed(rgb, box), covers=False)


def _framed(rgb: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """The surroundings of a patch, which has a frame of white and black."""
    x1, y1, x2, y2 = (round(side) for side in box)
    left, top, right, bottom = visualization.context_window((rgb.shape[0], rgb.shape[1]), box)
    drawn = rgb.copy()
    for away, level in ((2, 0), (1, 255)):
        ys = slice(max(0, y1 - away), y2 + away), slice(max(0, x1 - away), x2 + away)
        drawn[ys] = level
    drawn[y1:y2, x1:x2] = rgb[y1:y2, x1:x2]
    return np.asarray(drawn[top:bottom, left:right])


def _table(atlas: ShownAtlas, order: list[int]) -> PageTable:
    """One line for each atom: how often it fires, and its class."""
    numbers, classes = atlas.stored.atlas, atlas.stored.source.classes
    rows = []
    for atom in order:
        best = int(numbers.best_class[atom])
        of_class = [classes[best], f"{numbers.selectivity[atom]:.2f}"] if best >= 0 else ["", ""]
        rows.append([str(atom), f"{numbers.patch_frequency[atom]:.2%}", *of_class])
    return PageTable(("atom", "fires on patches", "class", "selectivity"), rows)
