"""See what white-box vision transformers have learnt.

Importing this package registers CRATE, CRATE-alpha, CRATE-MAE and the CLIPA vision towers with
timm, and costs nothing until timm or one of the names below is used:

    from crate_interp import MaskCut, load_backbone
    instances = MaskCut(load_backbone("crate_alpha_B8.in21k"))("photo.jpg")
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from crate_interp.registration import register_with_timm

_HOME = {
    "Activations": "crate_interp.structures",
    "CheckpointError": "crate_interp.errors",
    "ImageGeometry": "crate_interp.structures",
    "InputError": "crate_interp.errors",
    "Instances": "crate_interp.structures",
    "MaskCut": "crate_interp.segmentation.predictor",
    "MeanEdit": "crate_interp.hooks",
    "Observer": "crate_interp.hooks",
    "PatchIn": "crate_interp.hooks",
    "ScaleEdit": "crate_interp.hooks",
    "SetEdit": "crate_interp.hooks",
    "Site": "crate_interp.hooks",
    "Target": "crate_interp.hooks",
    "ZeroEdit": "crate_interp.hooks",
    "any_resolution": "crate_interp.hooks",
    "attention_masks": "crate_interp.segmentation",
    "coco_average_precision": "crate_interp.evaluation",
    "from_pretrained": "crate_interp.weights",
    "intervene": "crate_interp.hooks",
    "load_backbone": "crate_interp.weights",
    "load_clip": "crate_interp.weights",
    "load_text_model": "crate_interp.weights",
    "maskcut": "crate_interp.segmentation",
    "push_to_hub": "crate_interp.weights",
    "record": "crate_interp.hooks",
    "tokencut": "crate_interp.segmentation",
}
__all__ = sorted(_HOME)  # noqa: PLE0605  # the table is the list
_HOME |= dict.fromkeys(("Mean", "Patch", "Scale", "Set", "Zero"), "crate_interp.hooks")

# Rooms that load torch: `from crate_interp import analysis` waits until a name of it is used.
_ROOMS = ("analysis", "evaluation", "hooks", "models", "training", "visualization", "weights")


class _Room(ModuleType):
    """Stands for a room that nothing has imported yet."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


register_with_timm()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # slow to import, and rarely asked for

        return version("crate-interp")
    if name in _ROOMS:
        return _Room(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
