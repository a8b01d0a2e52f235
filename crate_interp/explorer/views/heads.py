"""What the heads of a block attend to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float

from crate_interp import hooks, segmentation, visualization
from crate_interp.errors import InputError
from crate_interp.explorer.scene import Scene
from crate_interp.explorer.view import Answer, Shown, View, same_options
from crate_interp.options import option
from crate_interp.options.choices import KeepBy
from crate_interp.options.ranges import Index, Share

__all__ = ["Heads"]


@dataclass(frozen=True, kw_only=True)
class Heads(View):
    """Maps and masks of the attention of one token."""

    title: ClassVar[str] = "Heads"
    summary: ClassVar[str] = (
        "What each head attends to: the class token's attention, or that of a patch that you click."
    )
    place: ClassVar[int] = 10

    block: Index = option("block to read", -1)
    head: Literal["all", "mean"] | Index = option("each head, their mean, or one of them", "all")
    threshold: Share = option("share that a mask keeps", 0.6)
    threshold_by: KeepBy = option("what is shared out: mass of attention, or patches", "mass")

    def look(self, scene: Scene) -> Answer:
        """Show the attention of the class token, or of the patch that was clicked."""
        block = scene.block(self.block)
        self._check(scene, block)
        activations = scene.all_blocks(hooks.Site.QUERY, hooks.Site.KEY)
        maps, names = self._chosen(
            hooks.attention_map(activations, block, scene.patch)[0].cpu().numpy()
        )
        kept = segmentation.attention_masks(
            torch.from_numpy(maps).flatten(1), self.threshold_by, self.threshold
        )
        masks = kept.numpy().reshape(maps.shape)
        on_shown = zip(names, scene.on_shown(maps), scene.on_shown(masks), strict=True)
        shown = [
            Shown(
                name,
                visualization.draw_attention(scene.shown, values),
                below=visualization.draw_kept(scene.shown, mask),
            )
            for name, values, mask in on_shown
        ]
        token = "the class token" if scene.pixel is None else f"the patch at {scene.pixel} (y,x)"
        by = {"mass": "of the mass", "entries": "of the patches"}[self.threshold_by]
        return Answer(
            f"Attention of {token} in block {block} of {scene.model.name}; a mask keeps "
            f"{self.threshold:.0%} {by}.",
            shown,
            numbers={"maps": maps, "masks": masks},
            masks=scene.geometry.grid_to_original(masks),
            command=same_options(
                "attention", self, scene, block=block, patch=scene.pixel, output="attention"
            ),
        )

    def _check(self, scene: Scene, block: int) -> None:
        sites = hooks.available_sites(scene.backbone, block)
        if hooks.Site.QUERY not in sites:
            raise InputError(f"{scene.model.name}: no attention can be read at block {block}")
        if hooks.Site.CLS_ATTENTION not in sites and scene.patch is None:
            raise InputError(
                f"{scene.model.name} has no class token: click a patch to see its attention"
            )

    def _chosen(
        self, maps: Float[np.ndarray, "K h w"]
    ) -> tuple[Float[np.ndarray, "M h w"], list[str]]:
        """Maps of the heads that are asked for, and their names."""
        if self.head == "all":
            return maps, [f"head {number}" for number in range(len(maps))]
        if self.head == "mean":
            return np.asarray(maps.mean(axis=0, keepdims=True)), ["mean of heads"]
        if not 0 <= self.head < len(maps):
            raise InputError(f"head {self.head}: the model has heads 0 to {len(maps) - 1}")
        return maps[[self.head]], [f"head {self.head}"]
