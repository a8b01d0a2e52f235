"""Writes what a command concludes with; each file appears whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from crate_interp.runs.figure_files import save_figure
from crate_interp.runs.number_files import write_arrays, write_file, write_json, write_table
from crate_interp.runs.options import FigureOptions
from crate_interp.runs.outputs import Arrays, Drawing, Json, Output, Table, Text

__all__ = ["write_output"]


def write_output(
    output: Output, folder: Path, provenance: Mapping[str, Any], options: FigureOptions
) -> list[Path]:
    """Write one output.

    Args:
        output: The output to write.
        folder: Folder that the names are in; folders that are missing are made.
        provenance: Provenance that stands beside numbers.
        options: Formats and resolution of figures.

    Returns:
        The files that were written.

    Raises:
        InputError: A file cannot be written.
    """
    path = folder / output.name
    if isinstance(output, Text):
        write_file(path, output.content)
        return [path]
    # A name may have dots: a suffix is added, not replaced.
    if isinstance(output, Drawing):
        return save_figure(output.figure, _with_suffix(path, "png"), options)
    if isinstance(output, Arrays):
        path = _with_suffix(path, "npz")
        write_arrays(path, output.arrays, provenance)
    elif isinstance(output, Table):
        path = _with_suffix(path, "csv")
        write_table(path, output.header, output.rows, provenance)
    elif isinstance(output, Json):
        path = _with_suffix(path, "json")
        write_json(path, output.content)
    else:
        path = _with_suffix(path, "png")
        content = io.BytesIO()
        Image.fromarray(output.rgb).save(content, "PNG")
        write_file(path, content.getvalue())
    return [path]


def _with_suffix(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}.{suffix}")
