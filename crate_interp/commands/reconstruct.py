"""The command `reconstruct`: images, some patches of which a CRATE-MAE did not see."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import timm
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from crate_interp.config import ReconstructConfig
from crate_interp.data import list_images, preprocess, read_image
from crate_interp.errors import InputError
from crate_interp.models import CrateMaeAutoencoder
from crate_interp.models.masking import draw_mask
from crate_interp.runs.figure_files import check_figure_path, list_files, save_figure
from crate_interp.runs.inference import describe_model, loading_options
from crate_interp.structures import ImageGeometry
from crate_interp.visualization import reconstruction_figure
from crate_interp.weights import load_mae

__all__ = ["run"]


def run(config: ReconstructConfig) -> int:
    """Draw the figure, as PNG and PDF.

    Returns:
        0.

    Raises:
        InputError: No image, one that cannot be read (named), a size that is no whole number of
            patches, or a model that is no CRATE-MAE.
        CheckpointError: The weights cannot be had or do not fit.
    """
    check_figure_path(config.output)
    paths = list_images(config.images, config.recursive)
    model = _load(config)
    size = config.size or model.encoder.patch_embed.img_size[0]
    patch_size = model.encoder.patch_embed.patch_size
    if any(size % side for side in patch_size):
        raise InputError(
            f"size: expected a multiple of the patch of {patch_size[0]} pixels, found {size}"
        )
    grid = (size // patch_size[0], size // patch_size[1])
    generator = torch.Generator().manual_seed(config.seed)
    originals, hidden, predictions = [], [], []
    for path in paths:
        mask = draw_mask(grid[0] * grid[1], config.mask_ratio, generator)
        original, predicted = _reconstruct(model, path, size, mask)
        originals.append(original)
        hidden.append(np.kron(mask.reshape(grid).numpy(), np.ones(patch_size, dtype=bool)))
        predictions.append(predicted)
    named = describe_model(config.model, config.weights) if config.model else config.weights
    note = f"{named}. Hidden patches show the model's prediction, the others the image."
    if model.normalised_target:
        note += " Mean and deviation of a hidden patch are the image's own: they are no target."
    figure = reconstruction_figure(originals, hidden, predictions, note, config.width_inches)
    drawn = save_figure(figure, config.output, config)
    noise = _peak_signal_to_noise(originals, hidden, predictions)
    print(
        f"{list_files(drawn)}: {len(paths)} images, {int(mask.sum())} of "
        f"{mask.numel()} patches hidden, PSNR of these {noise:.1f} dB"
    )
    return 0


def _load(config: ReconstructConfig) -> CrateMaeAutoencoder:
    options = {**config.model_args, **loading_options(config)}
    if config.model is None and config.weights is not None:
        model = load_mae(config.weights, **options)
    else:
        model = load_mae(str(config.model), config.weights, **options)
    if config.normalised_target != "auto":
        model.normalised_target = config.normalised_target == "yes"
    return model


def _reconstruct(
    model: CrateMaeAutoencoder, path: Path, size: int, mask: Bool[Tensor, " n"]
) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W 3"]]:
    """Give the square in the middle of an image, and its prediction, at the model's size."""
    rgb = read_image(path)
    patch_hw = model.encoder.patch_embed.patch_size
    geometry = ImageGeometry((rgb.shape[0], rgb.shape[1]), (size, size), patch_hw)
    geometry.refuse_less_than_a_patch(str(path))
    side = min(rgb.shape[:2])
    top, left = ((length - side) // 2 for length in rgb.shape[:2])
    square = rgb[top : top + side, left : left + side]
    data_config = timm.data.resolve_model_data_config(model.encoder)
    mean, std = data_config["mean"], data_config["std"]
    pixels = preprocess(square, (size, size), mean, std)
    with torch.inference_mode():
        predicted = model.reconstruct(pixels[None], mask[None])[0]
    return _to_rgb(pixels, mean, std), _to_rgb(predicted, mean, std)


def _to_rgb(
    pixels: Float[Tensor, "3 H W"], mean: tuple[float, ...], std: tuple[float, ...]
) -> UInt8[np.ndarray, "H W 3"]:
    shown = pixels.permute(1, 2, 0) * torch.tensor(std) + torch.tensor(mean)
    rgb: UInt8[np.ndarray, "H W 3"] = (255 * shown).round().clamp(0, 255).to(torch.uint8).numpy()
    return rgb


def _peak_signal_to_noise(
    originals: list[UInt8[np.ndarray, "H W 3"]],
    hidden: list[Bool[np.ndarray, "H W"]],
    predictions: list[UInt8[np.ndarray, "H W 3"]],
) -> float:
    """Of the hidden pixels of all images together, decibels."""
    differences = np.stack(originals).astype(float) - np.stack(predictions)
    error = float(np.square(differences[np.stack(hidden)]).mean())
    return 10 * math.log10(255**2 / error) if error else math.inf
