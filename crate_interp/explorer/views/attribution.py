"""What speaks for a class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from crate_interp import analysis, hooks, visualization
from crate_interp.explorer.scene import Scene
from crate_interp.explorer.view import Answer, Shown, View, same_options
from crate_interp.options import option
from crate_interp.options.ranges import AtLeastOne, Index
from crate_interp.runs.class_names import name_class
from crate_interp.runs.inference import batch_size_of
from crate_interp.visualization.overlay import draw_signed

__all__ = ["Attribution"]


@dataclass(frozen=True, kw_only=True)
class Attribution(View):
    """Attention of the class token, relevance of attention, and integrated gradients."""

    title: ClassVar[str] = "Attribution"
    summary: ClassVar[str] = "What speaks for a class: attention, its relevance, gradients."
    place: ClassVar[int] = 60
    uses_patch: ClassVar[bool] = False

    class_: Index | None = option("number of the class; empty: the predicted one", None)
    gradients: bool = option("integrated gradients, too: takes seconds, needs captum", False)
    steps: AtLeastOne = option("points on the path of integrated gradients", 10)

    def look(self, scene: Scene) -> Answer:
        """Show what speaks for the class, in float32."""
        scene = scene.precise()
        model, observer = scene.backbone, scene.observer
        hooks.check_classifier(model, self.class_)
        analysis.check_class_token(model)
        if self.gradients:
            analysis.check_captum()
        pixels = observer.pixels([scene.picture.rgb])
        with hooks.any_resolution(model, observer.stride):
            with torch.inference_mode(), hooks.record(model, ["cls_attention"]) as recorder:
                scores = model(pixels)
            classes = hooks.choose_classes(scores, self.class_)
            relevance = analysis.attention_relevance(model, pixels, classes)
            found = None
            if self.gradients:
                at_once = batch_size_of("auto", observer)
                found = analysis.integrated_gradients(model, pixels, classes, self.steps, at_once)
        recorded = recorder.activations
        attention = recorded["cls_attention", -1][..., recorded.num_prefix_tokens :].mean(dim=1)
        grid_hw, number = scene.geometry.grid_hw, int(classes[0])
        probability = float(scores.softmax(dim=1)[0, number])
        numbers: dict[str, Any] = {
            "classes": np.array(number),
            "probabilities": np.array(probability),
            "attention": attention.view(grid_hw).cpu().numpy(),
            "relevance": relevance.view(grid_hw).cpu().numpy(),
        }
        if found is not None:
            numbers["integrated_gradients"] = found.values[0].sum(dim=0).cpu().numpy()
        return Answer(
            f"{name_class(number, scene.model.class_names)}: {scene.model.name} gives it "
            f"{probability:.1%}.",
            list(_shown(scene, numbers)),
            numbers=numbers,
            command=same_options(
                "attribute", self, scene, gradients=None, output="attribution.png"
            ),
            note="The command draws all three maps, and needs captum.",
        )


def _shown(scene: Scene, numbers: dict[str, Any]) -> Iterator[Shown]:
    for words, name in (
        ("attention of the class token", "attention"),
        ("relevance of attention", "relevance"),
    ):
        (values,) = scene.on_shown(numbers[name][None])
        yield Shown(words, visualization.draw_attention(scene.shown, values))
    if "integrated_gradients" in numbers:
        (values,) = scene.shown_geometry.input_to_original(numbers["integrated_gradients"][None])
        yield Shown("integrated gradients (purple: for it)", draw_signed(values))
