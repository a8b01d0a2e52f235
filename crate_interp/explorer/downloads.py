"""What can be taken along from an answer: its pictures, its masks and its numbers."""

from __future__ import annotations

import io
import zipfile
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from crate_interp.errors import InputError
from crate_interp.explorer.scene import Scene
from crate_interp.explorer.view import Answer
from crate_interp.visualization import Grid, Panel, write_figure

__all__ = ["DOWNLOADS", "download", "offered"]

DOWNLOADS = {"pictures": "Pictures (PNG)", "masks": "Masks (PNG)", "numbers": "Numbers (NPZ)"}
_DPI = 200


def offered(answer: Answer) -> list[str]:
    """Names of what an answer has."""
    there = {"pictures": answer.pictures, "masks": answer.masks is not None and len(answer.masks)}
    return [name for name in DOWNLOADS if there.get(name, True)]


def download(what: str, scene: Scene, answer: Answer) -> tuple[str, bytes]:
    """Make a file.

    Args:
        what: Name of what is wanted.
        scene: What was looked at.
        answer: What the view said.

    Returns:
        Name and content. Of several masks, a ZIP file with a picture of each: 255 inside, 0
        outside.

    Raises:
        InputError: The answer has no such thing.
    """
    if what not in offered(answer):
        raise InputError(f"download: expected one of {', '.join(offered(answer))}")
    stem = f"{PurePosixPath(scene.picture.name).stem}-{scene.model.name}"
    if what == "numbers":
        content = io.BytesIO()
        np.savez_compressed(content, **answer.numbers)
        return f"{stem}.npz", content.getvalue()
    if what == "masks":
        return _masks(stem, answer)
    rows = [[Panel(shown.rgb, shown.words) for shown in answer.pictures]]
    rows += [[Panel(own.below) for own in answer.pictures if own.below is not None]]
    content = io.BytesIO()
    write_figure(Grid([[*row] for row in rows if row]).draw(note=answer.text), content, "png", _DPI)
    return f"{stem}.png", content.getvalue()


def _masks(stem: str, answer: Answer) -> tuple[str, bytes]:
    masks = [] if answer.masks is None else [_png(mask) for mask in answer.masks]
    if len(masks) == 1:
        return f"{stem}-mask.png", masks[0]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for number, mask in enumerate(masks, start=1):
            archive.writestr(f"{number}.png", mask)
    return f"{stem}-masks.zip", content.getvalue()


def _png(mask: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0))).save(content, "PNG")
    return content.getvalue()
