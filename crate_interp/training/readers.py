"""Readers of images by number: class folders, tar files, shards, torchvision's and hub's data sets.

Shapes: N images.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import torchvision.datasets
from jaxtyping import Int64
from PIL import Image
from timm.data import create_dataset
from timm.data.readers.reader_image_in_tar import ReaderImageInTar

from crate_interp.data.image_files import only_image_formats
from crate_interp.data.stored import read_part
from crate_interp.errors import InputError
from crate_interp.training.shards import ShardReader
from crate_interp.training.sources import Source

__all__ = ["Reader", "folder_of", "open_reader", "parts_of"]

# Data sets of torchvision that timm does not know; their splits are torchvision's own.
TORCHVISION = {"flowers102": "Flowers102", "oxfordiiitpet": "OxfordIIITPet"}
VALIDATION = ("validation", "val", "valid")  # names of one split


class Reader(Protocol):
    """Images of a part of a source, by number, with their labels."""

    @property
    def classes(self) -> Mapping[int, str]:
        """Names that the source has for its classes, by label; empty if it has none."""

    @property
    def labels(self) -> Int64[np.ndarray, " N"] | None:
        """Label of each image; `None` where labels are known only once images are read."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[BinaryIO | Image.Image, int]: ...

    def path(self, index: int) -> str:
        """Give the path of an image inside the source."""

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        """Name an image, as timm's readers do; `absolute`: with the place of the source."""


def parts_of(source: Source, split: str) -> list[str]:
    """Give the parts of a split, `train+val`; shards and the hub have names of their own."""
    kind = source.data.partition("/")[0].lower()
    return [split] if kind in ("wds", "hfds") else split.split("+")


def folder_of(source: Source, root: str | None) -> Path:
    """Give the place of a source that is a folder or a file."""
    return Path(root or "", source.data)


def open_reader(source: Source, root: str | None, part: str, only: bool = True) -> Reader:
    """Open the images of a part of a source.

    Args:
        source: Source; see `Source.data`.
        root: Folder of a named data set, and of paths that are relative.
        part: Part to open, one of `parts_of`.
        only: Whether this is the only part; others may not fall back to the whole folder.

    Raises:
        InputError: The data are a stream, or there are no such images. The libraries that read
            them raise errors of their own.
    """
    kind, _, name = source.data.partition("/")
    kind, arguments = kind.lower(), source.data_args or {}
    if kind in ("hfids", "tfds"):
        raise InputError(
            "a stream has no position to go on from after a stop; "
            "expected a folder, a tar file, wds/FOLDER, torch/NAME or hfds/NAME"
        )
    if kind == "wds":
        return ShardReader(Path(root or "", name), part, **arguments)
    if kind == "torch" and name.lower() in TORCHVISION:
        dataset = getattr(torchvision.datasets, TORCHVISION[name.lower()])
        return DatasetReader(dataset(root, split=part, **arguments), source.data, part)
    if kind in ("torch", "hfds"):
        return DatasetReader(
            create_dataset(source.data, root, part, **arguments), source.data, part
        )
    folder = folder_of(source, root)
    if not folder.exists():
        raise InputError(f"expected a folder or a tar file {folder.absolute()}, found none")
    tar = _tar_of(source, folder, part)
    if tar is not None:
        return TarReader(tar, "" if tar == folder else tar.name.removesuffix(".tar"), **arguments)
    if not only and not (folder / part).is_dir():
        raise InputError(f"expected a folder {part!r} in {folder}, found {_entries_of(folder)}")
    return FolderReader(folder, part, **arguments)


class FolderReader:
    """The images of a folder of class folders, or of the folder of a split in it.

    Args:
        folder: The whole folder.
        part: Split, a folder in it; without one, the whole is read.
        arguments: More arguments of timm's reader.

    Attributes:
        classes: Names of the class folders, by label.
    """

    def __init__(self, folder: Path, part: str, **arguments: Any) -> None:
        self._folder = str(folder)
        self._reader = create_dataset("", self._folder, part, **arguments).reader
        self.classes = _by_label(self._reader.class_to_idx)

    @property
    def labels(self) -> Int64[np.ndarray, " N"]:
        """Label of each image."""
        return np.array([label for _, label in self._reader.samples], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> tuple[BinaryIO, int]:
        stream, label = self._reader[index]
        return stream, int(label)

    def path(self, index: int) -> str:
        """Give the path of an image in the whole folder, with slashes."""
        path: str = self._reader.samples[index][0]
        return path.removeprefix(self._folder).replace(os.sep, "/").lstrip("/")

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        """Name an image, as timm's readers do."""
        return str(self._reader.filename(index, basename=basename, absolute=absolute))


class TarReader:
    """The images of a tar file with class folders, or of a folder of tar files, one per class.

    Args:
        path: The file or the folder.
        part: Folder that paths of images begin with, as if the tar file were unpacked there.

    Attributes:
        classes: Names of the class folders, by label.
        labels: Label of each image.
    """

    def __init__(self, path: Path, part: str) -> None:
        self._path, self._part = path, part
        # timm would write an index, a pickle, beside large files.
        self._index: Any = ReaderImageInTar(str(path), cache_tarinfo=False)
        self.classes = _by_label(self._index.class_name_to_idx)
        self.labels = np.asarray(self._index.targets, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> tuple[BinaryIO, int]:
        # Not by timm, which leaves files open, and for forked processes to share.
        member, _, inside = self._index.samples[index]
        offset = member.offset_data + (0 if inside is None else inside.offset_data)
        return read_part(self._file(index), offset, member.size), int(self.labels[index])

    def path(self, index: int) -> str:
        """Give the path of an image, as if all tar files were unpacked."""
        member, file, inside = self._index.samples[index]
        tars = [name for name in (file, inside and inside.name) if name]
        folders = [self._part, *(name.removesuffix(".tar") for name in tars)]
        return "/".join(part for part in (*folders, member.name.removeprefix("./")) if part)

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        """Name an image, as timm's readers do; `absolute`: with its tar file."""
        name: str = self._index.filename(index, basename=basename)
        return f"{self._file(index)}: {name}" if absolute else name

    def _file(self, index: int) -> Path:
        name = self._index.samples[index][1]
        return self._path / name if name else self._path


class DatasetReader:
    """The images of a named data set of torchvision, or of the hub by timm.

    Args:
        dataset: The data set, as torchvision or timm has it.
        name: Name of the data set, for messages.
        part: Split, for names of images.

    Attributes:
        classes: Names of the classes, by label; empty if the data set has none.
        labels: Label of each image, if the data set says them at once.
    """

    def __init__(self, dataset: Any, name: str, part: str) -> None:
        self._dataset, self._name, self._part = dataset, name, part
        self._reader = getattr(dataset, "reader", None)
        names = getattr(dataset, "classes", None) or ()
        self.classes = _by_label(getattr(self._reader, "class_to_idx", None) or {}) or {
            label: str(name) for label, name in enumerate(names)
        }
        targets = getattr(dataset, "targets", None)
        self.labels = None if targets is None else np.asarray(targets, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[BinaryIO | Image.Image, int]:
        if self._reader is not None:
            stream, label = self._reader[index]
            return stream, int(label)
        with only_image_formats():  # these data sets open their images themselves
            image, label = self._dataset[index]
            return image.convert("RGB"), int(label)

    def path(self, index: int) -> str:
        """Give split and number of an image."""
        return f"{self._part}/{index}"

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        """Name an image, as timm's readers do."""
        if self._reader is None:
            return f"{self._name}, image {index}"
        return str(self._dataset.filename(index, basename=basename, absolute=absolute))


def _by_label(labels: Mapping[Any, int]) -> dict[int, str]:
    return {labels[name]: str(name) for name in sorted(labels, key=labels.__getitem__)}


def _tar_of(source: Source, folder: Path, part: str) -> Path | None:
    """The tar file of a split, or the folder of its tar files, if that is what the data are."""
    if folder.suffix.lower() == ".tar":
        if source.validation_split not in (None, source.train_split):
            raise InputError(
                "one tar file is one split: name the folder of train.tar and validation.tar, or "
                "set validation_split: null, or held_out: 0.05"
            )
        return folder
    names = (part, *(name for name in VALIDATION if part in VALIDATION and name != part))
    for name in names:
        if (folder / f"{name}.tar").is_file():
            return folder / f"{name}.tar"
        inner = folder / name
        if any(inner.glob("*.tar")) and not any(path.is_dir() for path in inner.iterdir()):
            return inner
    tars = sorted(path.name for path in folder.glob("*.tar"))
    if tars:
        raise InputError(f"expected {names[0]}.tar in {source.data}, found {', '.join(tars[:3])}")
    return None


def _entries_of(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "nothing"
