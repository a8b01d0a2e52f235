"""Columns of probes.csv: what their names say."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["ProbeColumn", "column_of"]

_NAME = re.compile(
    r"(?P<number>.+?)(_(?P<size>\d{1,9})px)?(_block(?P<cut>-?\d{1,9}))?(_(?P<layer>\d{1,9}))?"
)


class ProbeColumn(NamedTuple):
    """What a column of probes.csv holds.

    Attributes:
        number: Name of the number, such as `tokencut_iou`.
        size: Side of the input, pixels; `None` in a run of one size.
        cut_block: Block that attention and cuts read; `None` in a run of one, or for `layer`.
        layer: Block that the number belongs to, where every block has one.
    """

    number: str
    size: int | None = None
    cut_block: int | None = None
    layer: int | None = None

    @property
    def name(self) -> str:
        """Name of the column, such as `tokencut_iou_224px_block-2`."""
        size = "" if self.size is None else f"_{self.size}px"
        block = "" if self.cut_block is None else f"_block{self.cut_block}"
        return f"{self.number}{size}{block}" + ("" if self.layer is None else f"_{self.layer}")


def column_of(name: str) -> ProbeColumn:
    """Read the name of a column; one of another making is a number of that name."""
    match = _NAME.fullmatch(name)
    if match is None:
        return ProbeColumn(name)
    size, cut_block, layer = (
        None if match[key] is None else int(match[key]) for key in ("size", "cut", "layer")
    )
    return ProbeColumn(match["number"], size, cut_block, layer)
