"""Principal components of the patches of a picture, as colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from crate_interp import analysis, hooks
from crate_interp.explorer.scene import Scene
from crate_interp.explorer.view import Answer, Shown, View, same_options
from crate_interp.options import option
from crate_interp.options.choices import Feature, Foreground
from crate_interp.options.ranges import Index

__all__ = ["Pca"]


@dataclass(frozen=True, kw_only=True)
class Pca(View):
    """The first component in grey, and the components of the foreground as colours."""

    title: ClassVar[str] = "PCA"
    summary: ClassVar[str] = "Principal components of the patches: alike parts get alike colours."
    place: ClassVar[int] = 20
    uses_patch: ClassVar[bool] = False

    feature: Feature = option("what to analyse (auto: subspace for CRATE, key for ViT)", "auto")
    block: Index = option("block to read", -1)
    foreground: Foreground = option(
        "grey of the first component above which a patch is coloured (auto: by Otsu's method)",
        "auto",
    )

    def look(self, scene: Scene) -> Answer:
        """Colour the patches of the picture."""
        block = scene.block(self.block)
        if self.feature == "auto":
            feature = hooks.default_feature(scene.backbone, block)
        else:
            feature = hooks.Site(self.feature)
        activations = scene.all_blocks(feature)
        features = activations.patch_features(feature.value, block)[0].T.float().cpu().numpy()
        found = analysis.joint_pca([features], scene.geometry.grid_hw, self.foreground)
        (grey,) = scene.on_shown(found.grey)
        coloured = np.moveaxis(scene.on_shown(np.moveaxis(found.rgb[0], -1, 0)), 0, -1)
        shares = ", ".join(f"{share:.0%}" for share in found.shares)
        where = "all patches" if found.threshold is None else "the foreground"
        return Answer(
            f"{feature.value} of block {block} of {scene.model.name}. Component 1 has "
            f"{found.first_share:.0%} of the variance; colours are components of {where}, with "
            f"{shares} of its variance.",
            [
                Shown("component 1", _as_grey(grey)),
                Shown(f"components of {where}", np.ascontiguousarray(coloured)),
            ],
            numbers={
                "grey": found.grey,
                "foreground": found.foreground,
                "components": found.components,
                "rgb": found.rgb,
            },
            masks=scene.geometry.grid_to_original(found.foreground),
            command=same_options("pca", self, scene, block=block, output="pca.png"),
        )


def _as_grey(values: np.ndarray) -> np.ndarray:
    grey = (255 * values).round().clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
