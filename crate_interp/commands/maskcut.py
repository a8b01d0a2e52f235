"""MaskCut over a set of images; `segment` with one segmenter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from crate_interp.commands.segment import SegmentCommand
from crate_interp.options import with_options_of
from crate_interp.runs.command import Command
from crate_interp.segmentation.segmenter import SEGMENTERS

__all__ = ["MaskCut"]


@dataclass(frozen=True, kw_only=True)
class MaskCut(SegmentCommand):
    """Find objects with MaskCut, and score them as COCO does."""

    group: ClassVar[str] = "find masks"
    method: ClassVar[str] = "maskcut"
    title: ClassVar[str] = "MaskCut"

    @classmethod
    def kind_for(cls, arguments: Sequence[str]) -> type[Command]:
        """Add the options of MaskCut."""
        del arguments
        return with_options_of(cls, [SEGMENTERS[cls.method]])
