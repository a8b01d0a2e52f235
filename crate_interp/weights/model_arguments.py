"""Arguments of models: names and ranges of the sizes that users and files may give.

A weight file's record, a recipe and `--model-args` can ask for these and nothing else; Python's
callers for classes and functions, too (`norm_layer=nn.LayerNorm`). What would have timm read
another file, or go to the network, is no size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from crate_interp.errors import InputError, shorten

__all__ = ["check_arguments"]

Check = tuple[str, Callable[[Any], bool]]  # what is expected, and whether a value is that


def _number(
    low: int | float, high: int | float, kind: Any = int | float, article: str = "a"
) -> Check:
    def fits(value: Any) -> bool:
        return isinstance(value, kind) and not isinstance(value, bool) and low <= value <= high

    return f"{article} number from {low:.9g} to {high:.9g}", fits


def _whole(low: int, high: int) -> Check:
    return _number(low, high, int, "a whole")


def _sides(low: int, high: int) -> Check:
    """One number of pixels, or two."""
    expected, is_one = _whole(low, high)

    def fits(value: Any) -> bool:
        sides = value if isinstance(value, list | tuple) else (value, value)
        return len(sides) == 2 and all(map(is_one, sides))

    return f"{expected}, or two", fits


def _word(*words: str) -> Check:
    return f"one of {', '.join(map(repr, words))}", lambda v: isinstance(v, str) and v in words


def _or_nothing(check: Check) -> Check:
    return f"{check[0]} or nothing", lambda value: value is None or check[1](value)


_SHARES = (
    *("attn_drop_rate", "drop_path_rate", "drop_rate"),
    *("patch_drop_rate", "pos_drop_rate", "proj_drop_rate"),
)
_SWITCHES = (
    *("class_token", "dynamic_img_pad", "dynamic_img_size", "final_norm", "fix_init"),
    *("no_embed_class", "pool_include_prefix", "pre_logits", "pre_norm", "projection_head"),
    *("proj_bias", "qk_norm", "qkv_bias", "residual", "scale_attn_norm"),
    *("scale_mlp_norm", "soft_threshold", "tied"),
)
_SWITCH: Check = ("true or false", lambda value: isinstance(value, bool))
_CHECKS: dict[str, Check] = {
    **dict.fromkeys(_SHARES, _number(0, 1)),
    **dict.fromkeys(_SWITCHES, _SWITCH),
    "context": _whole(1, 1_000_000),
    "depth": _whole(1, 256),
    "embed_dim": _whole(1, 16384),
    "in_chans": _whole(1, 64),
    "num_classes": _whole(0, 1_000_000),
    "num_heads": _whole(1, 256),
    "num_kv_heads": _whole(1, 256),
    "reg_tokens": _whole(0, 256),
    "img_size": _or_nothing(_sides(1, 16384)),
    "patch_size": _sides(1, 1024),
    "init_values": _or_nothing(_number(0, 1e3)),
    "mlp_ratio": _number(1e-3, 64),
    "step_size": _number(0, 1e3),
    "vocabulary": _whole(1, 1_000_000),
    "threshold": _number(0, 1e3),
    "attention": _word("mssa", "mhsa"),
    "step": _word("ista", "mlp"),
    "fc_norm": _or_nothing(_SWITCH),
    "global_pool": _word("", "avg", "avgmax", "map", "max", "token"),
    "pos_embed": _word("", "learn", "none"),
    "weight_init": _word("", "jax", "jax_nlhb", "moco", "reset", "skip"),
}
_NO_SIZE: Check = (
    "a size, for instance embed_dim, depth, num_heads, patch_size or img_size",
    lambda _: False,
)


def check_arguments(arguments: Mapping[str, Any], what: str, *, plain: bool = False) -> None:
    """Check the arguments of a model before it is made.

    Args:
        arguments: Arguments by name.
        what: Name of the model or file that they are for, for messages.
        plain: Take sizes only; otherwise classes, functions and number types, too.

    Raises:
        InputError: A name is no size, or its value of another type or out of range.
    """
    for name, value in arguments.items():
        if not plain and (callable(value) or isinstance(value, torch.dtype | torch.device)):
            continue
        expected, fits = _CHECKS.get(name, _NO_SIZE)
        if not fits(value):
            raise InputError(
                f"{what} cannot be made with {shorten(name)} {shorten(value)}: expected {expected}"
            )
