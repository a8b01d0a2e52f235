"""Principal components of the patches of many images together, as colours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from crate_interp import analysis, data, hooks, visualization
from crate_interp.errors import InputError, counted
from crate_interp.options import option
from crate_interp.options.choices import Feature, Foreground
from crate_interp.options.ranges import Index
from crate_interp.runs.command import ImageFilesCommand, Reading
from crate_interp.runs.options import FeatureOptions
from crate_interp.runs.outputs import Arrays, Conclusion, Drawing

if TYPE_CHECKING:
    from jaxtyping import Float

    from crate_interp.analysis import JointPCA
    from crate_interp.runs.journal import Entry
    from crate_interp.runs.run import Run, SeenImage
    from crate_interp.structures import Activations

__all__ = ["Pca"]

SHOWN = 24  # images in the figure; the numbers are of all
PICTURE_SIDE = 640  # longest side of an image in the figure, pixels


@dataclass(frozen=True, kw_only=True)
class Pca(FeatureOptions, ImageFilesCommand):
    """Colour patches by principal components.

    The patches of all images are analysed together: alike parts get alike colours.
    """

    group: ClassVar[str] = "look inside"
    output_is_file: ClassVar[bool] = True
    one_grid: ClassVar[str] = "pca.npz has one grid for all images"

    feature: Feature = option("what to analyse (auto: subspace for CRATE, key for ViT)", "auto")
    block: Index = option("block to read, from 0; negative counts from the last", -1)
    foreground: Foreground = option(
        "grey of the first component, 0 to 1, above which a patch is coloured (auto: by Otsu's "
        "method; none: all patches are)",
        "auto",
    )
    by_block: bool = option(
        "show every block: component 1 in grey, 2, 3 and 4 as colours, of all patches", False
    )
    output: Path = option("the figure, NAME.png; an npz goes with it", presentation=True)

    def check(self) -> None:
        """Refuse options that a figure of all blocks would not heed."""
        super().check()
        for name, value, default in (
            ("--block", self.block, -1),
            ("--foreground", self.foreground, "auto"),
        ):
            if self.by_block and value != default:
                raise InputError(f"{name}: has no effect with --by-block, which shows all")

    def reading(self, run: Run) -> Reading:
        """Read the feature of the block."""
        from crate_interp.runs.inference import feature_of

        feature = feature_of(self.feature, self.block, run.observer).value
        every = range(len(hooks.blocks_of(run.observer.model)))
        blocks = every if self.by_block else [self.block]
        return Reading([feature], blocks, pictures=SHOWN, settings={"feature": feature})

    def measure(self, run: Run, image: SeenImage, output: Activations) -> Mapping[str, Any]:
        """Keep the features of an image, and the picture of one that the figure shows."""
        arrays = {}
        for block in run.reading.blocks:
            patches = output.patch_features(run.settings["feature"], block)[0]
            arrays[_name_of(block, self.by_block)] = patches.T.float().cpu().numpy()
        if image.picture is not None:
            arrays["picture"] = data.shrunk(image.picture, PICTURE_SIDE)
        return arrays

    def conclude(self, run: Run) -> Conclusion:
        """Analyse the patches of all images together."""
        if self.by_block:
            return self._conclude_blocks(run)
        components = analysis.joint_pca(
            _Features(run.entries, _name_of(self.block, False)),
            run.observer.grid_hw,
            self.foreground,
        )
        block = self.block % len(run.observer.model.get_submodule("blocks"))  # type: ignore[arg-type]
        source = f"{run.settings['model']}, {run.settings['feature']} of block {block}"
        count = len(run.entries)
        note = _describe(components, source, count)
        pictures = [entry["picture"] for entry in run.pictured]
        shown = slice(len(pictures))
        figure = visualization.pca_figure(
            pictures,
            components.grey[shown],
            None if components.threshold is None else components.foreground[shown],
            components.rgb[shown],
            note,
            self.width_inches,
        )
        numbers = Arrays(run.stem, _numbers_of(components, run.entries))
        text = f"{note}\n{len(pictures)} of {count} images in the figure; the numbers are of all"
        return Conclusion([Drawing(run.stem, figure), numbers], text)

    def _conclude_blocks(self, run: Run) -> Conclusion:
        maps = {
            f"block {block}": analysis.component_maps(
                _Features(run.entries, _name_of(block, True)), run.observer.grid_hw
            )
            for block in run.reading.blocks
        }
        pictures = [entry["picture"] for entry in run.pictured]
        shown = {
            name: (grey[: len(pictures)], rgb[: len(pictures)])
            for name, (grey, rgb) in maps.items()
        }
        count = len(run.entries)
        together = f"{counted(count, 'image')} together"
        note = f"{run.settings['model']}, {run.settings['feature']}; {together}."
        figure = visualization.component_figure(pictures, shown, note, self.width_inches)
        grey, rgb = (np.stack(kind, axis=1) for kind in zip(*maps.values(), strict=True))
        names = np.array([entry["file_name"] for entry in run.entries])
        numbers = Arrays(run.stem, {"file_names": names, "grey": grey, "rgb": rgb})
        text = f"{note}\n{len(pictures)} of {count} images in the figure; the numbers are of all"
        return Conclusion([Drawing(run.stem, figure), numbers], text)


def _name_of(block: int, by_block: bool) -> str:
    """Name of the array of a block's features."""
    return f"features_{block}" if by_block else "features"


@dataclass(frozen=True)
class _Features:
    """Features of images, each read from its file when its turn comes, as often as asked for."""

    entries: Sequence[Entry]
    name: str

    def __iter__(self) -> Iterator[Float[np.ndarray, "n D"]]:
        return (entry[self.name] for entry in self.entries)


def _describe(components: JointPCA, source: str, images: int) -> str:
    """One line that says what the colours are."""
    shares = ", ".join(f"{share:.0%}" for share in components.shares)
    if components.threshold is None:
        return f"{source}; {counted(images, 'image')}. Shares of the variance: {shares}."
    return (
        f"{source}; {counted(images, 'image')}. Component 1 has {components.first_share:.0%} of "
        f"the variance; the foreground is where it is above {components.threshold:.2f}. Colours: "
        f"components of the foreground, with {shares} of its variance."
    )


def _numbers_of(components: JointPCA, entries: Sequence[Entry]) -> dict[str, Any]:
    return {
        "file_names": np.array([entry["file_name"] for entry in entries]),
        "grey": components.grey,
        "threshold": np.nan if components.threshold is None else components.threshold,
        "foreground": components.foreground,
        "components": components.components,
        "rgb": components.rgb,
        "first_share": components.first_share,
        "shares": components.shares,
    }
