"""What makes each atom of a block fire, as an index, a page and a sheet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np

from crate_interp import analysis, data, evaluation, hooks, visualization, weights
from crate_interp.errors import InputError, counted
from crate_interp.options import Range, option
from crate_interp.options.ranges import Index
from crate_interp.runs.command import Command, ImageFilesCommand, Reading
from crate_interp.runs.outputs import Conclusion

if TYPE_CHECKING:
    from jaxtyping import Int64

    from crate_interp.data import ImageRecord, ImageSet
    from crate_interp.runs.atlas_files import AtlasSource, StoredAtlas
    from crate_interp.runs.run import Run, SeenImage
    from crate_interp.structures import Activations, ImageGeometry
    from crate_interp.visualization import Thumbnail

    Labels = Callable[[ImageRecord, ImageGeometry], Int64[np.ndarray, " n"]]

__all__ = ["Atlas"]

SHEET_ATOMS = 12
FEW_IMAGES = 5  # an atom that fires in fewer is not chosen for the sheet

Strongest = Annotated[int, Range(1, 1000)]


@dataclass
class _Reading(Reading):
    """The site to read and its width, and the classes of the patches if they are known."""

    width: int = field(kw_only=True)
    classes: tuple[str, ...] = field(kw_only=True)
    labels: Labels | None = field(kw_only=True)


@dataclass(frozen=True, kw_only=True)
class Atlas(ImageFilesCommand):
    """Catalogue a block's atoms: how often and where they fire.

    In a folder of class folders, and in the built-in scenes, classes are known: the atlas then says
    for which classes an atom fires. `crate-interp atlas --text shakespeare --help` lists the
    options for text models.
    """

    group: ClassVar[str] = "look inside"
    one_grid: ClassVar[str] = "an atlas adds up where atoms fire on one grid"

    output: Path = option(
        "folder of the atlas: index.html, atlas.npz, sheet.png, thumbnails/", presentation=True
    )
    block: Index = option("block to read, from 0; negative counts from the last", -1)
    strongest: Strongest = option("patches to keep of each atom, each of another image", 10)
    sheet: list[Index] | None = option(
        "atoms of the sheet (default: twelve, the most selective of each class; without classes, "
        "from rare to frequent)",
        None,
        several=int,
        presentation=True,
    )

    @classmethod
    def kind_for(cls, arguments: Sequence[str]) -> type[Command]:
        """Choose the atlas of a text model if there is a `--text`."""
        from crate_interp.commands.text_atlas import TextAtlas

        texts = any(argument.split("=")[0] == "--text" for argument in arguments)
        return TextAtlas if texts else cls

    def check(self) -> None:
        """Refuse a folder that holds something else than an atlas."""
        from crate_interp.runs.atlas_files import check_atlas_folder

        check_atlas_folder(self.output)

    def place_of_run(self, output: Path) -> Path:
        """Keep the sums beside the output, which stays as it is until the new atlas is whole."""
        whole = output.absolute()
        return whole.parent / f".{whole.name}.run"

    def open_images(self) -> ImageSet:
        """Open the images; of class folders, images of all classes in turn."""
        from crate_interp.files import is_folder  # not for --help

        if len(self.images) == 1 and is_folder(folder := Path(self.images[0])):
            folders = data.open_class_folders(folder, self.recursive)
            if folders is not None:
                return folders.limit(self.limit)
        return super().open_images()

    def reading(self, run: Run) -> _Reading:
        """Read the codes of the block, or its neurons."""
        observer = run.observer
        site = hooks.atom_site(observer.model, self.block)
        width = hooks.written_dictionary(observer.model, self.block).shape[1]
        for atom in self.sheet or ():
            if not 0 <= atom < width:
                raise InputError(
                    f"sheet: atom {atom} is out of range: the block has 0 to {width - 1}"
                )
        classes, labels = _classes_of(run.images)
        return _Reading(
            [site],
            [self.block],
            settings={"site": site.value},
            width=width,
            classes=classes,
            labels=labels,
        )

    def collect(self, run: Run) -> None:
        """Add up what is measured of the images."""
        width, classes = run.reading.width, len(run.reading.classes)
        observer, strongest = run.observer, self.strongest
        builder = analysis.AtlasBuilder(
            width, observer.grid_hw, classes, strongest, observer.device
        )
        run.fold(self.measure, builder)

    def measure(self, run: Run, image: SeenImage, output: Activations) -> Mapping[str, Any]:
        """Read the values of the atoms at each patch, and the class of the patch."""
        codes = output.patch_features(run.settings["site"], self.block)[0].T
        labels = run.reading.labels
        return {"codes": codes, "labels": labels(image.record, image.geometry) if labels else None}

    def conclude(self, run: Run) -> Conclusion:
        """Write the folder, which is the old atlas until the new one is whole.

        The images that the atlas shows are read once more: which ones these are is known only at
        the end, and small copies of all images would take more room than all that is kept.
        """
        from crate_interp.runs import atlas_files, atom_rows, figure_files

        atlas = run.sums.build()
        source = self._source(run)
        records = {record.image_id: record for record in run.images.records}
        shown = np.unique(atlas.top_images[atlas.top_images >= 0]).tolist()
        chosen = _chosen_atoms(atlas) if self.sheet is None else self.sheet
        with atlas_files.new_atlas(self.output) as folder:
            thumbnails = [atlas_files.write_thumbnail(folder, records[number]) for number in shown]
            names = {number: records[number].file_name for number in shown}
            files = {thumbnail.number: Path(thumbnail.file).name for thumbnail in thumbnails}
            stored = atlas_files.StoredAtlas(atlas, source, names, files)
            atlas_files.write_atlas(folder, stored, run.provenance)
            title = atom_rows.describe_site(source)
            page = _page_of(stored, thumbnails, title)
            (folder / "index.html").write_text(page, encoding="utf-8")
            rows = [atom_rows.atom_row(folder, stored, atom) for atom in chosen]
            figure = visualization.atom_sheet(rows, title, width=self.width_inches)
            drawn = figure_files.save_figure(figure, folder / "sheet.png", self)
        dead = int((atlas.fired_patches == 0).sum())
        often = 100 * float(np.median(atlas.patch_frequency))
        return Conclusion(
            text=f"{counted(atlas.num_images, 'image')}, {atlas.num_atoms} atoms, of which {dead} "
            f"never fire; an atom fires on {often:.2g} % of the patches (median)\n"
            f"atlas.npz, {', '.join(file.name for file in drawn)} and thumbnails/ are in "
            f"{self.output}\nopen {self.output / 'index.html'} to see the atoms"
        )

    def _source(self, run: Run) -> AtlasSource:
        from crate_interp.runs.atlas_files import AtlasSource
        from crate_interp.runs.inference import RANDOM

        observer, path = run.observer, self.weights
        if path is not None and path != RANDOM:
            path = path.absolute()  # `atoms` may run in another folder
        return AtlasSource(
            model=self.model,
            weights=None if path is None else str(path),
            model_args=self.model_args,
            weights_sha256=run.provenance["weights"]["sha256"],
            parameters_sha256=weights.parameters_checksum(observer.model),
            block=self.block % len(hooks.blocks_of(observer.model)),
            site=run.settings["site"],
            geometry=observer.geometry(observer.input_hw),
            stride=self.stride,
            images=run.images.name,
            classes=run.reading.classes,
            mean=self.mean,
            std=self.std,
        )


def _classes_of(images: ImageSet) -> tuple[tuple[str, ...], Labels | None]:
    """Names of the classes, and what gives the class of each patch of an image, if it is known."""
    if isinstance(images, data.ClassFolders):
        by_id = images.labels

        def labels(record: ImageRecord, geometry: ImageGeometry) -> Int64[np.ndarray, " n"]:
            rows, columns = geometry.grid_hw
            return np.full(rows * columns, by_id[record.image_id], dtype=np.int64)

        return images.classes, labels
    return ((), None) if images.annotations is None else _classes_by_masks(images.annotations)


def _classes_by_masks(annotations: dict[str, Any]) -> tuple[tuple[str, ...], Labels]:
    """Classes by annotated masks: of a patch, the object that its centre lies in, if any."""
    content = evaluation.prepare_ground_truth(annotations, "segm", class_agnostic=False)
    numbers = {entry["id"]: number for number, entry in enumerate(content["categories"])}
    by_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)

    def labels(record: ImageRecord, geometry: ImageGeometry) -> Int64[np.ndarray, " n"]:
        drawn = np.full(geometry.grid_hw, len(numbers), dtype=np.int64)
        for annotation in by_image.get(record.image_id, ()):
            mask = data.draw_segmentation(annotation["segmentation"], geometry.original_hw)
            drawn[geometry.original_to_grid(mask[None])[0]] = numbers[annotation["category_id"]]
        return drawn.ravel()

    names = (str(entry.get("name", entry["id"])) for entry in annotations["categories"])
    return (*names, "background"), labels


def _page_of(stored: StoredAtlas, thumbnails: list[Thumbnail], title: str) -> str:
    atlas, source = stored.atlas, stored.source
    cards = [
        visualization.AtomCard(
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
        f"{counted(atlas.num_images, 'image')} of {source.geometry.input_hw[0]} pixels, "
        f"{rows} x {columns} patches each. An atom fires on a patch where its value is positive; "
        "its strongest patches are of different images, outlined in their surroundings; the map "
        "shows where in an image its mean value is high."
    )
    if source.classes:
        about += (
            " Selectivity is (m - o) / (m + o), of the mean value m in the class named and the "
            "mean o over the other classes (Morcos et al. 2018)."
        )
    return visualization.atlas_page(
        title,
        about,
        cards,
        thumbnails,
        source.classes,
        source.geometry,
        atlas.num_images,
    )


def _chosen_atoms(atlas: analysis.Atlas) -> list[int]:
    """Atoms for a sheet, among those that fire in enough images.

    The most selective one of each class comes first, then the second of each, and so on. Without
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
