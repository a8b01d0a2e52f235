"""What speaks for a class: attention, relevance of attention, and integrated gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np

from crate_interp import analysis, data, hooks, visualization
from crate_interp.errors import InputError
from crate_interp.options import Range, option
from crate_interp.options.choices import BatchSize
from crate_interp.options.ranges import Index
from crate_interp.runs.command import ImageFilesCommand, Reading
from crate_interp.runs.outputs import Arrays, Conclusion, Drawing

if TYPE_CHECKING:
    from crate_interp.data import ResizedImage
    from crate_interp.engine import StageClock
    from crate_interp.hooks import Observer
    from crate_interp.runs.run import Run, SeenImage
    from crate_interp.visualization import Figure

__all__ = ["Attribute"]

Points = Annotated[int, Range(1, 10_000)]

SHOWN = 24  # images in the figure; the numbers are of all
PICTURE_SIDE = 1024  # longest side of an image in the figure, pixels
MAPS = {  # columns of the figure
    "class-token attention": "attention",
    "relevance of attention": "relevance",
    "integrated gradients": "integrated_gradients",
}
_NUMBERS = ("classes", "probabilities", *MAPS.values(), "score_differences")
_MISSED = 0.05  # share of the difference of scores from which on more steps are proposed


@dataclass(frozen=True, kw_only=True)
class Attribute(ImageFilesCommand):
    """Draw what speaks for a class: relevance, gradients.

    The maps are the attention of the class token in the last block, mean over heads; the relevance
    of attention; and integrated gradients, sum over colours.
    """

    group: ClassVar[str] = "look inside"
    output_is_file: ClassVar[bool] = True
    one_by_one: ClassVar[bool] = True
    one_grid: ClassVar[str] = "the arrays of all images have one shape"

    batch_size: BatchSize = option(
        "points of integrated gradients in a forward pass (auto: by tokens and memory)", "auto"
    )
    output: Path = option("the figure, NAME.png; an npz goes with it", presentation=True)
    class_: Index | None = option("number of the class (default: the predicted one)", None)
    steps: Points = option("points on the path of integrated gradients", 50)

    def check(self) -> None:
        """Refuse to go on without captum, and number types whose gradients are too coarse."""
        super().check()
        analysis.check_captum()
        if self.precision not in ("auto", "float32"):
            raise InputError(
                f"precision: gradients are computed in float32, found {self.precision}"
            )

    def load_observer(self) -> Observer:
        """Load the model, in float32."""
        from crate_interp.runs.inference import load_observer

        return load_observer(replace(self, precision="float32"))

    def reading(self, run: Run) -> Reading:
        """Refuse a class that there is not, and a model without a class token."""
        hooks.check_classifier(run.observer.model, self.class_)
        analysis.check_class_token(run.observer.model)
        return Reading(pictures=SHOWN)

    def forward(self, run: Run, images: Sequence[ResizedImage], stage: StageClock) -> Iterable[Any]:
        """Record the attention of an image, and differentiate the score of its class."""
        import torch

        model, pixels = run.observer.model, run.observer.pixels([images[0].rgb])
        with stage("forward"), hooks.any_resolution(model, run.observer.stride):
            with torch.inference_mode(), hooks.record(model, ["cls_attention"]) as recorder:
                scores = model(pixels)
            attention = recorder.activations["cls_attention", -1]
            attention = attention[..., recorder.activations.num_prefix_tokens :].mean(dim=1)
            classes = hooks.choose_classes(scores, self.class_)
            relevance = analysis.attention_relevance(model, pixels, classes)
            gradients = analysis.integrated_gradients(
                model, pixels, classes, self.steps, run.settings["batch_size"]
            )
        number, grid_hw = int(classes[0]), run.observer.grid_hw
        numbers = {
            "classes": np.array(number),
            "probabilities": np.array(float(scores.softmax(dim=1)[0, number])),
            "attention": attention.view(grid_hw).cpu().numpy(),
            "relevance": relevance.view(grid_hw).cpu().numpy(),
            "integrated_gradients": gradients.values[0].sum(dim=0).cpu().numpy(),
            "score_differences": np.array(float(gradients.difference[0])),
        }
        return [numbers]

    def measure(self, run: Run, image: SeenImage, output: Mapping[str, Any]) -> Mapping[str, Any]:
        """Keep the numbers of an image, and the picture of one that the figure shows."""
        if image.picture is None:
            return output
        return {**output, "picture": data.shrunk(image.picture, PICTURE_SIDE)}

    def conclude(self, run: Run) -> Conclusion:
        """Draw the maps of the first images, and write the numbers of all."""
        numbers = {name: np.stack([entry[name] for entry in run.entries]) for name in _NUMBERS}
        file_names = np.array([entry["file_name"] for entry in run.entries])
        arrays = Arrays(run.stem, {"file_names": file_names, **numbers})
        drawing = Drawing(run.stem, self._figure(run, numbers))
        sums = np.array([gradients.sum() for gradients in numbers["integrated_gradients"]])
        differences = numbers["score_differences"]
        missed = float(np.abs(sums - differences).mean() / np.abs(differences).mean())
        text = (
            f"{self.steps} steps; integrated gradients miss the differences of scores by "
            f"{missed:.2%}{'; more --steps bring them nearer' if missed > _MISSED else ''}"
        )
        return Conclusion([drawing, arrays], text)

    def _figure(self, run: Run, numbers: Mapping[str, Any]) -> Figure:
        """The first images in their own proportions, with the maps in their pixels."""
        from crate_interp.runs.class_names import class_names_of, name_class

        names = class_names_of(self, int(getattr(run.observer.model, "num_classes", 0)))
        pictures, captions = [], []
        maps: dict[str, list[Any]] = {title: [] for title in MAPS}
        for row, entry in enumerate(run.pictured):
            rgb = entry["picture"]
            geometry = run.observer.geometry(rgb.shape[:2])
            for title, name in MAPS.items():
                values = numbers[name][row : row + 1]
                if name != "integrated_gradients":
                    values = geometry.grid_to_input(values)
                maps[title].append(geometry.input_to_original(values)[0])
            pictures.append(rgb)
            called = name_class(int(entry["classes"]), names)
            captions.append(f"{entry['file_name']}: {called}, p = {entry['probabilities']:.2f}")
        note = f"{run.settings['model']}, {run.observer.size} px"
        if len(pictures) < len(run.entries):
            note += f" · the first {len(pictures)} of {len(run.entries)} images"
        return visualization.attribution_figure(pictures, maps, captions, note, self.width_inches)
