"""The command `attribute`: attention, relevance of attention, integrated gradients, for a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8

from crate_interp.analysis import (
    attention_relevance,
    check_captum,
    check_class_token,
    integrated_gradients,
)
from crate_interp.config import AttributeConfig
from crate_interp.data import ImageRecord, ResizedImage
from crate_interp.engine import StageClock
from crate_interp.errors import InputError
from crate_interp.hooks import (
    Observer,
    Site,
    any_resolution,
    check_classifier,
    choose_classes,
    record,
)
from crate_interp.runs.class_names import class_names_of, name_class
from crate_interp.runs.figure_files import check_figure_path, list_files, save_figure, small_image
from crate_interp.runs.inference import batch_size_of, describe_model, workers_of
from crate_interp.runs.number_files import about_of, write_arrays
from crate_interp.runs.observation import load_observer, open_pictures, process_pictures
from crate_interp.visualization import Figure, attribution_figure

__all__ = ["run"]

SHOWN = 24  # images in the figure; the numbers are of all
PICTURE_SIDE = 1024  # pixels, of the longer side, in the figure
_MISSED = 0.05  # share of the difference of scores from which on more steps are proposed


@dataclass(frozen=True, eq=False)
class _Attribution:
    """What is known of one image.

    Attributes:
        name: Of its file.
        number: Of the class.
        probability: That the model gives the class.
        attention: Of the class token in the last block, mean over heads.
        relevance: See `attention_relevance`.
        gradients: Integrated, sum over colours.
        difference: Of the class score and that of a black image, which `gradients` should sum to.
    """

    name: str
    number: int
    probability: float
    attention: Float[np.ndarray, "h w"]
    relevance: Float[np.ndarray, "h w"]
    gradients: Float[np.ndarray, "H W"]
    difference: float


def run(config: AttributeConfig) -> int:
    """Draw the figure (PNG, PDF), and write the numbers (npz) beside it.

    Returns:
        0, or 1 if an image failed, which is named.

    Raises:
        InputError: captum is not installed; no image could be read; a model without a classifier
            that reads a class token; no such class; a number type other than float32.
    """
    check_figure_path(config.output)
    check_captum()
    if config.precision not in ("auto", "float32"):
        raise InputError(f"precision: gradients are computed in float32, found {config.precision}")
    observer = load_observer(config)
    records = open_pictures(config).records
    check_classifier(observer.model, config.class_)
    check_class_token(observer.model)

    def forward(images: list[ResizedImage], _: StageClock) -> list[_Attribution]:
        return [_attribute(observer, images[0].rgb, config)]

    def finish(record: ImageRecord, _: Any, found: _Attribution, __: Any) -> _Attribution:
        return replace(found, name=record.file_name)

    workers = workers_of(config.workers)
    outcomes = process_pictures(observer, records, forward, finish, 1, workers)
    found, seen = [], []
    for image in outcomes:
        if image.result is not None:
            found.append(image.result)
            seen.append(image.record)
    if not found:
        raise InputError("none of the images could be read")
    drawn = save_figure(_figure(config, observer, found, seen), config.output, config)
    numbers = config.output.with_suffix(".npz")
    _write(numbers, found, about_of(config, observer))
    print(f"{list_files([*drawn, numbers])}: {len(found)} images, {_completeness(config, found)}")
    return int(len(found) < len(records))


def _figure(
    config: AttributeConfig,
    observer: Observer,
    found: Sequence[_Attribution],
    seen: Sequence[ImageRecord],
) -> Figure:
    """The first images in their own proportions, with the maps in their pixels."""
    names = class_names_of(config, int(getattr(observer.model, "num_classes", 0)))
    pictures = [small_image(record.read(), PICTURE_SIDE) for record in seen[:SHOWN]]
    maps: dict[str, list[Float[np.ndarray, "H W"]]] = {}
    for one, rgb in zip(found, pictures, strict=False):
        geometry = observer.geometry((rgb.shape[0], rgb.shape[1]))
        for title, values in (
            ("class-token attention", geometry.grid_to_original(one.attention[None])),
            ("relevance of attention", geometry.grid_to_original(one.relevance[None])),
            ("integrated gradients", geometry.input_to_original(one.gradients[None])),
        ):
            maps.setdefault(title, []).append(values[0])
    captions = [
        f"{one.name}: {name_class(one.number, names)}, p = {one.probability:.2f}"
        for one in found[:SHOWN]
    ]
    note = f"{describe_model(config.model, config.weights)}, {observer.size} px"
    if len(found) > SHOWN:
        note += f" · the first {SHOWN} of {len(found)} images"
    return attribution_figure(pictures, maps, captions, note, config.width_inches)


def _attribute(
    observer: Observer, rgb: UInt8[np.ndarray, "H W 3"], config: AttributeConfig
) -> _Attribution:
    model, pixels = observer.model, observer.pixels([rgb])
    with any_resolution(model, observer.stride):
        with torch.inference_mode(), record(model, [Site.CLS_ATTENTION]) as recorder:
            scores = model(pixels)
        attention = recorder.activations[Site.CLS_ATTENTION, -1]
        attention = attention[..., recorder.activations.num_prefix_tokens :].mean(dim=1)
        classes = choose_classes(scores, config.class_)
        relevance = attention_relevance(model, pixels, classes)
        at_once = batch_size_of(config.batch_size, observer)
        gradients = integrated_gradients(model, pixels, classes, config.steps, at_once)
    number = int(classes[0])
    return _Attribution(
        name="",
        number=number,
        probability=float(scores.softmax(dim=1)[0, number]),
        attention=attention.view(observer.grid_hw).cpu().numpy(),
        relevance=relevance.view(observer.grid_hw).cpu().numpy(),
        gradients=gradients.values[0].sum(dim=0).cpu().numpy(),
        difference=float(gradients.difference[0]),
    )


def _write(path: Path, found: list[_Attribution], about: Mapping[str, Any]) -> None:
    arrays = {
        "file_names": np.array([one.name for one in found]),
        "classes": np.array([one.number for one in found]),
        "probabilities": np.array([one.probability for one in found]),
        "attention": np.stack([one.attention for one in found]),
        "relevance": np.stack([one.relevance for one in found]),
        "integrated_gradients": np.stack([one.gradients for one in found]),
        "score_differences": np.array([one.difference for one in found]),
    }
    write_arrays(path, arrays, about)


def _completeness(config: AttributeConfig, found: list[_Attribution]) -> str:
    """How far integrated gradients are from what they should sum to."""
    sums = np.array([one.gradients.sum() for one in found])
    differences = np.array([one.difference for one in found])
    missed = float(np.abs(sums - differences).mean() / np.abs(differences).mean())
    hint = "; more --steps bring them nearer" if missed > _MISSED else ""
    return (
        f"{config.steps} steps; integrated gradients miss the differences of scores by "
        f"{missed:.2%}{hint}"
    )
