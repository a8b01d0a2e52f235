"""Common parts of the CRATE families as timm models: their building and their configurations."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn

__all__ = [
    "ALIASES",
    "SHIPPED",
    "SHIPPED_CFGS",
    "PretrainedFiles",
    "load_pretrained",
    "pretrained_cfg",
    "register_family",
]

# Short names of models, as papers have them: what timm calls them. Each family adds its own. One
# whose model has no tag has no published weights under that name.
ALIASES: dict[str, str] = {}

# The sizes of the shipped models, alike for all families, and what they were trained on: `demo`
# learnt from scenes, `photo` from photographs.
SHIPPED: dict[str, dict[str, Any]] = {
    "demo": {"embed_dim": 128, "depth": 4, "num_heads": 4, "patch_size": 4},
    "photo": {"embed_dim": 192, "depth": 5, "num_heads": 6, "patch_size": 8},
}
SHIPPED_CFGS: dict[str, dict[str, Any]] = {
    "demo": {
        "num_classes": 8,
        "input_size": (3, 96, 96),
        "test_input_size": (3, 96, 96),
        "crop_pct": 1.0,
    },
    "photo": {
        "num_classes": 119,
        "input_size": (3, 128, 128),
        "test_input_size": (3, 224, 224),
        "crop_pct": 0.875,
    },
}


class PretrainedFiles:
    """What timm's `pretrained=True` calls for our models.

    The layouts of weight files are known one room above, `crate_interp.weights`, which sets both
    functions when it is imported; `registration.py` sees to it that it is.

    Attributes:
        convert: Gives the tensors of a file the names and sizes of a model.
        load: Loads a file that timm itself cannot read.
    """

    convert: Callable[[Mapping[str, Tensor], nn.Module], dict[str, Tensor]]
    load: Callable[[nn.Module, str], object]


def load_pretrained(model: nn.Module, checkpoint_path: str) -> None:
    """Load a file that timm itself cannot read; timm's hook for `custom_load`, a method."""
    PretrainedFiles.load(model, checkpoint_path)


def pretrained_cfg(**differences: Any) -> dict[str, Any]:
    """Describe weights and their input as timm does; mean and std are timm's default, ImageNet's.

    Args:
        **differences: Fields of timm's `PretrainedCfg` that are not those of every family.
    """
    return {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "fixed_input_size": True,
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        "license": "mit",
        **differences,
    }


def register_family(
    module: str, model_class: type[nn.Module], variants: Mapping[str, dict[str, Any]]
) -> None:
    """Register the architectures of a family with timm.

    Args:
        module: Name of the family's module, in which `default_cfgs` are defined before.
        model_class: A subclass of timm's VisionTransformer, or itself.
        variants: Arguments of the class by architecture; those of `architecture.tag` are added
            for these weights alone.
    """
    for name in variants:
        if "." not in name:
            entrypoint = _entrypoint(model_class, name, variants)
            entrypoint.__module__, entrypoint.__name__ = module, name
            setattr(sys.modules[module], name, register_model(entrypoint))


def _entrypoint(
    model_class: type[nn.Module], name: str, variants: Mapping[str, dict[str, Any]]
) -> Callable[..., nn.Module]:
    def build(pretrained: bool = False, **arguments: Any) -> nn.Module:
        features = {"feature_cls": "getter", "out_indices": arguments.pop("out_indices", 3)}
        of_weights = variants.get(f"{name}.{arguments.get('pretrained_cfg')}", {})
        model: nn.Module = build_model_with_cfg(
            model_class,
            name,
            pretrained,
            pretrained_filter_fn=PretrainedFiles.convert,
            feature_cfg=features,
            **{**variants[name], **of_weights, **arguments},
        )
        return model

    return build
