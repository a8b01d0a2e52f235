"""Features of images as one file, for other programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from crate_interp.commands.image_features import POOLS, Pool, features_of, reading_of
from crate_interp.errors import InputError
from crate_interp.options import option
from crate_interp.options.choices import Feature
from crate_interp.options.ranges import Index
from crate_interp.runs.command import ImageFilesCommand, Reading
from crate_interp.runs.options import FeatureOptions
from crate_interp.runs.outputs import Conclusion, Text

if TYPE_CHECKING:
    from crate_interp.runs.run import Run, SeenImage
    from crate_interp.structures import Activations

__all__ = ["Features"]

SUFFIXES = (".npz", ".parquet", ".safetensors")


@dataclass(frozen=True, kw_only=True)
class Features(FeatureOptions, ImageFilesCommand):
    """Write features of patches or images to a file.

    An npz, Parquet or safetensors file has them as float32, in the order of the images, with the
    names of the images and with weights, settings and versions as JSON, `about`. It is written
    image by image.
    """

    group: ClassVar[str] = "look inside"
    output_is_file: ClassVar[bool] = True
    hidden: ClassVar[tuple[str, ...]] = ("format", "width", "dpi")  # it draws nothing

    feature: Feature = option(
        "what to read (auto: subspace for CRATE, key for ViT)", "auto", also=["site"]
    )
    block: Index = option("block to read, from 0; negative counts from the last", -1)
    pool: Pool = option(f"none: a feature for each patch; {POOLS}", "none")
    output: Path = option("the file, NAME.npz, NAME.parquet or NAME.safetensors", presentation=True)

    def check(self) -> None:
        """Refuse another kind of file, grids of several sizes, and options without effect."""
        suffix = self.output.suffix
        if suffix not in SUFFIXES:
            raise InputError(f"{self.output}: expected a name that ends in {', '.join(SUFFIXES)}")
        # The mean over the patches is what --debias keeps.
        idle = {"--debias": self.debias and self.pool != "none"}
        idle["--norm-filter"] = self.norm_filter is not None and self.pool in ("class", "head")
        for name in [name for name, is_idle in idle.items() if is_idle]:
            raise InputError(f"{name}: has no effect on the feature of --pool {self.pool}")
        if suffix == ".parquet":
            from crate_interp.commands.feature_files import check_parquet

            check_parquet()
        elif self.keep_aspect and self.pool == "none":
            raise InputError(
                f"--keep-aspect: {suffix} has one patch grid for all images; images of different "
                "aspects need .parquet, or one feature per image (--pool)"
            )

    def reading(self, run: Run) -> Reading:
        """Read the feature of the block."""
        return Reading(**reading_of(run, self.feature, self.block, self.pool))

    def measure(self, run: Run, image: SeenImage, output: Activations) -> Mapping[str, Any]:
        """Keep the features of an image."""
        return {"features": features_of(run, output, self.block, self.pool)}

    def conclude(self, run: Run) -> Conclusion:
        """Write the features of all images, one image at a time."""
        from crate_interp.commands.feature_files import WRITERS

        shape = run.entries[0]["features"].shape
        write = partial(WRITERS[self.output.suffix], run.entries, run.provenance)
        what = "a feature per patch" if len(shape) == 3 else "a feature per image"
        text = (
            f"{run.settings['model']}, {run.settings['feature']}: {what}, {shape[-1]} numbers each"
        )
        return Conclusion([Text(self.output.name, write)], text)
