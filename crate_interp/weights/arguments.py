"""What a model may be asked to be: names and ranges of the sizes that users and files give.

A weight file's record, a recipe and `--model-args` can ask for these and nothing else; Python's
callers for classes and functions, too (`norm_layer=nn.LayerNorm`). What would have timm read
another file, or go to the network, is no size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from crate_interp.errors import InputError, shorten

__all__ = ["check_arguments"]

_WHOLE = {
    "depth": (1, 256),
    "embed_dim": (1, 16384),
    "in_chans": (1, 64),
    "num_classes": (0, 1_000_000),
    "num_heads": (1, 256),
    "reg_tokens": (0, 256),
}
_SIDES = {"img_size": (1, 16384), "patch_size": (1, 1024)}  # pixels; one number, or two
_NUMBERS = {
    "attn_drop_rate": (0, 1),
    "drop_path_rate": (0, 1),
    "drop_rate": (0, 1),
    "init_values": (0, 1e3),
    "mlp_ratio": (1e-3, 64),
    "patch_drop_rate": (0, 1),
    "pos_drop_rate": (0, 1),
    "proj_drop_rate": (0, 1),
    "step_size": (0, 1e3),
    "threshold": (0, 1e3),
}
_SWITCHES = {
    "class_token",
    "dynamic_img_pad",
    "dynamic_img_size",
    "fc_norm",
    "final_norm",
    "fix_init",
    "no_embed_class",
    "pool_include_prefix",
    "pre_logits",
    "pre_norm",
    "projection_head",
    "proj_bias",
    "qk_norm",
    "qkv_bias",
    "scale_attn_norm",
    "scale_mlp_norm",
}
_WORDS = {
    "global_pool": ("", "avg", "avgmax", "map", "max", "token"),
    "pos_embed": ("", "learn", "none"),
    "weight_init": ("", "jax", "jax_nlhb", "moco", "reset", "skip"),
}
_MAY_BE_NONE = {"fc_norm", "init_values", "img_size"}


def check_arguments(arguments: Mapping[str, Any], what: str, *, plain: bool = False) -> None:
    """Check the arguments of a model before it is made.

    Args:
        arguments: By name.
        what: What they are for, in messages: a model's name, or a file.
        plain: Take sizes only; otherwise classes, functions and number types, too.

    Raises:
        InputError: A name is no size, or its value of another type or out of range.
    """
    for name, value in arguments.items():
        if not plain and (callable(value) or isinstance(value, torch.dtype | torch.device)):
            continue
        expected = _expected(name)
        if not _fits(name, value):
            raise InputError(
                f"{what} cannot be made with {shorten(name)} {shorten(value)}: expected {expected}"
            )


def _expected(name: str) -> str:
    nothing = " or nothing" if name in _MAY_BE_NONE else ""
    if name in _WHOLE:
        return "a whole number from {} to {}".format(*_WHOLE[name])
    if name in _SIDES:
        return "a whole number from {} to {}, or two".format(*_SIDES[name]) + nothing
    if name in _NUMBERS:
        return "a number from {:g} to {:g}".format(*_NUMBERS[name]) + nothing
    if name in _SWITCHES:
        return "true or false" + nothing
    if name in _WORDS:
        return f"one of {', '.join(map(repr, _WORDS[name]))}"
    return "a size, for instance embed_dim, depth, num_heads, patch_size or img_size"


def _fits(name: str, value: Any) -> bool:
    if value is None:
        return name in _MAY_BE_NONE
    if name in _WHOLE:
        return _is_between(value, _WHOLE[name], int)
    if name in _SIDES:
        sides = value if isinstance(value, list | tuple) else (value, value)
        return len(sides) == 2 and all(_is_between(side, _SIDES[name], int) for side in sides)
    if name in _NUMBERS:
        return _is_between(value, _NUMBERS[name], int | float)
    if name in _SWITCHES:
        return isinstance(value, bool)
    return name in _WORDS and isinstance(value, str) and value in _WORDS[name]


def _is_between(value: Any, ends: tuple[float, float], kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and ends[0] <= value <= ends[1]
