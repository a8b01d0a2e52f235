"""Images, some patches of which a CRATE-MAE did not see, and what it predicts of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np

from crate_interp import data, models, structures, visualization, weights
from crate_interp.errors import InputError, counted
from crate_interp.options import Range, option
from crate_interp.options.ranges import Seed, Side
from crate_interp.runs.command import Command
from crate_interp.runs.options import PLACES, FigureOptions, WeightsOptions

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, UInt8
    from torch import Tensor

    from crate_interp.models import CrateMaeAutoencoder

__all__ = ["Reconstruct"]

Hidden = Annotated[float, Range(0, 1, (0, 1), "between 0 and 1")]


@dataclass(frozen=True, kw_only=True)
class Reconstruct(Command, WeightsOptions, FigureOptions):
    """Hide patches and draw what a CRATE-MAE predicts."""

    group: ClassVar[str] = "look inside"

    images: list[str] = option(PLACES, positional=True, several=str)
    output: Path = option("the figure, NAME.png", presentation=True)
    recursive: bool = option("search the folders in the folders, too", False)
    model: str | None = option(
        "CRATE-MAE: name, alias, or one of our safetensors files; see `models`", None
    )
    weights: Path | None = option(
        "weight file in the official layout, not the released one; ours goes without --model", None
    )
    model_args: dict[str, Any] = option("sizes that differ from the named model's (JSON)", {})
    mask_ratio: Hidden = option("share of the patches to hide", 0.75)
    seed: Seed = option("of the choice of patches", 0)
    size: Side | None = option(
        "side of the square that the middle of an image is resized to (default: the model's)", None
    )
    normalised_target: Literal["auto", "yes", "no"] = option(
        "whether the model predicts patches less their mean and over their deviation (auto: what "
        "the file says; official files do not: no)",
        "auto",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model is None and self.weights is None:
            raise InputError("give --model NAME, --weights FILE, or both")

    def run(self) -> int:
        """Draw the figure.

        Raises:
            InputError: No image, one that cannot be read (named), a size that is no whole number of
                patches, or a model that is no CRATE-MAE.
            CheckpointError: The weights cannot be had or do not fit.
        """
        import torch

        from crate_interp.runs.figure_files import check_figure_path, list_files, save_figure
        from crate_interp.runs.inference import open_places

        check_figure_path(self.output)
        paths = [record.path for record in open_places(self.images, self.recursive).records]
        model = self._load()
        size = self.size or model.encoder.patch_embed.img_size[0]
        patch_size = model.encoder.patch_embed.patch_size
        if any(size % side for side in patch_size):
            raise InputError(
                f"size: expected a multiple of the patch of {patch_size[0]} pixels, found {size}"
            )
        grid = (size // patch_size[0], size // patch_size[1])
        generator = torch.Generator().manual_seed(self.seed)
        originals, hidden, predictions = [], [], []
        for path in paths:
            mask = models.draw_mask(grid[0] * grid[1], self.mask_ratio, generator)
            original, predicted = _reconstruct(model, path, size, mask)
            originals.append(original)
            hidden.append(np.kron(mask.reshape(grid).numpy(), np.ones(patch_size, dtype=bool)))
            predictions.append(predicted)
        named = self._described()
        note = f"{named}. Hidden patches show the model's prediction, the others the image."
        if model.normalised_target:
            note += " Mean and deviation of a hidden patch are the image's own: they are no target."
        figure = visualization.reconstruction_figure(
            originals, hidden, predictions, note, self.width_inches
        )
        drawn = save_figure(figure, self.output, self)
        noise = _peak_signal_to_noise(originals, hidden, predictions)
        print(
            f"{list_files(drawn)}: {counted(len(paths), 'image')}, {int(mask.sum())} of "
            f"{mask.numel()} patches hidden, PSNR of these {noise:.1f} dB"
        )
        return 0

    def _load(self) -> CrateMaeAutoencoder:
        from crate_interp.runs.inference import loading_options

        options = {**self.model_args, **loading_options(self)}
        if self.model is None and self.weights is not None:
            model = weights.load_mae(self.weights, **options)
        else:
            model = weights.load_mae(str(self.model), self.weights, **options)
        if self.normalised_target != "auto":
            model.normalised_target = self.normalised_target == "yes"
        return model

    def _described(self) -> str:
        from crate_interp.runs.inference import describe_model

        return describe_model(self.model, self.weights) if self.model else str(self.weights)


def _reconstruct(
    model: CrateMaeAutoencoder, path: Path | data.StoredImage, size: int, mask: Bool[Tensor, " n"]
) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W 3"]]:
    """Give the square in the middle of an image, and its prediction, at the model's size."""
    import torch
    from timm.data import resolve_model_data_config

    rgb = data.read_image(path)
    patch_hw = model.encoder.patch_embed.patch_size
    geometry = structures.ImageGeometry((rgb.shape[0], rgb.shape[1]), (size, size), patch_hw)
    geometry.refuse_less_than_a_patch(str(path))
    side = min(rgb.shape[:2])
    top, left = ((length - side) // 2 for length in rgb.shape[:2])
    square = rgb[top : top + side, left : left + side]
    data_config = resolve_model_data_config(model.encoder)
    mean, std = data_config["mean"], data_config["std"]
    pixels = data.preprocess(square, (size, size), mean, std)
    with torch.inference_mode():
        predicted = model.reconstruct(pixels[None], mask[None])[0]
    return _to_rgb(pixels, mean, std), _to_rgb(predicted, mean, std)


def _to_rgb(
    pixels: Float[Tensor, "3 H W"], mean: tuple[float, ...], std: tuple[float, ...]
) -> UInt8[np.ndarray, "H W 3"]:
    import torch

    shown = pixels.permute(1, 2, 0) * torch.tensor(std) + torch.tensor(mean)
    rgb: UInt8[np.ndarray, "H W 3"] = (255 * shown).round().clamp(0, 255).to(torch.uint8).numpy()
    return rgb


def _peak_signal_to_noise(
    originals: list[UInt8[np.ndarray, "H W 3"]],
    hidden: list[Bool[np.ndarray, "H W"]],
    predictions: list[UInt8[np.ndarray, "H W 3"]],
) -> float:
    """PSNR of the hidden pixels of all images together, decibels."""
    differences = np.stack(originals).astype(float) - np.stack(predictions)
    error = float(np.square(differences[np.stack(hidden)]).mean())
    return 10 * math.log10(255**2 / error) if error else math.inf
