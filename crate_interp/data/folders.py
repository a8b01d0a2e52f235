"""The folder of the data sets; searching folders for images, and telling what is left out."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from logging import getLogger
from pathlib import Path
from typing import NamedTuple

import platformdirs

from crate_interp.data.image_files import HEIF_HINT, HEIF_SUFFIXES, image_suffixes
from crate_interp.data.stored import StoredImage
from crate_interp.errors import InputError

__all__ = ["ImageFile", "data_folder", "kind_of_name", "search_folder", "tell_of_left_out"]

_logger = getLogger(__name__)

_KINDS_NAMED = 6  # of what is left out

# What lies beside images; it is no image that somebody may miss.
_COMPANIONS = frozenset(
    {
        *(
            ".cls",
            ".csv",
            ".db",
            ".html",
            ".ini",
            ".json",
            ".jsonl",
            ".log",
            ".md",
            ".npy",
            ".npz",
            ".py",
        ),
        *(".toml", ".tsv", ".txt", ".xml", ".yaml", ".yml"),
    }
)


class ImageFile(NamedTuple):
    """An image file.

    Attributes:
        path: Path of the file, or its place behind a URL or in a tar file.
        name: Path from the folder, tar file or list that was searched, with slashes; of a file that
            was given itself, the name of the file.
    """

    path: Path | StoredImage
    name: str


def data_folder() -> Path:
    """Folder of the data sets: `$CRATE_INTERP_DATA`, or the user's data directory."""
    chosen = os.environ.get("CRATE_INTERP_DATA")
    return Path(chosen) if chosen else Path(platformdirs.user_data_dir("crate-interp"))


def search_folder(folder: Path, levels: float = 1) -> list[ImageFile]:
    """Find the image files in a folder, as `places.find_images` does.

    Args:
        folder: Folder to search.
        levels: 1 for what lies directly in it, 2 to search the folders in it as well, and so on.

    Raises:
        InputError: The folder cannot be read, or holds no image.
    """
    files: list[Path] = []
    left_out: Counter[str] = Counter()
    waiting: list[tuple[Path, int]] = [(folder, 1)]
    seen: set[tuple[int, int]] = set()
    while waiting:
        current, level = waiting.pop()
        try:
            place = current.stat()
            entries = [entry for entry in current.iterdir() if not entry.name.startswith(".")]
        except OSError as error:
            if current == folder:
                raise InputError(f"{folder}: cannot be read: {error.strerror}") from None
            left_out[f"folder ({error.strerror})"] += 1
            continue
        if (place.st_dev, place.st_ino) in seen:  # a link that leads back
            left_out["folder (searched already)"] += 1
            continue
        seen.add((place.st_dev, place.st_ino))
        for entry in entries:
            kind = _kind_of(entry)
            if kind == "image":
                files.append(entry)
            elif kind == "folder" and level < levels:
                waiting.append((entry, level + 1))
            elif kind is not None:
                left_out["folder (--recursive)" if kind == "folder" else kind] += 1
    tell_of_left_out(str(folder), "in this folder", len(files), left_out)
    files.sort(key=lambda path: path.relative_to(folder).parts)
    return [ImageFile(path, path.relative_to(folder).as_posix()) for path in files]


def _kind_of(entry: Path) -> str | None:
    """Tell what an entry of a folder is: image, folder, why it is left out; `None`: a companion."""
    try:
        mode = entry.stat().st_mode
    except (OSError, ValueError):
        return "broken link"
    if stat.S_ISDIR(mode):
        return "folder"
    if not stat.S_ISREG(mode):
        return "pipe or device"
    return kind_of_name(entry.name)


def kind_of_name(name: str) -> str | None:
    """Tell what a file is by its name, as `_kind_of` does."""
    stem, _, end = name.rpartition("/")[2].rpartition(".")
    suffix = f".{end.lower()}" if stem and end else ""
    if suffix in image_suffixes():
        return "image"
    if suffix in _COMPANIONS:
        return None
    if suffix == ".tar":
        return ".tar (read where it is named itself)"
    if suffix in HEIF_SUFFIXES:
        return f"{suffix} ({HEIF_HINT})"
    return f"{suffix} (not read here)" if suffix else "file without a suffix"


def tell_of_left_out(place: str, where: str, count: int, left_out: Counter[str]) -> None:
    """Log what a place holds beside images, in one line.

    Args:
        place: Name of the place.
        where: The place in words, for the error.
        count: Number of images in it.
        left_out: Number of other files, by kind.

    Raises:
        InputError: There is no image.
    """
    described = _describe(left_out)
    if not count:
        raise InputError(
            f"{place}: expected image files ({', '.join(sorted(image_suffixes()))}) {where}, "
            f"found none{f'; left out: {described}' if described else ''}"
        )
    if described:
        total = left_out.total()
        noun = "entry" if total == 1 else "entries"
        _logger.warning("%s: %d %s left out: %s", place, total, noun, described)


def _describe(left_out: Counter[str]) -> str:
    """Such as "2 .heic (install pillow-heif), 1 folder (--recursive)"."""
    named = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))[:_KINDS_NAMED]
    parts = [f"{count} {_plural(kind) if count > 1 else kind}" for kind, count in named]
    others = left_out.total() - sum(count for _, count in named)
    return ", ".join(parts + [f"{others} others"] * bool(others))


def _plural(kind: str) -> str:
    return re.sub(r"^(folder|file|broken link|link|pipe or device|device|name)\b", r"\1s", kind)
