"""Sources of images: class folders, tar files, shards, torchvision's and hub's data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import torchvision.datasets
from timm.data import ImageDataset, create_dataset
from timm.data.readers.reader_image_in_tar import ReaderImageInTar
from torch.utils.data import ConcatDataset

from crate_interp.errors import InputError
from crate_interp.training.recipe import Recipe
from crate_interp.training.shards import ShardReader, read_part

__all__ = ["open_source"]

# Data sets of torchvision that timm does not know; their splits are torchvision's own.
TORCHVISION = {"flowers102": "Flowers102", "oxfordiiitpet": "OxfordIIITPet"}
VALIDATION = ("validation", "val", "valid")  # names of one split


def open_source(recipe: Recipe, split: str) -> Any:
    """Open the images of a split.

    Args:
        recipe: Recipe, which names the data; see `Recipe.data`.
        split: The recipe's `train_split` or `validation_split`.

    Returns:
        A data set with a length, whose items are images and labels, or which has a timm `reader`.

    Raises:
        InputError: The data are a stream, or there are no such images. The libraries that read
            them raise errors of their own.
    """
    kind, _, name = recipe.data.partition("/")
    kind = kind.lower()
    if kind in ("hfids", "tfds"):
        raise InputError(
            "a stream has no position to go on from after a stop; "
            "expected a folder, a tar file, wds/FOLDER, torch/NAME or hfds/NAME"
        )
    if kind == "wds":
        folder = Path(name)
        if not folder.is_dir():
            raise InputError(
                f"no folder {folder}; the names of the shards in it belong in train_split and "
                "validation_split"
            )
        if not split.endswith(".tar"):
            raise InputError(
                f"expected the names of shards in {folder}, for instance "
                f"train-{{0000..0010}}.tar, found {split!r}"
            )
        return ImageDataset(name, reader=ShardReader(folder, split, **recipe.data_args))
    if kind == "torch" and name.lower() in TORCHVISION:
        dataset = getattr(torchvision.datasets, TORCHVISION[name.lower()])
        joined: Any = ConcatDataset(
            dataset(recipe.data_root, split=part, **recipe.data_args) for part in split.split("+")
        )
        joined.classes = getattr(joined.datasets[0], "classes", None)
        return joined
    if kind in ("torch", "hfds"):
        return create_dataset(recipe.data, recipe.data_root, split, **recipe.data_args)
    tar = _tar_of(recipe, split)
    if tar is not None:
        return ImageDataset(str(tar), reader=TarReader(tar, **recipe.data_args))
    return create_dataset("", recipe.data, split, **recipe.data_args)


class TarReader:
    """The images of a tar file with class folders, or of a folder of tar files, one per class.

    Args:
        path: The file or the folder.

    Attributes:
        class_to_idx: Number of each class.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # timm would write an index, a pickle, beside large files.
        self._index: Any = ReaderImageInTar(str(path), cache_tarinfo=False)
        self.class_to_idx: dict[str, int] = self._index.class_name_to_idx

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> tuple[BinaryIO, int]:
        # Not by timm, which leaves files open, and for forked processes to share.
        member, _, inside = self._index.samples[index]
        offset = member.offset_data + (0 if inside is None else inside.offset_data)
        return read_part(self._file(index), offset, member.size), int(self._index.targets[index])

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        """Name an image, as timm's readers do; `absolute`: with its tar file."""
        name: str = self._index.filename(index, basename=basename)
        return f"{self._file(index)}: {name}" if absolute else name

    def _file(self, index: int) -> Path:
        name = self._index.samples[index][1]
        return self._path / name if name else self._path


def _tar_of(recipe: Recipe, split: str) -> Path | None:
    """The tar file of a split, or the folder of its tar files, if that is what the data are."""
    data = Path(recipe.data)
    if data.suffix.lower() == ".tar":
        if recipe.validation_split not in (None, recipe.train_split):
            raise InputError(
                "one tar file is one split: name the folder of train.tar and validation.tar, or "
                "set validation_split: null"
            )
        return data
    names = (split, *(name for name in VALIDATION if split in VALIDATION and name != split))
    for name in names:
        if (data / f"{name}.tar").is_file():
            return data / f"{name}.tar"
        folder = data / name
        if any(folder.glob("*.tar")) and not any(path.is_dir() for path in folder.iterdir()):
            return folder
    tars = sorted(path.name for path in data.glob("*.tar"))
    if tars:
        raise InputError(f"expected {names[0]}.tar in {data}, found {', '.join(tars[:3])}")
    return None
