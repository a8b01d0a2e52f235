"""Options that several commands have in common, as dataclasses to inherit from.

An option that changes where a command writes, what it shows or how fast it is, but not what it
finds, says so by `presentation=True`: it is no part of a run's settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from crate_interp.data.built_in import built_in_choices
from crate_interp.errors import InputError
from crate_interp.options import Range, check_ranges, option
from crate_interp.options.choices import BatchSize, PrecisionChoice
from crate_interp.options.ranges import AtLeastOne, Noise, NormFactor, ReadProcesses, Side

__all__ = [
    "FeatureOptions",
    "FigureFormat",
    "FigureOptions",
    "FigureWidth",
    "ImageOptions",
    "ModelOptions",
    "WeightsOptions",
]

FigureFormat = Literal["png", "pdf", "svg"]
FigureWidth = Literal["one-column", "two-columns"] | Annotated[float, Range(2.5, 20)]
Mean = Annotated[float, Range(-10, 10)]  # of pixels in [0, 1], with room for other scales
Deviation = Annotated[float, Range(0, 10, (0,))]
Stride = Annotated[int, Range(1, 1024)]

WEIGHTS = "weights and their input"  # heading of the options of all commands that load weights
COLUMN_INCHES = {"one-column": 3.35, "two-columns": 6.9}
PLACES = "image files, folders, tar files, lists (.txt), 'shard-{000..127}.tar', or their URLs"
FIGURES = "figures"  # heading of the options that figures have in common
WORKERS = "where images are worked off; the results are the same everywhere"


@dataclass(frozen=True, kw_only=True)
class FigureOptions:
    """Options of commands that draw figures: how these are written."""

    format: list[FigureFormat] = option(
        "files of each figure: png, pdf, svg, or several of them",
        ["png", "pdf"],
        several=FigureFormat,
        group=FIGURES,
        presentation=True,
    )
    width: FigureWidth | None = option(
        "width of each figure: one-column (3.35 in), two-columns (6.9 in), or inches; letters keep "
        "their size (default: what it takes)",
        None,
        group=FIGURES,
        presentation=True,
    )
    dpi: Annotated[int, Range(20, 2400)] = option(
        "pixels an inch, of PNG files and of images in PDF and SVG",
        200,
        group=FIGURES,
        presentation=True,
    )

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.format:
            raise InputError("format: expected at least one, found none")

    @property
    def width_inches(self) -> float | None:
        """Width of a figure; `None` for what it takes."""
        return COLUMN_INCHES[self.width] if isinstance(self.width, str) else self.width


@dataclass(frozen=True, kw_only=True)
class WeightsOptions:
    """Options of commands that load weights: how input is normalised, what is refused."""

    mean: list[Mean] | None = option(
        "means of red, green and blue in [0, 1], subtracted from the input (default: what the "
        "weight file says, or the named model's)",
        None,
        several=float,
        group=WEIGHTS,
    )
    std: list[Deviation] | None = option(
        "standard deviations that the input is divided by, as --mean",
        None,
        several=float,
        group=WEIGHTS,
    )
    allow_nonfinite: bool = option(
        "load weights that are NaN or infinite, too", False, group=WEIGHTS
    )


@dataclass(frozen=True, kw_only=True)
class ModelOptions(WeightsOptions, FigureOptions):
    """Options of commands that put images through a model."""

    one_grid: ClassVar[str] = ""  # what needs one patch grid for all images, if anything does

    model: str = option(
        "model name, alias, our safetensors file, or hf-hub:USER/NAME; see `models`"
    )
    weights: Path | None = option(
        "weight file in any official layout, not the released one; `random`: untrained",
        None,
        presentation=True,  # their checksum is in the settings
    )
    model_args: dict[str, Any] = option("sizes that differ from the named model's (JSON)", {})
    size: Side | None = option(
        "side of the square that images are resized to (default: the model's own test size, or "
        "480 rounded down to whole patches)",
        None,
    )
    keep_aspect: bool = option(
        "resize images without squashing them: the shorter side to --size, the longer one to the "
        "nearest multiple of the patch size, up to four times --size",
        False,
    )
    stride: Stride | None = option("pixels between patches, if denser than the patch size", None)
    noise: Noise | None = option(
        "standard deviation of Gaussian noise that the model's input gets, of pixels from 0 to 1; "
        "an image always gets the same",
        None,
    )
    device: str = option("cpu, cuda, cuda:1, mps, or auto", "auto")
    precision: PrecisionChoice = option(
        "number type of the forward pass (auto: the fastest that keeps the masks)", "auto"
    )
    batch_size: BatchSize = option("images in a forward pass (auto: by tokens and memory)", "auto")
    workers: ReadProcesses | None = option(
        "processes that read images, and threads that finish them (default: half of the cores, at "
        "most 8); 0: no processes, and one thread",
        None,
        presentation=True,
    )
    limit: AtLeastOne | None = option("only the first images", None)
    devices: str | None = option(
        "workers, each with a model of its own: a number, `auto` for one on each GPU, or names "
        "such as cuda:0,cuda:1 (default: this process does it alone); needs the extra ray",
        None,
        group=WORKERS,
        presentation=True,
    )
    cluster: str | None = option(
        "work on a Ray cluster: its address (ray://HOST:10001, HOST:6379), `auto` for the one of "
        "this machine; without an address a new one of this machine alone",
        None,
        alone="local",
        group=WORKERS,
        presentation=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep_aspect and self.one_grid:
            raise InputError(
                f"--keep-aspect: {self.one_grid}, and images of different aspects have different "
                "patch grids"
            )


@dataclass(frozen=True, kw_only=True)
class FeatureOptions:
    """Options of commands that compare patches by their features: what is taken out of these."""

    debias: bool = option(
        "take out of the features of patches what depends on their position alone, as it does in "
        "blank images",
        False,
    )
    norm_filter: NormFactor | None = option(
        "fill in patches from their neighbours whose token is longer than so many times the median "
        "of the image (models without registers have some)",
        None,
    )

    def cleaning(self) -> dict[str, Any]:
        """Give the options as arguments of `Observer`."""
        return {"debias": self.debias, "norm_filter": self.norm_filter}


@dataclass(frozen=True, kw_only=True)
class ImageOptions(ModelOptions):
    """Options of commands that look inside a model."""

    images: list[str] = option(
        f"{PLACES}; or a built-in set: {built_in_choices()}",
        positional=True,
        several=str,
    )
    recursive: bool = option("search the folders in the folders, too", False, presentation=True)
