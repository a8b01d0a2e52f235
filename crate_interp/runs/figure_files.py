"""Writing figures, in the formats that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crate_interp.errors import InputError
from crate_interp.files import write_whole
from crate_interp.runs.number_files import naming
from crate_interp.runs.options import FigureOptions
from crate_interp.visualization import Figure, write_figure

__all__ = ["check_figure_path", "list_files", "save_figure"]


def check_figure_path(path: Path) -> None:
    """Refuse a name that a figure cannot have, before anything is computed.

    Raises:
        InputError: It does not end in .png.
    """
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: expected a file name that ends in .png")


def save_figure(figure: Figure, path: Path, options: FigureOptions) -> list[Path]:
    """Write a figure, the same bytes for the same figure.

    Args:
        figure: The figure to write.
        path: Path of the PNG; other formats get a name that differs in the suffix. Folders that are
            missing are made.
        options: Formats, and pixels per inch.

    Returns:
        The files; each appears whole or not at all.

    Raises:
        InputError: A file cannot be written.
    """
    check_figure_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = dict.fromkeys(options.format)  # each once
    files = [path if kind == "png" else path.with_suffix(f".{kind}") for kind in kinds]
    for file in files:
        with naming(file), write_whole(file) as stream:
            write_figure(figure, stream, file.suffix[1:], options.dpi)
    return files


def list_files(files: Sequence[Path]) -> str:
    """Name files of one folder for a message: the first by its path, the others by their names."""
    first, *others = files
    return ", ".join([str(first), *(file.name for file in others)])
