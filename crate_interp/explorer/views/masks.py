"""Masks of any segmenter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from crate_interp import segmentation, structures, visualization
from crate_interp.errors import counted
from crate_interp.explorer.scene import Scene
from crate_interp.explorer.view import Answer, Shown, View, same_options
from crate_interp.options import option, part_of, with_options_of
from crate_interp.options.choices import Refine
from crate_interp.segmentation.segmenter import SEGMENTERS, Segmenter, image_name
from crate_interp.visualization.page import PageTable

__all__ = ["Masks"]


@dataclass(frozen=True, kw_only=True)
class Masks(View):
    """Instances of one segmenter; `kinds` has a class for each, with its options."""

    title: ClassVar[str] = "Masks"
    summary: ClassVar[str] = "Objects that a segmenter finds without labels."
    place: ClassVar[int] = 30
    uses_patch: ClassVar[bool] = False
    method: ClassVar[str] = "maskcut"

    refine: Refine = option("refinement at input resolution (crf takes seconds)", "none")

    @classmethod
    def kinds(cls) -> Mapping[str, type[View]]:
        """A class for each segmenter, with its options."""
        names = ["maskcut", *(name for name in SEGMENTERS.names() if name != "maskcut")]
        return {name: with_options_of(cls, [SEGMENTERS[name]], method=name) for name in names}

    def look(self, scene: Scene) -> Answer:
        """Segment the picture."""
        kind: Any = SEGMENTERS[self.method]
        segmenter: Segmenter = part_of(self, kind).for_model(scene.backbone)
        activations = scene.activations(segmenter.sites, segmenter.blocks)
        geometry, rgb = scene.geometry, scene.picture.rgb
        image_name.set(scene.picture.name)
        on_grid = segmenter(activations, geometry)
        instances = segmentation.on_original(
            on_grid, geometry, rgb, self.refine, scene.observer.device, scene.picture.name
        )
        count = counted(len(instances), "mask")
        return Answer(
            f"{self.method} finds {count if len(instances) else 'no masks'} with "
            f"{scene.model.name}.",
            [Shown(count, _drawn(scene, instances))],
            [_table(instances)] if len(instances) else [],
            numbers={"masks": instances.masks, "scores": instances.scores},
            masks=instances.masks,
            command=same_options(
                "segment",
                self,
                scene,
                ["--images"],
                method=self.method,
                export="png",
                output="masks",
            ),
        )


def _drawn(scene: Scene, instances: structures.Instances) -> Any:
    """Draw the masks on the picture as it is shown."""
    shown = (scene.shown.shape[0], scene.shown.shape[1])
    nearest = structures.ImageGeometry(shown, scene.picture.hw, (1, 1))
    masks = nearest.input_to_original(instances.masks)
    return visualization.draw_instances(scene.shown, structures.Instances(masks, instances.scores))


def _table(instances: structures.Instances) -> PageTable:
    """One line for each mask: score, box, and share of the picture."""
    rows = [
        [
            str(number),
            f"{score:.3f}",
            " ".join(f"{side:.0f}" for side in box),
            f"{mask.mean():.1%}",
        ]
        for number, (mask, score, box) in enumerate(
            zip(instances.masks, instances.scores, instances.boxes_xyxy, strict=True), start=1
        )
    ]
    return PageTable(("mask", "score", "box x1 y1 x2 y2", "share of the picture"), rows)
