"""Common steps of commands that run a model: its device, its weights, its name in results."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from timm.data import resolve_model_data_config
from torch import nn

from crate_interp.data import ImageSet, built_in_name, open_coco, open_images
from crate_interp.errors import InputError
from crate_interp.hooks import Observer, Site, default_feature, record
from crate_interp.models import has_fast_bfloat16
from crate_interp.models.backbones import Backbone, prefix_tokens_of
from crate_interp.models.memory import usable_memory
from crate_interp.options.choices import BatchSize, Feature, Precision, PrecisionChoice
from crate_interp.runs.options import FeatureOptions, ImageOptions, ModelOptions, WeightsOptions
from crate_interp.weights import (
    RANDOM,
    load_backbone,
    names_a_file,
    resolve_name,
    resolve_weights,
    weight_source,
    weights_checksum,
)

__all__ = [
    "RANDOM",
    "batch_size_of",
    "check_tokens",
    "describe_model",
    "describe_weights",
    "device_of",
    "feature_of",
    "load_model",
    "load_observer",
    "loading_options",
    "open_pictures",
    "peak_memory_mb",
    "precision_of",
    "release_of",
    "statistics_of",
    "usable_cores",
    "workers_of",
]

_logger = logging.getLogger(__name__)

_MANY_PATCHES = 16_384  # of an image: 128 x 128, for instance 1024 pixels a side by patches of 8
_TOKENS = {"cpu": 4096, "cuda": 65536}  # of a batch: more make products no faster
_NUMBERS_PER_TOKEN = 24  # float32, per embedding dimension, that are alive at once inside a block
_MEMORY_SHARE = 0.25  # of a GPU, for the forward pass; cuts and the CRF want some, too
_MAX_WORKERS = 8  # a CRF at 480 px takes 0.4 GB in each


def device_of(name: str) -> torch.device:
    """Find the device of an option `--device`.

    Args:
        name: Name of the device in torch, or `auto` for the fastest one here.

    Raises:
        InputError: It cannot be used here.
    """
    if name != "auto":
        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"device {name!r} cannot be used here: {error}") from None
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def check_tokens(observer: Observer) -> None:
    """Warn of images of more than 16,384 patches, and refuse what the memory cannot hold.

    A cut keeps one byte for each pair of patches of an image, in the memory of its device; the time
    of attention grows with the pairs as well.

    Args:
        observer: Observer with the model on its device.

    Raises:
        InputError: The pairs of one image take more than all memory.
    """
    rows, columns = observer.grid_hw
    patches, there = rows * columns, usable_memory(observer.device)
    if patches <= _MANY_PATCHES:
        return
    size = (
        f"size {observer.size}: {patches} patches an image, whose pairs take "
        f"{patches**2 / 1e9:.1f} GB in a cut"
    )
    if patches**2 > there:
        raise InputError(
            f"{size}; expected at most the memory, {there / 1e9:.1f} GB: take a smaller --size"
        )
    _logger.warning("%s; attention takes time by the pairs, too", size)


def batch_size_of(asked: BatchSize, observer: Observer) -> int:
    """Find the batch size of an option `--batch-size`.

    `auto` is as many images as have 4096 tokens together, or 65536 on CUDA if 24 float32 numbers
    per token and embedding dimension fit into a quarter of the device's memory, but at least one.
    It depends on the machine alone, not on what else runs there: a run that is continued finds the
    same.

    Args:
        asked: A number, which is returned, or `auto`.
        observer: Observer with the model on its device.
    """
    if asked != "auto":
        return asked
    model: Any = observer.model
    rows, columns = observer.grid_hw
    device = observer.device
    tokens = _TOKENS.get(device.type, _TOKENS["cpu"])
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        bytes_per_token = 4 * _NUMBERS_PER_TOKEN * model.embed_dim
        tokens = min(tokens, int(memory * _MEMORY_SHARE) // bytes_per_token)
    return max(1, tokens // (rows * columns + prefix_tokens_of(model)))


def precision_of(asked: PrecisionChoice, device: torch.device) -> Precision:
    """Find the number type of an option `--precision`.

    `auto` is the fastest type that keeps the masks: those of trained models on COCO images are to
    have a mean IoU of 0.99 with float32's. That is float16 on CUDA devices with tensor cores, and
    bfloat16 in attention alone on processors that have it (0.994 to 0.9996 at 192 px). All of
    the forward pass in bfloat16, whose residual stream has 8 bits then, leaves 0.95 to 0.98.

    Args:
        asked: A number type, which is returned, or `auto`.
        device: Device that the model runs on.
    """
    if asked != "auto":
        return asked
    if device.type == "cpu":
        return "bfloat16_attention" if has_fast_bfloat16() else "float32"
    has_tensor_cores = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)
    return "float16" if has_tensor_cores else "float32"


def workers_of(asked: int | None) -> int:
    """Find the number of an option `--workers`: half of the cores that this process may use."""
    return max(1, min(_MAX_WORKERS, usable_cores() // 2)) if asked is None else asked


def usable_cores() -> int:
    """Count the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def peak_memory_mb(device: torch.device) -> dict[str, int | None]:
    """Largest memory so far, 10^6 bytes: of this process, and of tensors on CUDA.

    `None` where it cannot be told: on Windows, and without CUDA.
    """
    process = None
    if sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        process = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)
    cuda = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {"process": process, "cuda": None if cuda is None else round(cuda / 1e6)}


def loading_options(config: WeightsOptions) -> dict[str, Any]:
    """Give the options of a command that `load_backbone` and its like have by the same names."""
    return {option.name: getattr(config, option.name) for option in fields(WeightsOptions)}


def load_model(
    config: ModelOptions | Any,
) -> tuple[Backbone, Path | None]:
    """Load the model of a command's options, on the CPU.

    Returns:
        The model in evaluation mode, and its weight file; `None` for random weights (seed 0).

    Raises:
        InputError: As `load_backbone`.
    """
    options = {**config.model_args, **loading_options(config)}
    if config.weights == RANDOM:
        torch.manual_seed(0)
        return load_backbone(config.model, pretrained=False, **options), None
    model = load_backbone(config.model, config.weights, **options)
    return model, resolve_weights(config.model, config.weights)


def load_observer(config: ModelOptions) -> Observer:
    """Load the model of a command, on its device, at its size.

    Raises:
        InputError: As `load_model` and `Observer`; a device that cannot be used.
    """
    device = device_of(config.device)
    model, _ = load_model(config)
    precision = precision_of(config.precision, device)
    observer = Observer(
        *(model.to(device), config.size, config.stride, precision),
        keep_aspect=config.keep_aspect,
        noise=config.noise,
        **({} if not isinstance(config, FeatureOptions) else config.cleaning()),
    )
    check_tokens(observer)
    return observer


def feature_of(feature: Feature, block: int, observer: Observer) -> Site:
    """Find the site of an option `--feature`.

    Raises:
        InputError: The model has no such site, or no such block.
    """
    if feature == "auto":
        return default_feature(observer.model, block)
    record(observer.model, [feature], [block])
    return Site(feature)


def open_pictures(config: ImageOptions) -> ImageSet:
    """Open the images of a command.

    Raises:
        InputError: There is no image.
    """
    images = open_places(config.images, config.recursive)
    return replace(images, records=images.records[: config.limit])


def open_places(places: Sequence[str], recursive: bool = False) -> ImageSet:
    """Open images at places; the name of a built-in set alone stands for it.

    A file or folder of that name comes first.

    Args:
        places: Files, folders and the like, as `open_images` takes them.
        recursive: Search the folders in the folders, too.

    Raises:
        InputError: There is no image.
    """
    name = built_in_name(places[0]) if len(places) == 1 else None
    return open_coco(name) if name else open_images(places, recursive=recursive)


def statistics_of(model: nn.Module) -> dict[str, list[float]]:
    """Give the `mean` and `std` of a model's input, RGB in [0, 1], for settings."""
    data_config = resolve_model_data_config(model)
    return {name: [float(value) for value in data_config[name]] for name in ("mean", "std")}


def describe_model(name: str, weights: Path | None) -> str:
    """Name a model for captions and results files.

    A path as it is; `architecture.tag` with the weights of that name; `architecture (FILE)` with a
    file that was given for it, whose weights are not those of any tag.
    """
    if names_a_file(name):
        return name
    resolved = resolve_name(name)
    if weights is None:
        return str(resolved)
    return f"{resolved.architecture} ({'untrained' if weights == RANDOM else weights.name})"


def release_of(config: ModelOptions, sha256: str | None) -> str | None:
    """Name a command's model as tables of published numbers do, if it is a published one.

    Args:
        config: Options of the command.
        sha256: Checksum of the weight file that it loads; `None` for random weights.

    Returns:
        `architecture.tag`, `architecture (untrained)`, or `None`: for a file that is not known to
        be the published one, and for a model or an input that was changed.
    """
    if names_a_file(config.model) or config.model_args or config.mean or config.std:
        return None
    if config.weights == RANDOM:
        return describe_model(config.model, RANDOM)
    resolved = resolve_name(config.model)
    source = weight_source(resolved)
    known = source.sha256 if source else None
    is_published = config.weights is None if known is None else known == sha256
    return str(resolved) if is_published else None


def describe_weights(path: Path | None) -> dict[str, Any]:
    """Describe a weight file for a results file.

    Args:
        path: The file; `None` for random weights.
    """
    return {
        "file": path.name if path else "random initialisation, seed 0",
        "sha256": weights_checksum(path) if path else None,
    }
