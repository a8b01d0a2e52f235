"""Writing figures: a PNG to look at, and a PDF of the same name for print."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from crate_interp.errors import InputError

__all__ = ["RESOLUTION", "check_figure_path", "save_figure"]

RESOLUTION = 200  # pixels an inch, of the PNG and of pictures in the PDF


def check_figure_path(path: Path) -> None:
    """Refuse a name that a figure cannot have, before anything is computed.

    Raises:
        InputError: It does not end in .png.
    """
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: expected a file name that ends in .png")


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG and as PDF, the same bytes for the same figure.

    Args:
        figure: To write.
        path: Of the PNG; folders that are missing are made.

    Returns:
        Where the PDF is.
    """
    check_figure_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    vector = path.with_suffix(".pdf")
    figure.savefig(path, dpi=RESOLUTION)
    figure.savefig(vector, dpi=RESOLUTION, metadata={"CreationDate": None})
    return vector
