"""The command `atlas`: what makes each atom of a block fire, as an index, a page and a sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from crate_interp.analysis import Atlas, AtlasBuilder
from crate_interp.config import AtlasConfig
from crate_interp.data import ImageRecord, ImageSet, ResizedImage, open_class_folders
from crate_interp.data.coco_masks import draw_segmentation
from crate_interp.engine import StageClock
from crate_interp.errors import InputError
from crate_interp.evaluation.coco_input import prepare_ground_truth
from crate_interp.hooks import Observer, atom_site, written_dictionary
from crate_interp.hooks.sites import blocks_of
from crate_interp.runs.atlas_files import (
    THUMBNAILS,
    AtlasSource,
    StoredAtlas,
    new_atlas,
    write_atlas,
    write_thumbnail,
)
from crate_interp.runs.atom_rows import atom_row, describe_site
from crate_interp.runs.figure_files import save_figure
from crate_interp.runs.inference import RANDOM
from crate_interp.runs.observation import load_observer, observe, open_pictures
from crate_interp.structures import Activations, ImageGeometry
from crate_interp.visualization import AtomCard, Thumbnail, atlas_page, atom_sheet
from crate_interp.weights import parameters_checksum, resolve_weights, weights_checksum

__all__ = ["run"]

SHEET_ATOMS = 12
FEW_IMAGES = 5  # an atom that fires in fewer is not chosen for the sheet

Labels = Callable[[ImageRecord, ImageGeometry], Int64[np.ndarray, " n"]]
Codes = Float[Tensor, "n A"]


@dataclass(frozen=True)
class _Labelled:
    """Images, and what is known of the class of their patches."""

    images: ImageSet
    classes: tuple[str, ...] = ()
    labels: Labels | None = None


def run(config: AtlasConfig) -> int:
    """Make the atlas and write its folder.

    Returns:
        0, or 1 if an image could not be read.

    Raises:
        InputError: No image, a block or an atom of the sheet that the model does not have, an
            output folder that holds something else, or as `load_observer`.
    """
    pictures = _open(config)
    observer = load_observer(config)
    source = _source_of(config, observer, pictures)
    width = written_dictionary(observer.model, source.block).shape[1]
    for atom in config.sheet or ():
        if not 0 <= atom < width:
            raise InputError(f"sheet: atom {atom} is out of range: the block has 0 to {width - 1}")
    with new_atlas(config.output) as folder:
        atlas, failed = _gather(config, observer, source, pictures)
        records = {record.image_id: record for record in pictures.images.records}
        shown = np.unique(atlas.top_images[atlas.top_images >= 0]).tolist()
        thumbnails = [_thumbnail_of(folder, records[number]) for number in shown]
        names = {number: records[number].file_name for number in shown}
        files = {thumbnail.number: Path(thumbnail.file).name for thumbnail in thumbnails}
        stored = StoredAtlas(atlas, source, names, files)
        write_atlas(folder, stored)
        _write_page(folder, stored, thumbnails)
        chosen = _chosen_atoms(atlas) if config.sheet is None else config.sheet
        rows = [atom_row(folder, stored, atom) for atom in chosen]
        figure = atom_sheet(rows, describe_site(source), width=config.width_inches)
        drawn = save_figure(figure, folder / "sheet.png", config)
    _report(config.output, [file.name for file in drawn], atlas, failed)
    return 1 if failed else 0


def _open(config: AtlasConfig) -> _Labelled:
    folders = None
    if len(config.images) == 1 and config.images[0].is_dir():
        folders = open_class_folders(config.images[0], config.recursive)
    if folders is None:
        images = open_pictures(config)
        return _Labelled(images) if images.annotations is None else _by_masks(images)
    by_id = folders.labels

    def labels(record: ImageRecord, geometry: ImageGeometry) -> Int64[np.ndarray, " n"]:
        rows, columns = geometry.grid_hw
        return np.full(rows * columns, by_id[record.image_id], dtype=np.int64)

    return _Labelled(folders.images.limit(config.limit), folders.classes, labels)


def _by_masks(images: ImageSet) -> _Labelled:
    """Classes by annotated masks: of a patch, the object that its centre lies in, if any."""
    content = prepare_ground_truth(images.annotations or {}, "segm", class_agnostic=False)
    numbers = {entry["id"]: number for number, entry in enumerate(content["categories"])}
    by_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)

    def labels(record: ImageRecord, geometry: ImageGeometry) -> Int64[np.ndarray, " n"]:
        found = np.full(geometry.grid_hw, len(numbers), dtype=np.int64)
        for annotation in by_image.get(record.image_id, ()):
            mask = draw_segmentation(annotation["segmentation"], geometry.original_hw)
            inside = geometry.original_to_grid(mask[None])[0]
            found[inside] = numbers[annotation["category_id"]]
        return found.ravel()

    listed = (images.annotations or {})["categories"]
    names = tuple(str(entry.get("name", entry["id"])) for entry in listed)
    return _Labelled(images, (*names, "background"), labels)


def _source_of(config: AtlasConfig, observer: Observer, pictures: _Labelled) -> AtlasSource:
    site = atom_site(observer.model, config.block)
    untrained, weights = config.weights == RANDOM, config.weights
    path = None if untrained else resolve_weights(config.model, weights)
    if weights is not None and not untrained:
        weights = weights.absolute()  # `atoms` may run in another folder
    return AtlasSource(
        model=config.model,
        weights=None if weights is None else str(weights),
        model_args=config.model_args,
        weights_sha256=None if path is None else weights_checksum(path),
        parameters_sha256=parameters_checksum(observer.model),
        block=config.block % len(blocks_of(observer.model)),
        site=site.value,
        geometry=observer.geometry(observer.input_hw),
        stride=config.stride,
        images=pictures.images.name,
        classes=pictures.classes,
        mean=config.mean,
        std=config.std,
    )


def _gather(
    config: AtlasConfig, observer: Observer, source: AtlasSource, pictures: _Labelled
) -> tuple[Atlas, int]:
    """The atlas, and how many images failed."""
    width = written_dictionary(observer.model, source.block).shape[1]
    builder = AtlasBuilder(
        width, observer.grid_hw, len(pictures.classes), config.strongest, observer.device
    )

    def finish(
        record: ImageRecord, image: ResizedImage, activations: Activations, _: StageClock
    ) -> tuple[Codes, Int64[np.ndarray, " n"] | None]:
        codes = activations.patch_features(source.site, source.block)[0].T
        geometry = observer.geometry(image.original_hw)
        return codes, pictures.labels(record, geometry) if pictures.labels else None

    failed = 0
    sites, blocks = [source.site], [source.block]
    for image in observe(observer, pictures.images.records, sites, blocks, finish, config):
        if image.result is None:
            failed += 1
        else:
            builder.add(image.record.image_id, *image.result)
    return builder.build(), failed


def _thumbnail_of(folder: Path, record: ImageRecord) -> Thumbnail:
    file, hw = write_thumbnail(folder, record.image_id, record.read())
    return Thumbnail(record.image_id, record.file_name, f"{THUMBNAILS}/{file}", hw)


def _write_page(folder: Path, stored: StoredAtlas, thumbnails: Sequence[Thumbnail]) -> None:
    atlas, source = stored.atlas, stored.source
    cards = [
        AtomCard(
            atom=atom,
            frequency=float(atlas.patch_frequency[atom]),
            images=int(atlas.fired_images[atom]),
            mean=float(atlas.mean_value[atom]),
            selectivity=float(atlas.selectivity[atom]),
            best_class=int(atlas.best_class[atom]),
            mean_map=atlas.mean_map[atom],
            patches=[
                (int(image), int(patch), float(value))
                for image, patch, value in zip(
                    atlas.top_images[atom],
                    atlas.top_patches[atom],
                    atlas.top_values[atom],
                    strict=True,
                )
                if image >= 0
            ],
        )
        for atom in range(atlas.num_atoms)
    ]
    rows, columns = atlas.grid_hw
    about = (
        f"{atlas.num_images} images of {source.geometry.input_hw[0]} pixels, "
        f"{rows} x {columns} patches each. An atom fires on a patch where its value is positive; "
        "its strongest patches are of different images, outlined in their surroundings; the map "
        "shows where in an image its mean value is high."
    )
    if source.classes:
        about += (
            " Selectivity is (m - o) / (m + o), of the mean value m in the class named and the "
            "mean o over the other classes (Morcos et al. 2018)."
        )
    page = atlas_page(
        describe_site(source),
        about,
        cards,
        thumbnails,
        source.classes,
        source.geometry,
        atlas.num_images,
    )
    (folder / "index.html").write_text(page, encoding="utf-8")


def _chosen_atoms(atlas: Atlas) -> list[int]:
    """Atoms for a sheet, among those that fire in enough images.

    Of each class the most selective one comes first, then the second of each, and so on. Without
    classes, from rare ones to frequent ones in equal steps of rank.
    """
    enough = np.flatnonzero(atlas.fired_images >= min(FEW_IMAGES, atlas.num_images))
    if not len(enough):
        return [0]
    if (atlas.best_class < 0).all():
        order = enough[np.argsort(atlas.fired_patches[enough], kind="stable")].tolist()
        steps = np.linspace(0, len(order) - 1, min(SHEET_ATOMS, len(order)))
        return [order[at] for at in np.rint(steps).astype(int)]
    order = enough[np.argsort(-atlas.selectivity[enough], kind="stable")].tolist()
    seen: dict[int, int] = {}
    ranks = []
    for atom in order:
        best = int(atlas.best_class[atom])
        seen[best] = seen.get(best, 0) + 1
        ranks.append(seen[best])
    return [order[at] for at in np.argsort(ranks, kind="stable")[:SHEET_ATOMS]]


def _report(folder: Path, drawn: Sequence[str], atlas: Atlas, failed: int) -> None:
    dead = int((atlas.fired_patches == 0).sum())
    print(
        f"{atlas.num_images} images, {atlas.num_atoms} atoms, of which {dead} never fire; an atom "
        f"fires on {100 * float(np.median(atlas.patch_frequency)):.2g} % of the patches (median)"
    )
    if failed:
        print(f"{failed} images could not be read")
    print(f"atlas.npz, {', '.join(drawn)} and thumbnails/ are in {folder}")
    print(f"open {folder / 'index.html'} to see the atoms")
