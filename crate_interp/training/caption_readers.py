"""Readers of captioned images by number: WebDataset's shards, and tables of paths and captions.

Shapes: N images.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from jaxtyping import Int64

from crate_interp.data.stored import read_part
from crate_interp.errors import InputError, shorten
from crate_interp.files import read_bytes
from crate_interp.training.shards import find_shards, picture_of, samples_of

__all__ = ["CaptionReader", "CaptionShards", "CaptionTable"]

_TABLE_COLUMNS = (("filepath", "path"), ("title", "caption"))  # the first names are open_clip's


class CaptionReader(Protocol):
    """Images and their captions by number."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> BinaryIO:
        """Open an image.

        Raises:
            OSError: It cannot be opened.
        """

    def caption(self, index: int) -> str:
        """Read the caption of an image.

        Raises:
            InputError: It is no UTF-8.
        """

    def path(self, index: int) -> str:
        """Name an image inside the data, wherever these lie."""


class CaptionShards:
    """The images of shards with a `.txt` beside each, as img2dataset writes them.

    Args:
        folder: Folder of the shards.
        pattern: Names of the shards, with braces; see `expand_braces`.

    Raises:
        InputError: A shard is missing, cannot be read or is empty; or a sample has no image or no
            caption.
    """

    def __init__(self, folder: Path, pattern: str) -> None:
        self._shards = find_shards(folder, pattern)
        parts = [list(_places(number, shard)) for number, shard in enumerate(self._shards)]
        # An array, not a list: worker processes share it instead of copying it.
        self._rows: Int64[np.ndarray, "N 5"] = np.concatenate(
            [np.array(part, dtype=np.int64) for part in parts]
        )

    def __len__(self) -> int:
        return len(self._rows)

    def image(self, index: int) -> BinaryIO:
        """Open an image where it lies in its shard."""
        number, offset, size, _, _ = self._rows[index].tolist()
        return read_part(self._shards[number], offset, size)

    def caption(self, index: int) -> str:
        """Read the caption of an image, without the white space at its ends."""
        number, _, _, offset, size = self._rows[index].tolist()
        content = read_part(self._shards[number], offset, size).read()
        try:
            return content.decode().strip()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self._shards[number]}: caption at byte {offset}: expected UTF-8, found "
                f"{error.reason} at {error.start}"
            ) from None

    def path(self, index: int) -> str:
        """Give shard and offset of an image."""
        number, offset, *_ = self._rows[index].tolist()
        return f"{self._shards[number].name}/{offset}"


def _places(number: int, shard: Path) -> Iterator[tuple[int, int, int, int, int]]:
    """Number of the shard, and offset and size of each image and of its caption, bytes."""
    for key, files in samples_of(shard):
        picture, text = picture_of(shard, key, files), files.get("txt")
        if text is None:
            raise InputError(f"{shard}: {key}: no caption, expected .txt, found {', '.join(files)}")
        yield number, picture.offset_data, picture.size, text.offset_data, text.size


class CaptionTable:
    """The rows of a CSV or TSV file: the path of an image, and its caption.

    Args:
        place: The file. Its first line names its columns, `filepath` and `title` as open_clip has
            them, or `path` and `caption`; a tab in it parts columns, otherwise commas do.

    Raises:
        InputError: It cannot be read, has no such columns, or no row.
    """

    def __init__(self, place: Path) -> None:
        self._folder, self._paths, self._captions = place.parent, list[str](), list[str]()
        try:
            content = read_bytes(place).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{place}: expected UTF-8, found {error.reason} at {error.start}"
            ) from None
        is_tabbed = "\t" in content.partition("\n")[0]
        rows = csv.reader(io.StringIO(content, newline=""), delimiter="\t" if is_tabbed else ",")
        try:
            header = next(rows, [])
            image, caption = (_column_of(place, header, names) for names in _TABLE_COLUMNS)
            for row in rows:
                if row and len(row) != len(header):
                    raise InputError(
                        f"{place}, line {rows.line_num}: expected {len(header)} cells, found "
                        f"{len(row)}"
                    )
                if row:
                    self._paths.append(row[image])
                    self._captions.append(row[caption])
        except csv.Error as error:
            raise InputError(f"{place}, line {rows.line_num}: {error}") from None
        if not self._paths:
            raise InputError(f"{place}: expected a row of an image or more, found none")

    def __len__(self) -> int:
        return len(self._paths)

    def image(self, index: int) -> BinaryIO:
        """Open an image; a path that is not absolute begins at the folder of the table."""
        return (self._folder / self._paths[index]).open("rb")

    def caption(self, index: int) -> str:
        """Give the caption of an image."""
        return self._captions[index]

    def path(self, index: int) -> str:
        """Give the path of an image, as the table has it."""
        return self._paths[index]


def _column_of(place: Path, header: list[str], names: tuple[str, ...]) -> int:
    present = [header.index(name) for name in names if name in header]
    if not present:
        raise InputError(
            f"{place}: expected a column {' or '.join(names)}, found {shorten(', '.join(header))}"
        )
    return present[0]
