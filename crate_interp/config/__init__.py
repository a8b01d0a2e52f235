"""One frozen dataclass per command: its options, their defaults and their help text.

Standard library only, so that the command line can describe itself without loading torch. A field
becomes `--field-name`, or a positional argument if its metadata says so, and takes several values
if `several` names their type. Types are checked by the command line and in `--config FILE.yaml`
alike; ranges of numbers are part of them (`crate_interp.options`). `continues` says whether a
command that was stopped goes on from where it was.
"""

from crate_interp.config.options import (
    FIGURE_OPTIONS,
    BatchSize,
    Feature,
    FigureConfig,
    FigureFormat,
    FigureWidth,
    Foreground,
    KeepBy,
    ModelConfig,
    ObserveConfig,
    OnError,
    Precision,
    PrecisionChoice,
    Refine,
    Resolution,
    Solver,
    WeightsConfig,
)

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
    "Precision",
    "PrecisionChoice",
    "Refine",
    "Resolution",
    "Solver",
    "WeightsConfig",
]
