"""The configurations and recipes that come with the package, by name."""

from __future__ import annotations

import os
from pathlib import Path

from crate_interp.errors import InputError, shorten

__all__ = ["find_pipeline", "pipeline_folder"]


def pipeline_folder() -> Path:
    """Folder of the YAML files of `pipelines/`: in the package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "pipelines"
    return installed if installed.is_dir() else package.parent / "pipelines"


def find_pipeline(name: str | os.PathLike[str], prefixes: tuple[str, ...], source: str) -> Path:
    """Find a YAML file: a path, or the name of one that comes with the package.

    Args:
        name: A path, which comes first, or `NAME`, `NAME.yaml` or `pipelines/NAME.yaml`.
        prefixes: Beginnings of the names that a message offers.
        source: Name of the option that asks for the file, for messages.

    Raises:
        InputError: There is neither; the message lists the names.
    """
    path = Path(name)
    folder = pipeline_folder()
    if os.path.lexists(path) or path.parent not in (Path(), Path("pipelines")):
        return path
    for file in (folder / path.name, folder / f"{path.name}.yaml"):
        if file.suffix == ".yaml" and os.path.lexists(file):
            return file
    names = sorted(file.stem for file in folder.glob("*.yaml") if file.stem.startswith(prefixes))
    raise InputError(
        f"{source} {shorten(str(name))}: cannot be read: no such file, and none of the names "
        f"that come with crate-interp: {', '.join(names)}"
    )
