"""Principal components of patches below their images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from crate_interp.errors import InputError
from crate_interp.visualization.grid import Grid, Panel
from crate_interp.visualization.style import Figure

__all__ = ["component_figure", "pca_figure"]

HIDDEN = 230  # grey value of what is not foreground


def pca_figure(
    pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    grey: Float[np.ndarray, "B h w"],
    foreground: Bool[np.ndarray, "B h w"] | None,
    rgb: UInt8[np.ndarray, "B h w 3"],
    note: str = "",
    width: float | None = None,
) -> Figure:
    """Images across; below each its first component, its foreground, and components as colours.

    Args:
        pictures: Images in their own proportions; the patch grids are stretched over them.
        grey: First component, in [0, 1].
        foreground: Patches that are coloured; `None` where all are, and no row is drawn.
        rgb: Three components as red, green and blue.
        note: Words below the figure.
        width: Width of the page, inches.

    Raises:
        InputError: There is no image, or not one array of each kind per image.
    """
    counts = [len(a) for a in (pictures, grey, foreground, rgb) if a is not None]
    if not counts[0] or len(set(counts)) > 1:
        raise InputError(
            f"expected images and as many maps of each kind, found {' and '.join(map(str, counts))}"
        )
    rows = {"image": [Panel(image) for image in pictures]}
    rows["component 1"] = _stretched(pictures, grey)
    if foreground is not None:
        rows["foreground"] = list(map(Panel, map(_cut_out, pictures, foreground)))
    rows["colours"] = _stretched(pictures, rgb)
    return Grid([*rows.values()], [*rows], size=1.0).draw(note=note, width=width)


def component_figure(
    pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    maps: Mapping[str, tuple[Float[np.ndarray, "B h w"], UInt8[np.ndarray, "B h w 3"]]],
    note: str = "",
    width: float | None = None,
) -> Figure:
    """Images across; below each, for every block, its first component and three more as colours.

    Args:
        pictures: Images in their own proportions; the patch grids are stretched over them.
        maps: By the name of the block, the first component in [0, 1] and the others as colours.
        note: Words below the figure.
        width: Width of the page, inches.

    Raises:
        InputError: There is no image, or not one map of each kind per image.
    """
    counts = [len(pictures), *(len(kind) for both in maps.values() for kind in both)]
    if not counts[0] or len(set(counts)) > 1:
        raise InputError(
            f"expected images and as many maps of each kind, found {' and '.join(map(str, counts))}"
        )
    rows = {"image": [Panel(image) for image in pictures]}
    for name, (grey, rgb) in maps.items():
        rows[f"{name}\ncomponent 1"] = _stretched(pictures, grey)
        rows[f"{name}\n2, 3 and 4"] = _stretched(pictures, rgb)
    return Grid([*rows.values()], [*rows], size=0.8).draw(note=note, width=width)


def _stretched(
    pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]], maps: Shaped[np.ndarray, "B h w *3"]
) -> list[Panel]:
    return [
        Panel(values, covers_hw=(image.shape[0], image.shape[1]))
        for image, values in zip(pictures, maps, strict=True)
    ]


def _cut_out(
    picture: UInt8[np.ndarray, "H W 3"], foreground: Bool[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "H W 3"]:
    """The image, grey where its patch is not in the foreground."""
    rows, columns = (
        np.arange(pixels) * cells // pixels
        for pixels, cells in zip(picture.shape, foreground.shape, strict=False)
    )
    return np.where(foreground[rows][:, columns, None], picture, np.uint8(HIDDEN))
