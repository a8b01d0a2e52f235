"""The folder of the data sets; finding the images in folders, and telling what is left out."""

from __future__ import annotations

import math
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable
from logging import getLogger
from pathlib import Path
from typing import NamedTuple

import platformdirs

from crate_interp.data.image_files import HEIF_HINT, HEIF_SUFFIXES, image_suffixes
from crate_interp.errors import InputError

__all__ = ["ImageFile", "data_folder", "find_images", "list_images", "search_folder"]

_logger = getLogger(__name__)

_KINDS_NAMED = 6  # of what is left out

# What lies beside images; it is no image that somebody may miss.
_COMPANIONS = frozenset(
    {
        *(".csv", ".db", ".html", ".ini", ".json", ".jsonl", ".log", ".md", ".npy", ".npz", ".py"),
        *(".toml", ".tsv", ".txt", ".xml", ".yaml", ".yml"),
    }
)


class ImageFile(NamedTuple):
    """An image file.

    Attributes:
        path: Path of the file.
        name: Path from the folder that was searched, with slashes; of a file that was given
            itself, the name of the file.
    """

    path: Path
    name: str


def data_folder() -> Path:
    """Folder of the data sets: `$CRATE_INTERP_DATA`, or the user's data directory."""
    chosen = os.environ.get("CRATE_INTERP_DATA")
    return Path(chosen) if chosen else Path(platformdirs.user_data_dir("crate-interp"))


def list_images(paths: Iterable[str | Path], recursive: bool = False) -> list[Path]:
    """List the image files among files and folders, as `find_images` finds them."""
    return [image.path for image in find_images(paths, recursive)]


def find_images(paths: Iterable[str | Path], recursive: bool = False) -> list[ImageFile]:
    """Find the image files among files and folders.

    A file is taken whatever its suffix. Of a folder, the files that lie directly in it and have
    one of `image_suffixes` are taken, sorted by name. What else lies there is counted and logged,
    in one line a folder, but for hidden entries and files of text and data.

    Args:
        paths: Files and folders, in the order of the images.
        recursive: Search the folders in the folders, too; links to folders are followed.

    Returns:
        Every image once.

    Raises:
        InputError: A path does not exist or cannot be read, or a folder (or everything together)
            holds no image.
    """
    images: dict[Path, ImageFile] = {}
    for path in map(Path, paths):
        try:
            is_folder = stat.S_ISDIR(path.stat().st_mode)
        except FileNotFoundError:
            raise InputError(f"{path}: no such file or folder") from None
        except (OSError, ValueError) as error:  # ValueError: a name with a NUL in it
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputError(f"{path}: cannot be read: {reason}") from None
        levels = math.inf if recursive else 1
        inside = search_folder(path, levels) if is_folder else [ImageFile(path, path.name)]
        for image in inside:
            images.setdefault(image.path.absolute(), image)
    if not images:
        raise InputError("expected image files or folders, found none")
    return list(images.values())


def search_folder(folder: Path, levels: float = 1) -> list[ImageFile]:
    """Find the image files in a folder, as `find_images` does.

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
    described = _describe(left_out)
    if not files:
        raise InputError(
            f"{folder}: expected image files ({', '.join(sorted(image_suffixes()))}) in this "
            f"folder, found none{f'; left out: {described}' if described else ''}"
        )
    if described:
        count = left_out.total()
        noun = "entry" if count == 1 else "entries"
        _logger.warning("%s: %d %s left out: %s", folder, count, noun, described)
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
    suffix = entry.suffix.lower()
    if suffix in image_suffixes():
        return "image"
    if suffix in _COMPANIONS:
        return None
    if suffix in HEIF_SUFFIXES:
        return f"{suffix} ({HEIF_HINT})"
    return f"{suffix} (not read here)" if suffix else "file without a suffix"


def _describe(left_out: Counter[str]) -> str:
    """Such as "2 .heic (install pillow-heif), 1 folder (--recursive)"."""
    named = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))[:_KINDS_NAMED]
    parts = [f"{count} {_plural(kind) if count > 1 else kind}" for kind, count in named]
    others = left_out.total() - sum(count for _, count in named)
    return ", ".join(parts + [f"{others} others"] * bool(others))


def _plural(kind: str) -> str:
    return re.sub(r"^(folder|file|broken link|pipe or device)\b", r"\1s", kind)
