"""Names of the files that are made of images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

__all__ = ["file_stems"]

_LONGEST = 120  # bytes; endings are added, and file systems take 255


def file_stems(file_names: Sequence[str], taken: Collection[str] = ()) -> list[str]:
    """Name a file for each image as the image is named, all different whatever the case of letters.

    The stem of the image's own name is taken; where several have one, the whole name, its folders
    joined by "-". If that does not tell all apart, or one is too long, all are numbered.

    Args:
        file_names: Names of the images, with their folders.
        taken: Stems in small letters that other files have.
    """
    stems = [Path(name).stem for name in file_names]
    counts = Counter([stem.lower() for stem in stems] + list(taken))
    names = [
        re.sub(r"[/\\]", "-", file_name) if counts[stem.lower()] > 1 else stem
        for stem, file_name in zip(stems, file_names, strict=True)
    ]
    different = len({name.lower() for name in names} - set(taken)) == len(names)
    if different and all(len(name.encode()) <= _LONGEST for name in names):
        return names
    return [f"{number}-{_end(name)}" for number, name in enumerate(names, start=1)]


def _end(name: str) -> str:
    return name.encode()[-_LONGEST:].decode(errors="ignore")
