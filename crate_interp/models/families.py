"""What the CRATE families share as timm models: their building and their configurations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from timm.models import build_model_with_cfg
from torch import Tensor, nn

__all__ = [
    "DEMO",
    "DEMO_CFG",
    "PretrainedFiles",
    "build_with_timm",
    "load_pretrained",
    "pretrained_cfg",
]

# The sizes of the shipped models, alike for all families, and their scenes.
DEMO: dict[str, Any] = {"embed_dim": 128, "depth": 4, "num_heads": 4, "patch_size": 4}
DEMO_CFG: dict[str, Any] = {
    "num_classes": 8,
    "input_size": (3, 96, 96),
    "test_input_size": (3, 96, 96),
    "crop_pct": 1.0,
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
    load: Callable[[nn.Module, str], None]


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


def build_with_timm(
    model_class: type[nn.Module],
    variant: str,
    pretrained: bool,
    arguments: dict[str, Any],
    **sizes: Any,
) -> nn.Module:
    """Build a registered model with timm: what the body of a function for `register_model` does.

    Args:
        model_class: A subclass of timm's VisionTransformer.
        variant: Registered name.
        pretrained: Load the weights of the model's configuration.
        arguments: What `timm.create_model` passed on.
        **sizes: Arguments that make this variant; `arguments` come before them.

    Returns:
        The model; with `features_only=True`, timm's wrapper of it.
    """
    features = {"feature_cls": "getter", "out_indices": arguments.pop("out_indices", 3)}
    model: nn.Module = build_model_with_cfg(
        model_class,
        variant,
        pretrained,
        pretrained_filter_fn=PretrainedFiles.convert,
        feature_cfg=features,
        **{**sizes, **arguments},
    )
    return model
