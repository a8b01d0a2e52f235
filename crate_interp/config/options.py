"""What the options of all commands are made of."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from crate_interp.options import option
from crate_interp.options.choices import (
    BatchSize,
    Feature,
    Foreground,
    KeepBy,
    OnError,
    Pictures,
    Precision,
    PrecisionChoice,
    Refine,
    Resolution,
    Solver,
)
from crate_interp.runs.options import (
    FigureFormat,
    FigureWidth,
    ImageOptions,
    ModelOptions,
)
from crate_interp.runs.options import FigureOptions as FigureConfig
from crate_interp.runs.options import WeightsOptions as WeightsConfig

__all__ = [
    "FIGURE_OPTIONS",
    "BatchSize",
    "Feature",
    "FigureConfig",
    "FigureFormat",
    "FigureWidth",
    "Foreground",
    "KeepBy",
    "ModelConfig",
    "ObserveConfig",
    "OnError",
    "Pictures",
    "Precision",
    "PrecisionChoice",
    "Refine",
    "Resolution",
    "Solver",
    "WeightsConfig",
    "option",
]


# They change how a figure looks, not what it says: a run may go on with others.
FIGURE_OPTIONS = frozenset(field.name for field in fields(FigureConfig))


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ModelOptions):
    """What commands that put images through a model have in common."""

    continues: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class ObserveConfig(ImageOptions, ModelConfig):
    """What commands that look inside a model have in common."""
