"""Features of images, a vector per patch or one of the whole image, for commands that keep them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from crate_interp import hooks
from crate_interp.errors import InputError
from crate_interp.options.choices import Feature

if TYPE_CHECKING:
    from jaxtyping import Float

    from crate_interp.runs.run import Run
    from crate_interp.structures import Activations

__all__ = ["POOLS", "Pool", "features_of", "reading_of"]

Pool = Literal["none", "mean", "class", "head"]
POOLS = (
    "mean: mean of the patches; class: class token; head: what the model's own head reads, pooled "
    "and normalised as the model does it"
)
"""What ways to make one feature of an image are, for help."""


def reading_of(run: Run, feature: Feature, block: int, pool: Pool) -> dict[str, Any]:
    """Give what `Reading` takes, so that `features_of` finds its tensor.

    Args:
        run: The run.
        feature: Option `--feature`.
        block: Option `--block`.
        pool: Option `--pool`.

    Raises:
        InputError: The model has no such feature, no such block or no class token; or options that
            do not go with one another.
    """
    from crate_interp.models.backbones import has_class_token
    from crate_interp.runs.inference import feature_of

    model: Any = run.observer.model
    if pool == "head":
        if (feature, block) != ("auto", -1):
            raise InputError(
                "--pool head: is what leaves the last block; expected no --feature and no --block"
            )
        return {"sites": ["tokens"], "blocks": [-1], "settings": {"feature": "tokens"}}
    if pool == "class" and not has_class_token(model):
        raise InputError(f"--pool class: {type(model).__name__} has no class token")
    site = feature_of(feature, block, run.observer).value
    return {"sites": [site], "blocks": [block], "settings": {"feature": site}}


def features_of(
    run: Run, output: Activations, block: int, pool: Pool
) -> Float[np.ndarray, "h w D"] | Float[np.ndarray, " D"]:
    """Give the feature of each patch of an image, or the one of the image.

    Args:
        run: The run, whose reading is made of `reading_of`.
        output: Activations of the image, a batch of one.
        block: Option `--block`.
        pool: Option `--pool`.

    Raises:
        InputError: The site holds no feature per token, or the model has no head.
    """
    site = run.settings["feature"]
    if pool == "head":
        features = hooks.head_input(run.observer.model, output[site, block])[0]
    elif pool == "class":
        features = output[site, block][0, 0]
    else:
        patches = output.patch_features(site, block)[0].float()
        features = patches.mean(dim=1) if pool == "mean" else patches.T.unflatten(0, output.grid_hw)
    return np.ascontiguousarray(features.float().cpu().numpy())
