"""The built-in sets of images: there without a download, each of them one entry of a table.

A built-in set has the layout of COCO: `<name>/` holds the images, and
`annotations/instances_<name>.json` their masks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from crate_interp.data.folders import data_folder
from crate_interp.errors import InputError, shorten

__all__ = ["BUILT_IN_SETS", "BuiltInSet", "built_in_choices", "built_in_name", "scenes_folder"]


@dataclass(frozen=True)
class BuiltInSet:
    """A set of images that comes with the package.

    Attributes:
        contents: The images in a few words, for help and lists.
        title: Name of the set in results of labelled images, before the part.
        find_folder: Gives the folder of a part of the set, made if it is not there yet. Takes the
            part, `val` for the set itself, and the folder that a user names, or `None`.
    """

    contents: str
    title: str
    find_folder: Callable[[str, Path | None], Path]


def scenes_folder(part: str = "val", root: Path | None = None, count: int = 64) -> Path:
    """Find the folder of the drawn scenes, and draw them where they are not there yet.

    Args:
        part: `val` is the set that `demo` stands for everywhere; `train` are others.
        root: Folder of the set; below `data_folder()` by default.
        count: Number of scenes.

    Raises:
        InputError: No such part, the folder cannot be written, or as `write_scenes`.
    """
    from crate_interp.data import scenes  # draws with libraries that `--help` does without

    if part not in _SCENE_SEEDS:
        raise InputError(f"split: expected one of {list(_SCENE_SEEDS)} of the scenes, found {part}")
    if root is None:
        root = data_folder() / ("scenes" if part == "val" else f"scenes-{part}")
    try:
        scenes.write_scenes(root, count, _SCENE_SEEDS[part])
    except OSError as error:
        raise InputError(
            f"{root}: the built-in scenes cannot be written ({error.strerror}); name another "
            "folder with --coco-root, or all data with CRATE_INTERP_DATA"
        ) from error
    return root


def _packed_folder(name: str, part: str, root: Path | None) -> Path:
    """Find a set that lies in the package, or a split of that name that the user has."""
    if part != "val":
        raise InputError(f"split: expected val, the one part of {name}, found {shorten(part)}")
    if root is not None:
        return root
    own = data_folder() / "coco"
    if (own / "annotations" / f"instances_{name}.json").is_file():
        return own
    return Path(__file__).parent / name


_SCENE_SEEDS = {"val": 0, "train": 2}  # 1 trained the demo models

BUILT_IN_SETS = {
    "demo": BuiltInSet("64 drawn scenes", "scenes", scenes_folder),
    "photos": BuiltInSet("15 photographs of COCO", "photos", partial(_packed_folder, "photos")),
}
"""The built-in sets by name."""


def built_in_name(path: str | Path) -> str | None:
    """Name of the built-in set that a path stands for; a file or folder of that name comes first.

    Returns:
        The name, or `None` for a path that stands for itself.
    """
    name = str(path)
    return name if name in BUILT_IN_SETS and not Path(name).exists() else None


def built_in_choices() -> str:
    """List the built-in sets for the help of an option."""
    return ", ".join(f"`{name}` ({entry.contents})" for name, entry in BUILT_IN_SETS.items())
