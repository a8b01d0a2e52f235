"""Texts of files and folders, and their tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from jaxtyping import Int

from crate_interp.data.hub_texts import fetch_hub_texts, is_hub_text, is_of_split
from crate_interp.data.text_tables import TABLE_SUFFIXES, read_rows
from crate_interp.data.vocabulary import CharacterVocabulary, Vocabulary
from crate_interp.errors import InputError
from crate_interp.files import opened, parse_json_as, read_bytes

__all__ = [
    "TEXT_SUFFIXES",
    "find_texts",
    "join_tokens",
    "list_texts",
    "one_row",
    "read_texts",
    "read_tokens",
    "text_files",
]

TEXT_SUFFIXES = (".txt", ".jsonl", ".tokens", ".raw", ".bin", *TABLE_SUFFIXES)
_INDICES = "cache-"  # begins the names of Arrow files that hold an order of rows, and no texts
_BUILT_IN = {"shakespeare": Path(__file__).parent / "shakespeare" / "shakespeare.txt"}


class _Line(TypedDict):
    text: str


def find_texts(name: str, root: str | None = None) -> Path:
    """Find a text file or a folder of texts, or a built-in text by its name, `shakespeare`.

    Args:
        name: Path or name; what lies at the path comes first.
        root: Folder of a relative path.

    Raises:
        InputError: There is neither.
    """
    place = Path(root or "") / name
    if not place.exists() and name in _BUILT_IN:
        return _BUILT_IN[name]
    if not place.is_file() and not place.is_dir():
        raise InputError(
            f"{place}: expected a text file, a folder of them, or {' or '.join(_BUILT_IN)}, found "
            "none"
        )
    return place


def text_files(name: str, root: str | None = None, split: str | None = None) -> list[Path]:
    """Find the text files that a name stands for; those of the hub are fetched.

    Args:
        name: As for `find_texts`; or a data set on the hub, as for `fetch_hub_texts`.
        root: Folder of a relative path.
        split: Part to find, as for `list_texts`.

    Raises:
        InputError: There is none, or the hub cannot be reached.
    """
    if is_hub_text(name):
        return fetch_hub_texts(name, split)
    return list_texts(find_texts(name, root), split)


def list_texts(place: Path, split: str | None = None) -> list[Path]:
    """Find the text files of a file or a folder, in the order of their names.

    Args:
        place: A text file of any name; or a folder of files that end as `TEXT_SUFFIXES`, in folders
            of their own, too.
        split: Part to find: a folder of this name in `place`, or the files of `place` of which a
            part of the name between dots is this, such as `wiki.train.tokens`; or, in folders, too,
            those named as `train-00000-of-00004.parquet`. `None`: all.

    Raises:
        InputError: There is none.
    """
    if place.is_file():
        return [place]
    inner = place / split if split else place
    files = [path for path in (inner if inner.is_dir() else place).rglob("*") if path.is_file()]
    if split and not inner.is_dir():
        files = [
            path
            for path in files
            if (path.parent == place and split in path.name.split("."))
            or (path.suffix.lower() in TABLE_SUFFIXES and is_of_split(path.name, split))
        ]
    texts = sorted(
        path
        for path in files
        if path.suffix.lower() in TEXT_SUFFIXES and not path.name.startswith(_INDICES)
    )
    if not texts:
        part = f"a folder {split}, or files such as {split}.txt," if split else "files"
        raise InputError(
            f"{place}: expected {part} ending in {', '.join(TEXT_SUFFIXES)}, found none"
        )
    return texts


def read_texts(path: Path, join_rows: bool = False) -> Iterator[str]:
    """Read the texts of a file: one; or in a `.jsonl` file one per line, in a table one per row.

    Args:
        path: The file; a text is under the key, or in the column, `text`.
        join_rows: Take lines of `.jsonl` and rows of tables as lines of one text.

    Raises:
        InputError: The file cannot be read, is empty, or is no UTF-8; or a line is not JSON.
    """
    texts = read_rows(path) if path.suffix.lower() in TABLE_SUFFIXES else _read_lines(path)
    if join_rows:
        yield "".join(text if text.endswith("\n") else f"{text}\n" for text in texts)
    else:
        yield from texts


def _read_lines(path: Path) -> Iterator[str]:
    try:
        content = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected UTF-8, found {error.reason} at {error.start}") from None
    if not content.strip():
        raise InputError(f"{path}: expected a text, found an empty file")
    if path.suffix.lower() != ".jsonl":
        yield content
        return
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            yield parse_json_as(line, _Line, f"{path}: line {number}")["text"]


def read_tokens(
    path: Path, vocabulary: Vocabulary, join_rows: bool = False
) -> Iterator[Int[np.ndarray, " T"]]:
    """Read the texts of a file as token numbers.

    Args:
        path: A file of texts, or `.bin`: token numbers, little-endian and of two bytes each, as
            nanoGPT prepares OpenWebText; it is not read into the memory.
        vocabulary: The vocabulary.
        join_rows: As for `read_texts`.

    Raises:
        InputError: As `read_texts`, or a part of a text is no token of the vocabulary.
    """
    try:
        if path.suffix.lower() == ".bin":
            yield _read_numbers(path, vocabulary)
            return
        for text in read_texts(path, join_rows):
            yield vocabulary.encode(text)
    except InputError as error:
        raise InputError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None


def join_tokens(path: Path, vocabulary: Vocabulary) -> Int[np.ndarray, " T"]:
    """Read the texts of a file as one row of tokens, the end of a text after each of them.

    Args:
        path: A file, as for `read_tokens`; `.bin` has its ends already.
        vocabulary: The vocabulary; if it has no end, texts follow one another without.

    Raises:
        InputError: As `read_tokens`.
    """
    kind = np.uint16 if vocabulary.size <= np.iinfo(np.uint16).max else np.int32
    parts: list[Int[np.ndarray, " T"]] = []
    for tokens in read_tokens(path, vocabulary):
        parts.append(tokens.astype(kind, copy=False))
        if vocabulary.end is not None and path.suffix.lower() != ".bin":
            parts.append(np.array([vocabulary.end], kind))
    return one_row(parts)


def one_row(parts: Sequence[Int[np.ndarray, " _"]]) -> Int[np.ndarray, " T"]:
    """Put rows of tokens behind one another; a single one is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _read_numbers(path: Path, vocabulary: Vocabulary) -> Int[np.ndarray, " T"]:
    if isinstance(vocabulary, CharacterVocabulary):
        raise InputError("expected texts for a vocabulary of characters, found token numbers")
    with opened(path) as file:
        size = file.seek(0, 2)
    if not size or size % 2:
        raise InputError(f"expected token numbers of two bytes each, found {size} bytes")
    numbers = np.memmap(path, dtype="<u2", mode="r")
    if numbers.max() >= vocabulary.size:
        raise InputError(
            f"expected token numbers below {vocabulary.size}, found {int(numbers.max())}"
        )
    return numbers
