"""Ranges of the numbers that recipes and their stages have."""

from __future__ import annotations

from typing import Annotated

from crate_interp.options.ranges import Range

__all__ = [
    "Classes",
    "Diameter",
    "Epochs",
    "Hidden",
    "Norm",
    "Objects",
    "Pixels",
    "Positive",
    "Rate",
    "Strength",
    "WarmUp",
]

Positive = Annotated[int, Range(0, 1_000_000_000, (0,))]
Pixels = Annotated[int, Range(0, 16_384, (0,))]
Classes = Annotated[int, Range(0, 1_000_000)]
Objects = Annotated[int, Range(1, 100)]
Diameter = Annotated[float, Range(0, 2, (0,))]
Epochs = Annotated[float, Range(0, 1_000_000, (0,))]
WarmUp = Annotated[float, Range(0, 1_000_000)]
Rate = Annotated[float, Range(0, 100, (0,))]
Strength = Annotated[float, Range(0, 100)]
Norm = Annotated[float, Range(0, 1e9, (0,))]
Hidden = Annotated[float, Range(0, 1, (0, 1), "between 0 and 1")]
