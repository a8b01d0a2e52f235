"""Atoms that write a patch, a region or the whole of an image."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np

from crate_interp import data, hooks, visualization, weights
from crate_interp.errors import InputError, shorten
from crate_interp.options import Range, option
from crate_interp.runs.command import Command
from crate_interp.runs.options import FigureOptions, ModelOptions

if TYPE_CHECKING:
    from jaxtyping import Bool

    from crate_interp.hooks import AtomContributions, Observer
    from crate_interp.runs.atlas_files import StoredAtlas
    from crate_interp.structures import ImageGeometry

__all__ = ["Atoms"]

Few = Annotated[int, Range(1, 1000)]


@dataclass(frozen=True, kw_only=True)
class Atoms(Command, FigureOptions):
    """Show the atoms that write a patch, a region or an image."""

    group: ClassVar[str] = "look inside"

    image: str = option("the image, a file or a URL", positional=True)
    atlas: Path = option("folder of an atlas; it says which model, block and size to use")
    patch: str | None = option("Y,X: a pixel of the patch (default: the whole image)", None)
    mask: Path | None = option("PNG of the image's size; what is not black is chosen", None)
    count: Few = option("atoms to show", 8, presentation=True)
    output: Path = option(
        "the figure, NAME.png; a CSV goes with it", Path("atoms.png"), presentation=True
    )
    model: str | None = option("where the atlas's model is now, if not where it was", None)
    weights: Path | None = option("where its weight file is now, if not where it was", None)
    device: str = option("cpu, cuda, cuda:1, mps, or auto", "auto")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch is not None and self.mask is not None:
            raise InputError("give --patch Y,X or --mask FILE, not both")
        if self.patch is not None and not re.fullmatch(r"-?[0-9]{1,9},-?[0-9]{1,9}", self.patch):
            raise InputError(f"patch: expected Y,X in pixels, found {shorten(self.patch)}")

    def run(self) -> int:
        """Print the atoms, draw them, and write the contributions of all atoms as CSV.

        Raises:
            InputError: The image, the mask or the atlas cannot be read, do not fit each other, or
                the model is not the one that the atlas was made of.
        """
        from crate_interp.runs.atlas_files import read_atlas
        from crate_interp.runs.atom_rows import atom_row, describe_site
        from crate_interp.runs.figure_files import check_figure_path, list_files, save_figure

        check_figure_path(self.output)
        stored = read_atlas(self.atlas)
        rgb = data.read_image(self.image)
        observer = self._observer(stored)
        geometry = observer.geometry((rgb.shape[0], rgb.shape[1]))
        geometry.refuse_less_than_a_patch(str(self.image))
        chosen, outline = self._choose(geometry)
        source = stored.source
        activations = observer.activations([rgb], [source.site], [source.block])
        codes = activations.patch_features(source.site, source.block)[0].T
        dictionary = hooks.written_dictionary(observer.model, source.block)
        contributions = hooks.atom_contributions(codes[chosen.ravel().tolist()], dictionary)
        order = np.argsort(-contributions.share, kind="stable")[: self.count].tolist()
        maps = codes.T.unflatten(1, geometry.grid_hw).clamp(min=0).cpu().numpy()
        rows = [
            atom_row(self.atlas, stored, atom, maps[atom], contributions.share[atom])
            for atom in order
        ]
        where = "image" if outline is None else "region" if self.mask else "patch"
        title = f"What writes this {where}? {describe_site(source)}"
        figure = visualization.atom_sheet(rows, title, rgb, outline, self.width_inches)
        drawn = save_figure(figure, self.output, self)
        self._write_csv(stored, contributions, observer)
        print(
            f"{chosen.sum()} of {chosen.size} patches; atom, share of what the block writes there:"
        )
        _report(stored, contributions, order)
        files = [*drawn, self.output.with_suffix(".csv")]
        print(f"{list_files(files)}: the CSV has all atoms")
        return 0

    def _model(self, stored: StoredAtlas) -> ModelOptions:
        source = stored.source
        return ModelOptions(
            model=self.model or source.model,
            weights=self.weights or (Path(source.weights) if source.weights else None),
            model_args=dict(source.model_args),
            mean=source.mean,
            std=source.std,
            size=source.geometry.input_hw[0],
            stride=source.stride,
            device=self.device,
        )

    def _observer(self, stored: StoredAtlas) -> Observer:
        from crate_interp.runs.inference import load_observer

        source = stored.source
        try:
            observer = load_observer(self._model(stored))
        except InputError as error:
            raise InputError(f"{self.atlas}: the model of this atlas: {error}") from error
        checksum = weights.parameters_checksum(observer.model)
        if checksum != source.parameters_sha256:
            raise InputError(
                f"{self.atlas}: an atlas of another model: it was made of {source.model} with "
                f"parameters of checksum {source.parameters_sha256[:12]}, found "
                f"{self.model or source.model} with {checksum[:12]}"
            )
        site = hooks.atom_site(observer.model, source.block)
        expected = (site, observer.geometry(source.geometry.original_hw))
        width = hooks.written_dictionary(observer.model, source.block).shape[1]
        if (source.site, source.geometry) != expected or width != stored.atlas.num_atoms:
            raise InputError(
                f"{self.atlas}: an atlas of other codes: expected {width} {site.value} on "
                f"{expected[1].grid_hw} patches, found {stored.atlas.num_atoms} "
                f"{shorten(source.site)} on {source.geometry.grid_hw}"
            )
        return observer

    def _choose(
        self, geometry: ImageGeometry
    ) -> tuple[Bool[np.ndarray, "h w"], Bool[np.ndarray, "H W"] | None]:
        """The patches that were asked for, and their outline in the image."""
        chosen = np.ones(geometry.grid_hw, dtype=bool)
        if self.mask is not None:
            mask = _read_mask(self.mask, geometry.original_hw)
            chosen = geometry.original_to_grid(mask[None])[0]
            if not chosen.any():
                raise InputError(f"{self.mask}: no patch has its centre in the mask")
            return chosen, mask
        if self.patch is None:
            return chosen, None
        y, x = map(int, self.patch.split(","))
        row, column = geometry.patch_at(y, x)
        x1, y1, x2, y2 = map(round, geometry.patch_box(row, column))
        outline = np.zeros(geometry.original_hw, dtype=bool)
        outline[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)] = True
        chosen[:] = False
        chosen[row, column] = True
        return chosen, outline

    def _write_csv(
        self, stored: StoredAtlas, contributions: AtomContributions, observer: Observer
    ) -> None:
        from crate_interp.runs.number_files import write_table
        from crate_interp.runs.provenance import provenance_of

        atlas, classes = stored.atlas, stored.source.classes
        rows = []
        for atom in np.argsort(-contributions.share, kind="stable").tolist():
            best = int(atlas.best_class[atom])
            share, norm = (
                float(values[atom]) for values in (contributions.share, contributions.norm)
            )
            statistics = (atlas.patch_frequency[atom], atlas.selectivity[atom])
            name = classes[best] if best >= 0 else ""
            rows.append([atom, repr(share), repr(norm), *(f"{n:.6g}" for n in statistics), name])
        header = ("atom", "share", "norm", "patch_frequency", "selectivity", "class")
        about = provenance_of(self._model(stored), observer)
        about["settings"] |= {
            "image": data.plain_place(self.image),
            "patch": self.patch,
            "mask": self.mask,
        }
        write_table(self.output.with_suffix(".csv"), header, rows, about)


def _read_mask(path: Path, expected_hw: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    rgb = data.read_image(path)
    if rgb.shape[:2] != expected_hw:
        raise InputError(
            f"{path}: expected a mask of the image's {expected_hw} pixels (height, width), found "
            f"{rgb.shape[:2]}"
        )
    mask: Bool[np.ndarray, "H W"] = np.asarray(rgb.any(axis=2))
    if not mask.any():
        raise InputError(f"{path}: expected chosen pixels in the mask, found it black")
    return mask


def _report(stored: StoredAtlas, contributions: AtomContributions, order: list[int]) -> None:
    atlas, classes = stored.atlas, stored.source.classes
    for atom in order:
        best = int(atlas.best_class[atom])
        name = f"{classes[best]} ({atlas.selectivity[atom]:.2f})" if best >= 0 else ""
        print(f"{atom:6d}  {100 * contributions.share[atom]:6.1f} %  {name}".rstrip())
    first = contributions.share[order].sum()
    print(f"together {100 * first:.1f} %")
