"""Files that a command concludes with; the frame writes them, with provenance beside numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8

    from crate_interp.data.export import Content
    from crate_interp.visualization import Figure, Section

__all__ = ["Arrays", "Conclusion", "Drawing", "Json", "Output", "Picture", "Table", "Text"]


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure: `NAME.png`, and the other formats that the user asks for."""

    name: str
    figure: Figure


@dataclass(frozen=True, eq=False)
class Arrays:
    """Arrays by name, as `NAME.npz`; the array `about` is their provenance, as JSON."""

    name: str
    arrays: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Table:
    """A table, as `NAME.csv`; its provenance is `NAME.json`."""

    name: str
    header: Sequence[str]
    rows: Iterable[Sequence[object]]


@dataclass(frozen=True, eq=False)
class Json:
    """Plain values, as `NAME.json`."""

    name: str
    content: Any


@dataclass(frozen=True, eq=False)
class Picture:
    """An RGB image as it is, `NAME.png`."""

    name: str
    rgb: UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True, eq=False)
class Text:
    """A file of any format; its name has its suffix. A function writes it to the open file."""

    name: str
    content: Content


Output: TypeAlias = Drawing | Arrays | Table | Json | Picture | Text


@dataclass(frozen=True)
class Conclusion:
    """Files, text and results that a command makes of the entries of all images.

    Attributes:
        outputs: Files; names are paths below the folder of the run, without suffix. They may come
            from a generator, so that one figure at a time is in memory.
        text: Text to print before the names of the files.
        results: Entries of `summary.json`, which commands with a run folder write.
        sections: First sections of their `report.html`; without any, it has a table of `results`.
    """

    outputs: Iterable[Output] = ()
    text: str = ""
    results: Mapping[str, Any] = field(default_factory=dict)
    sections: Sequence[Section] = ()
