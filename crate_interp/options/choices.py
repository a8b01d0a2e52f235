"""Choices that options of several rooms have in common, as types."""

from __future__ import annotations

from typing import Annotated, Literal

from crate_interp.options.ranges import Range

__all__ = [
    "BatchSize",
    "Feature",
    "Foreground",
    "KeepBy",
    "OnError",
    "Pictures",
    "Precision",
    "PrecisionChoice",
    "Refine",
    "Resolution",
    "Scores",
    "Solver",
    "Spent",
]

Pictures = Annotated[int, Range(1, 65_536)]  # at once
BatchSize = Pictures | Literal["auto"]
KeepBy = Literal["mass", "entries"]
Feature = Literal[
    "auto", "subspace", "query", "key", "value", "tokens", "tokens_in", "codes", "neurons"
]
Threshold = Annotated[float, Range(0, 1, (1,), "auto, none or 0 <= T < 1")]
Foreground = Literal["auto", "none"] | Threshold
Precision = Literal["float32", "bfloat16_attention", "bfloat16", "float16"]
PrecisionChoice = Literal["auto", "float32", "bfloat16_attention", "bfloat16", "float16"]
OnError = Literal["raise", "skip"]
Refine = Literal["none", "crf", "pydensecrf", "bilateral"]
Resolution = Literal["full", "grid"]
Scores = Literal["one", "cut", "contrast", "eigengap"]
Solver = Literal["lanczos", "dense"]
Spent = Literal["steps", "pictures", "seconds"]  # what a training run has spent
