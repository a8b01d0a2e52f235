"""The command `atoms`: which atoms write a patch or a region of an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from crate_interp.config import AtomsConfig, ModelConfig
from crate_interp.data import read_image
from crate_interp.errors import InputError, shorten
from crate_interp.hooks import (
    AtomContributions,
    Observer,
    atom_contributions,
    atom_site,
    written_dictionary,
)
from crate_interp.runs.atlas_files import StoredAtlas, read_atlas
from crate_interp.runs.atom_rows import atom_row, describe_site
from crate_interp.runs.figure_files import check_figure_path, list_files, save_figure
from crate_interp.runs.number_files import about_of, write_table
from crate_interp.runs.observation import load_observer
from crate_interp.structures import ImageGeometry
from crate_interp.visualization import atom_sheet
from crate_interp.weights import parameters_checksum

__all__ = ["run"]


def run(config: AtomsConfig) -> int:
    """Print the atoms, draw them as PNG and PDF, and write those of all atoms as CSV.

    Returns:
        0.

    Raises:
        InputError: The image, the mask or the atlas cannot be read, do not fit each other, or
            the model is not the one that the atlas was made of.
    """
    check_figure_path(config.output)
    stored = read_atlas(config.atlas)
    rgb = read_image(config.image)
    observer = _observer_of(config, stored)
    geometry = observer.geometry((rgb.shape[0], rgb.shape[1]))
    geometry.refuse_less_than_a_patch(str(config.image))
    chosen, outline = _choose(config, geometry)
    source = stored.source
    activations = observer.activations([rgb], [source.site], [source.block])
    codes = activations.patch_features(source.site, source.block)[0].T
    dictionary = written_dictionary(observer.model, source.block)
    contributions = atom_contributions(codes[chosen.ravel().tolist()], dictionary)
    order = np.argsort(-contributions.share, kind="stable")[: config.count].tolist()
    maps = codes.T.unflatten(1, geometry.grid_hw).clamp(min=0).cpu().numpy()
    rows = [
        atom_row(config.atlas, stored, atom, maps[atom], contributions.share[atom])
        for atom in order
    ]
    where = "image" if outline is None else "region" if config.mask else "patch"
    title = f"What writes this {where}? {describe_site(source)}"
    figure = atom_sheet(rows, title, rgb, outline, config.width_inches)
    drawn = save_figure(figure, config.output, config)
    _write_csv(config, stored, contributions, observer)
    print(f"{chosen.sum()} of {chosen.size} patches; atom, share of what the block writes there:")
    _report(stored, contributions, order)
    files = [*drawn, config.output.with_suffix(".csv")]
    print(f"{list_files(files)}: the CSV has all atoms")
    return 0


def _model_of(config: AtomsConfig, stored: StoredAtlas) -> ModelConfig:
    source = stored.source
    return ModelConfig(
        model=config.model or source.model,
        weights=config.weights or (Path(source.weights) if source.weights else None),
        model_args=dict(source.model_args),
        mean=source.mean,
        std=source.std,
        size=source.geometry.input_hw[0],
        stride=source.stride,
        device=config.device,
    )


def _observer_of(config: AtomsConfig, stored: StoredAtlas) -> Observer:
    source = stored.source
    try:
        observer = load_observer(_model_of(config, stored))
    except InputError as error:
        raise InputError(f"{config.atlas}: the model of this atlas: {error}") from error
    found = parameters_checksum(observer.model)
    if found != source.parameters_sha256:
        raise InputError(
            f"{config.atlas}: an atlas of another model: it was made of {source.model} with "
            f"parameters of checksum {source.parameters_sha256[:12]}, found "
            f"{config.model or source.model} with {found[:12]}"
        )
    site = atom_site(observer.model, source.block)
    expected = (site, observer.geometry(source.geometry.original_hw))
    width = written_dictionary(observer.model, source.block).shape[1]
    if (source.site, source.geometry) != expected or width != stored.atlas.num_atoms:
        raise InputError(
            f"{config.atlas}: an atlas of other codes: expected {width} {site.value} on "
            f"{expected[1].grid_hw} patches, found {stored.atlas.num_atoms} "
            f"{shorten(source.site)} on {source.geometry.grid_hw}"
        )
    return observer


def _choose(
    config: AtomsConfig, geometry: ImageGeometry
) -> tuple[Bool[np.ndarray, "h w"], Bool[np.ndarray, "H W"] | None]:
    """The patches that were asked for, and their outline in the image."""
    chosen = np.ones(geometry.grid_hw, dtype=bool)
    if config.mask is not None:
        mask = _read_mask(config.mask, geometry.original_hw)
        chosen = geometry.original_to_grid(mask[None])[0]
        if not chosen.any():
            raise InputError(f"{config.mask}: no patch has its centre in the mask")
        return chosen, mask
    if config.patch is None:
        return chosen, None
    y, x = map(int, config.patch.split(","))
    row, column = geometry.patch_at(y, x)
    x1, y1, x2, y2 = map(round, geometry.patch_box(row, column))
    outline = np.zeros(geometry.original_hw, dtype=bool)
    outline[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)] = True
    chosen[:] = False
    chosen[row, column] = True
    return chosen, outline


def _read_mask(path: Path, expected_hw: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    rgb: UInt8[np.ndarray, "H W 3"] = read_image(path)
    if rgb.shape[:2] != expected_hw:
        raise InputError(
            f"{path}: expected a mask of the image's {expected_hw} pixels (height, width), found "
            f"{rgb.shape[:2]}"
        )
    mask: Bool[np.ndarray, "H W"] = np.asarray(rgb.any(axis=2))
    if not mask.any():
        raise InputError(f"{path}: expected chosen pixels in the mask, found it black")
    return mask


def _write_csv(
    config: AtomsConfig,
    stored: StoredAtlas,
    contributions: AtomContributions,
    observer: Observer,
) -> None:
    atlas, classes = stored.atlas, stored.source.classes
    rows = []
    for atom in np.argsort(-contributions.share, kind="stable").tolist():
        best = int(atlas.best_class[atom])
        share, norm = (float(values[atom]) for values in (contributions.share, contributions.norm))
        statistics = (atlas.patch_frequency[atom], atlas.selectivity[atom])
        name = classes[best] if best >= 0 else ""
        rows.append([atom, repr(share), repr(norm), *(f"{n:.6g}" for n in statistics), name])
    header = ("atom", "share", "norm", "patch_frequency", "selectivity", "class")
    about = about_of(_model_of(config, stored), observer)
    about["settings"] |= {"image": config.image, "patch": config.patch, "mask": config.mask}
    write_table(config.output.with_suffix(".csv"), header, rows, about)


def _report(stored: StoredAtlas, contributions: AtomContributions, order: list[int]) -> None:
    atlas, classes = stored.atlas, stored.source.classes
    for atom in order:
        best = int(atlas.best_class[atom])
        name = f"{classes[best]} ({atlas.selectivity[atom]:.2f})" if best >= 0 else ""
        print(f"{atom:6d}  {100 * contributions.share[atom]:6.1f} %  {name}".rstrip())
    first = contributions.share[order].sum()
    print(f"together {100 * first:.1f} %")
