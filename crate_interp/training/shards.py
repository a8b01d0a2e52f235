"""WebDataset's shards, read by position: sampling, stops and several processes as with folders.

A shard is a tar file. The files of a sample lie in it under one key, the path up to the first dot
of the file's name: `a/000.jpg` and `a/000.cls`. The label is the text of `.cls`, a number, or a key
of `.json`. Each shard is read through once, at the start, for where its images lie.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
from jaxtyping import Int64

from crate_interp.data.stored import read_part
from crate_interp.data.tars import expand_braces, tar_members
from crate_interp.errors import InputError

__all__ = ["ShardReader", "find_shards", "picture_of", "samples_of"]

PICTURES = ("jpg", "jpeg", "png", "webp")
_KEY = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")


class ShardReader:
    """The images and labels of shards, by number.

    Args:
        folder: Folder of the shards.
        pattern: Names of the shards, with braces; see `expand_braces`.
        target_key: Key of the label in `.json`.

    Attributes:
        classes: Empty: shards do not name their classes.

    Raises:
        InputError: A shard is missing, cannot be read or is empty; a sample has no image, no
            label, or a label that is no whole number; or a name occurs twice.
    """

    classes: ClassVar[dict[int, str]] = {}

    def __init__(self, folder: Path, pattern: str, target_key: str = "label") -> None:
        self.shards = find_shards(folder, pattern)
        # An array, not a list: worker processes share it instead of copying it.
        self._rows: Int64[np.ndarray, "N 4"] = np.concatenate(
            [
                np.array([(number, *row) for row in _labelled(shard, target_key)], dtype=np.int64)
                for number, shard in enumerate(self.shards)
            ]
        )

    @property
    def labels(self) -> Int64[np.ndarray, " N"]:
        """Label of each image."""
        return self._rows[:, 3]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[BinaryIO, int]:
        number, offset, size, label = self._rows[index].tolist()
        return read_part(self.shards[number], offset, size), label

    def path(self, index: int) -> str:
        """Give shard and offset of an image, which are at hand without reading the shard."""
        number, offset, _, _ = self._rows[index].tolist()
        return f"{self.shards[number].name}/{offset}"

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        """Name an image, as timm's readers do; `absolute`: with its shard."""
        # The names of millions of images are not kept: that of a faulty one is looked up.
        number, offset, _, _ = self._rows[index].tolist()
        with tarfile.open(self.shards[number], "r:") as shard:
            name = next(member.name for member in shard if member.offset_data == offset)
        if basename:
            return Path(name).name
        return f"{self.shards[number]}: {name}" if absolute else name


def find_shards(folder: Path, pattern: str) -> list[Path]:
    """Find shards by their names, with braces; see `expand_braces`.

    Raises:
        InputError: The folder or a shard is missing, or these are no names of shards.
    """
    if not folder.is_dir():
        raise InputError(
            f"no folder {folder}; the names of the shards in it belong in train_split and "
            "validation_split"
        )
    if not pattern.endswith(".tar"):
        raise InputError(
            f"expected the names of shards in {folder}, for instance "
            f"train-{{0000..0010}}.tar, found {pattern!r}"
        )
    shards = [folder / name for name in expand_braces(pattern)]
    missing = [str(shard) for shard in shards if not shard.is_file()]
    if missing:
        raise InputError(f"{len(missing)} of {len(shards)} shards missing: {missing[:3]}")
    return shards


def samples_of(path: Path) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Give the samples of a shard: their keys, and their files by suffix without the dot.

    Raises:
        InputError: The shard cannot be read or is empty, or a name occurs twice.
    """
    samples: dict[str, dict[str, tarfile.TarInfo]] = {}
    for member in tar_members(str(path)):
        name = _KEY.fullmatch(member.name)
        if not member.isreg() or name is None or name[1].startswith("__"):
            continue  # folders, and what WebDataset keeps for itself
        files = samples.setdefault(name[1], {})
        if files.setdefault(name[2].lower(), member) is not member:
            raise InputError(f"{path}: {member.name}: occurs twice")
    if not samples:
        raise InputError(f"{path}: no images")
    yield from samples.items()


def picture_of(path: Path, key: str, files: Mapping[str, tarfile.TarInfo]) -> tarfile.TarInfo:
    """Choose the image of a sample.

    Raises:
        InputError: It has none.
    """
    picture = next((files[kind] for kind in PICTURES if kind in files), None)
    if picture is None:
        raise InputError(f"{path}: {key}: no image, found {', '.join(files)}")
    return picture


def _labelled(path: Path, target_key: str) -> Iterator[tuple[int, int, int]]:
    """Offset and size of each image of a shard, bytes, and its label."""
    for key, files in samples_of(path):
        picture = picture_of(path, key, files)
        yield picture.offset_data, picture.size, _label(path, key, files, target_key)


def _label(path: Path, key: str, files: dict[str, tarfile.TarInfo], target_key: str) -> int:
    name = f"{path}: {key}"
    kind = next((kind for kind in ("cls", "json") if kind in files), None)
    if kind is None:
        raise InputError(f"{name}: no label, expected .cls or .json, found {', '.join(files)}")
    text = read_part(path, files[kind].offset_data, files[kind].size).read()
    value: Any = text.decode(errors="replace").strip()
    if kind == "json":
        try:
            value = json.loads(text)[target_key]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{name}.json: no key {target_key!r} ({error!r})") from error
    try:
        if isinstance(value, float) and not value.is_integer():
            raise ValueError
        return int(value)
    except (ValueError, TypeError) as error:
        raise InputError(f"{name}.{kind}: expected a whole number, found {value!r}") from error
