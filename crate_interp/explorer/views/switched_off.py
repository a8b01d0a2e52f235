"""The effect of switching heads or atoms off on the mask and on the class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crate_interp import analysis, hooks, models, structures, visualization
from crate_interp.errors import InputError
from crate_interp.explorer.scene import Scene
from crate_interp.explorer.view import Answer, Shown, View, same_options
from crate_interp.options import option
from crate_interp.options.numbers import numbers_of
from crate_interp.options.ranges import AtLeastOne, Index
from crate_interp.runs.class_names import name_class
from crate_interp.runs.inference import batch_size_of
from crate_interp.visualization.page import Bars, PageTable

__all__ = ["SwitchedOff"]

_CLASSES = 5  # classes that are listed


@dataclass(frozen=True, kw_only=True)
class SwitchedOff(View):
    """Mask and class with and without heads or atoms, and the effect of each alone."""

    title: ClassVar[str] = "Switch off"
    summary: ClassVar[str] = "What heads or atoms do: mask and class without them."
    place: ClassVar[int] = 70
    uses_patch: ClassVar[bool] = False

    target: Literal["heads", "atoms"] = option(
        "sparse codes are atoms, or a ViT's neurons", "heads"
    )
    block: Index = option("block they belong to", 0)
    off: str = option("numbers to switch off together, such as 0,3", "")
    effect: Literal["logit", "mask"] = option(
        "effect of each alone: on the score of the class, or on MaskCut's first mask", "logit"
    )
    measured: AtLeastOne = option("atoms that are measured alone, those that matter most", 10)

    def look(self, scene: Scene) -> Answer:
        """Switch off what is asked for, and each alone; in float32."""
        scene = scene.precise()
        model, observer, block = scene.backbone, scene.observer, scene.block(self.block)
        site = hooks.Site.HEADS if self.target == "heads" else hooks.atom_site(model, block)
        off = _off(self.off, hooks.count_units(model, site, block), self.target)
        if self.effect == "logit":
            hooks.check_classifier(model)
        pixels = observer.pixels([scene.picture.rgb])
        resolution = hooks.any_resolution(model, observer.stride)
        with torch.inference_mode(), resolution:
            units, effects = self._alone(scene, pixels, site, block)
            before = _seen(scene, pixels)
            with hooks.intervene(model, _edits(site, block, off)):
                after = _seen(scene, pixels)
        unit, order = self.target[:-1], np.argsort(-np.abs(effects), kind="stable")
        what = {"logit": "drop of the class score", "mask": "change of the mask, 1 − IoU"}
        bars = Bars([(f"{unit} {units[n]}", abs(effects[n]), f"{effects[n]:.4f}") for n in order])
        measured = None if self.target == "heads" else self.measured
        words = f"Without {self.target} {', '.join(map(str, off))}" if off else "Nothing is off"
        return Answer(
            f"{words} in block {block} of {scene.model.name}. Bars: {what[self.effect]} without "
            f"each {unit} alone.",
            [
                _drawn(scene, "mask of the whole model", before[1]),
                *([_drawn(scene, words[0].lower() + words[1:], after[1])] if off else []),
            ],
            [bars, *_classes(scene, before[0], after[0], bool(off))],
            numbers={"effects": effects, unit: np.array(units)},
            masks=scene.geometry.grid_to_original(after[1][None]),
            command=same_options(
                *("ablate", self, scene),
                block=block,
                off=None,
                measured=measured,
                output="ablation",
            ),
            note="The command measures each alone.",
        )

    def _alone(
        self, scene: Scene, pixels: Tensor, site: hooks.Site, block: int
    ) -> tuple[list[int], Float[np.ndarray, " A"]]:
        """Heads or atoms, and the effect of each when it is off alone, as `ablate` measures it."""
        model, at_once = scene.backbone, batch_size_of("auto", scene.observer)
        units = list(range(hooks.count_units(model, site, block)))
        precision = models.inference_precision(scene.observer.precision, model)
        if self.effect == "mask":
            if self.target == "atoms" and block < scene.model.depth - 1:
                codes = scene.activations([site], [block])[site.value, block]
                units = self._largest(analysis.written_energy(model, codes, block))
            with precision:
                effects = analysis.mask_effects(model, pixels, site, block, units, at_once)
            return units, effects.cpu().double().numpy()
        number = int(model(pixels).argmax())
        if self.target == "atoms":
            (estimate,) = analysis.estimate_logit_effects(model, pixels, number, site, [block])
            units = self._largest(estimate)
        with precision:
            with hooks.record(model, [hooks.Site.TOKENS_IN], [block]) as recorder:
                model(pixels)
            effects = analysis.logit_effects(
                model, recorder.activations, number, site, block, units, at_once
            )
        return units, effects.cpu().double().numpy()

    def _largest(self, estimate: Float[Tensor, " U"]) -> list[int]:
        """Atoms of the largest estimates, in their order, as `ablate` chooses them."""
        magnitudes = -np.abs(estimate.cpu().double().numpy())
        return sorted(np.argsort(magnitudes, kind="stable")[: self.measured].tolist())


def _off(text: str, count: int, target: str) -> list[int]:
    numbers = numbers_of("off", text, "", "0,3") or []
    if any(number >= count for number in numbers):
        raise InputError(f"off: expected {target} from 0 to {count - 1}, found {max(numbers)}")
    return numbers


def _edits(site: hooks.Site, block: int, off: Sequence[int]) -> dict[hooks.Target, hooks.Edit]:
    return {hooks.Target(site, block, list(off)): hooks.ZeroEdit()} if off else {}


def _seen(
    scene: Scene, pixels: Tensor
) -> tuple[Float[np.ndarray, " C"] | None, Bool[np.ndarray, "h w"]]:
    """Probabilities of the classes, if there are any, and the first mask of MaskCut."""
    model, probabilities = scene.backbone, None
    with models.inference_precision(scene.observer.precision, model):
        if getattr(model, "num_classes", 0) > 0:
            probabilities = model(pixels).softmax(dim=1)[0].cpu().numpy()
        mask = analysis.mask_of(model, pixels)[0].cpu().numpy()
    return probabilities, mask


def _drawn(scene: Scene, words: str, mask: Bool[np.ndarray, "h w"]) -> Shown:
    masks = scene.on_shown(mask[None])
    instances = structures.Instances(masks[masks.any(axis=(1, 2))])
    return Shown(words, visualization.draw_instances(scene.shown, instances))


def _classes(
    scene: Scene,
    before: Float[np.ndarray, " C"] | None,
    after: Float[np.ndarray, " C"] | None,
    is_off: bool,
) -> list[PageTable]:
    """The classes of the largest probabilities, of the whole model or without what is off."""
    if before is None or after is None:
        return []
    numbers = np.argsort(-np.maximum(before, after), kind="stable")[:_CLASSES].tolist()
    names = scene.model.class_names
    rows = [
        [name_class(n, names), f"{before[n]:.1%}", *([f"{after[n]:.1%}"] if is_off else [])]
        for n in numbers
    ]
    return [PageTable(("class", "whole model", *(["without"] if is_off else [])), rows)]
