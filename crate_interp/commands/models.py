"""The command `models`: which backbones there are, how large, and where their weights are."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

import timm
from timm.models import get_arch_pretrained_cfgs

from crate_interp.config import ModelsConfig
from crate_interp.errors import InputError
from crate_interp.weights import ModelName, create_on_meta, resolve_name
from crate_interp.weights.names import ALIASES, VIT_MODULES, nearest_names, our_architectures
from crate_interp.weights.sources import find_local_weights, weight_source

__all__ = ["run"]

_HEADINGS = ("MODEL", "ALIAS", "PARAMETERS", "PATCH", "INPUT", "CLASSES", "HERE", "WEIGHTS FROM")


def run(config: ModelsConfig) -> int:
    """Print the models whose name or alias matches a pattern; without one, ours and the aliased.

    Returns:
        0.

    Raises:
        InputError: No model matches.
    """
    names = _ours_and_aliased() if config.pattern is None else _matching(config.pattern)
    ordered = sorted(names, key=lambda name: (not name.architecture.startswith("crate"), str(name)))
    aliases = {resolve_name(alias): alias for alias in ALIASES}
    rows = [_HEADINGS, *(_row_of(name, aliases.get(name, "")) for name in ordered)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())
    return 0


def _ours_and_aliased() -> set[ModelName]:
    return _all_weights_of(our_architectures()) | {resolve_name(alias) for alias in ALIASES}


def _matching(pattern: str) -> set[ModelName]:
    """What a pattern with * and ? names: an alias, an architecture, or an architecture.tag."""
    wanted = pattern.strip().lower()
    everything = _all_weights_of([*our_architectures(), *timm.list_models(module=VIT_MODULES)])
    found = {
        name
        for name in everything
        if fnmatchcase(str(name), wanted) or fnmatchcase(name.architecture, wanted)
    }
    found |= {resolve_name(alias) for alias in ALIASES if fnmatchcase(alias.lower(), wanted)}
    if not found:
        nearest = ", ".join(nearest_names(wanted.replace("*", ""))) or "none"
        raise InputError(
            f"no model matches {pattern!r} (* and ? stand for any); nearest: {nearest}"
        )
    return found


def _all_weights_of(architectures: Iterable[str]) -> set[ModelName]:
    return {
        ModelName(architecture, full_name.partition(".")[2] or None)
        for architecture in architectures
        for full_name in get_arch_pretrained_cfgs(architecture) or [architecture]
    }


def _row_of(name: ModelName, alias: str) -> tuple[str, ...]:
    model = create_on_meta(name, weight_init="skip")  # drawing no numbers is 5 times as fast
    source = weight_source(name)
    size = f", {source.size_mb} MB" if source and source.size_mb else ""
    return (
        str(name),
        alias,
        f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.2f} M",
        "x".join(map(str, model.patch_embed.patch_size)),
        "x".join(map(str, model.patch_embed.img_size)),
        str(model.num_classes),
        ("yes" if find_local_weights(source) else "no") if source else "-",
        f"{source}{size}" if source else "-",
    )
