"""timm's own names of parameters, which ours are too, and whatever else timm can convert."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor

from crate_interp.errors import CheckpointError
from crate_interp.models.backbones import trunk_of
from crate_interp.weights.create import TIMM_REFUSALS
from crate_interp.weights.layout import LAYOUTS, Layout, Rule, Way, register_layout, unknown_layout
from crate_interp.weights.resampling import resample

_UNCHANGED = (Rule("{any}", "{any}"),)


def _conversion_of(model: Any) -> Callable[[dict[str, Tensor], Any], dict[str, Tensor]] | None:
    """The function that timm has beside the class of a model, if it is timm's."""
    if not type(model).__module__.startswith("timm."):
        return None
    # Beside the encoders of language models there are two, for the encoder and its classifier.
    part = "encoder" if trunk_of(model) is model else "classifier"
    names = ("checkpoint_filter_fn", f"checkpoint_filter_fn_{part}")
    modules = (vars(sys.modules[kind.__module__]) for kind in type(model).__mro__)
    return next((module[name] for module in modules for name in names if name in module), None)


def _fit(tensors: dict[str, Tensor], model: Any, way: Way) -> dict[str, Tensor]:
    convert = _conversion_of(model)
    if convert is None or way == "linear":
        resample(tensors, model, way, any_grid=convert is None)  # ours need not be square
    if convert is None:
        return tensors
    try:
        return dict(convert(tensors, model))
    except TIMM_REFUSALS as error:
        raise CheckpointError(f"timm cannot convert it: {error!r}") from error


def _fit_unknown(tensors: dict[str, Tensor], model: Any, way: Way) -> dict[str, Tensor]:
    if _conversion_of(model) is None:
        raise unknown_layout(tensors)
    return _fit(tensors, model, way)


register_layout(
    Layout(
        "timm",
        ("blocks.{i}.norm1.weight",),
        _UNCHANGED,
        # DINO's projection head; in our files, CRATE-MAE's decoder and CLIPA's text tower
        aside=(r"head\.(mlp|last_layer)\..*", r"decoder\..*", r"text\..*|logit_scale"),
        fit=_fit,
    )
)
# Without marks: what no other layout recognises.
LAYOUTS["converted by timm"] = Layout("converted by timm", (), _UNCHANGED, fit=_fit_unknown)
