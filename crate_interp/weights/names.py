"""Names of models: the papers' short names, and what timm calls them."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass

import timm
from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg, model_entrypoint

from crate_interp.errors import InputError
from crate_interp.models.families import ALIASES
from crate_interp.models.text import TEXT_MODELS

__all__ = [
    "ALIASES",
    "ModelName",
    "architectures_to_check",
    "list_names",
    "nearest_names",
    "our_architectures",
    "resolve_name",
]

VIT_MODULES = (  # where timm keeps its backbones of our kind
    *("vision_transformer", "deit", "eva", "beit", "vision_transformer_relpos"),
    *("vision_transformer_hybrid", "vision_transformer_sam", "vitamin", "naflexvit"),
    *("deepseek_vit", "gemma4_vit", "qwen3_vit"),
)
_ALIKE_MODULES = (  # and transformers that are not
    *("cait", "convit", "crossvit", "tnt", "volo", "xcit", "hiera"),
)


@dataclass(frozen=True)
class ModelName:
    """An architecture registered in timm, and which of its weights.

    Attributes:
        architecture: timm's name, for instance `crate_alpha_large_patch8_224`.
        tag: Name of the weights, for instance `in1k`; `None` if none are published.
    """

    architecture: str
    tag: str | None

    def __str__(self) -> str:
        return f"{self.architecture}.{self.tag}" if self.tag else self.architecture


def resolve_name(name: str) -> ModelName:
    """Find the architecture and the weights that a name means.

    Args:
        name: An alias (`crate_alpha_L8`) or a timm architecture, either with an optional tag of
            weights (`crate_alpha_L8.in21k`); upper and lower case are alike. Without a tag an
            alias means the weights of its table row, an architecture its first ones, as in timm.

    Returns:
        The architecture and tag, both registered in timm.

    Raises:
        InputError: No such model, or no such weights of it; the message offers the nearest.
    """
    base, _, tag = name.strip().lower().partition(".")
    alias_target = {alias.lower(): target for alias, target in ALIASES.items()}.get(base)
    architecture, _, alias_tag = (alias_target or base).partition(".")
    # not timm.is_model: it knows deprecated names too, which have no weights of their own
    if architecture in TEXT_MODELS:
        raise InputError(
            f"{architecture} is a text model: expected a model of images; evaluate-text and train, "
            "and load_text_model in Python, take it"
        )
    if architecture not in timm.list_models(architecture):
        offers = ", ".join(nearest_names(name)) or "none; `crate-interp models` lists them"
        raise InputError(f"unknown model {name!r}; nearest names: {offers}")
    if alias_target and not tag:
        return ModelName(architecture, alias_tag or None)
    if not tag:
        default = get_pretrained_cfg(architecture)
        return ModelName(architecture, (default and default.tag) or None)
    known = [str(full).partition(".")[2] for full in get_arch_pretrained_cfgs(architecture)]
    if tag not in known:
        raise InputError(
            f"{architecture} has no weights {tag!r}; it has: {', '.join(filter(None, known))}"
            if any(known)
            else f"{architecture} has no weights {tag!r}: none are published"
        )
    return ModelName(architecture, tag)


def nearest_names(name: str, count: int = 5) -> list[str]:
    """Give at most `count` known aliases and architectures most like a name, the nearest first.

    Upper and lower case are alike, a tag is ignored.
    """
    base = name.strip().lower().partition(".")[0]
    known = (*ALIASES, *our_architectures(), *timm.list_models(module=VIT_MODULES))
    spelling = {each.lower(): each for each in known}
    return [spelling[match] for match in difflib.get_close_matches(base, spelling, count, 0.4)]


def our_architectures() -> list[str]:
    """List the architectures that this package registers in timm, in natural order."""
    return [
        name
        for name in timm.list_models()
        if str(model_entrypoint(name).__module__).partition(".")[0] == "crate_interp"
    ]


def architectures_to_check(pattern: str | None = None) -> list[str]:
    """List architectures, whether they are backbones or not, in natural order.

    Args:
        pattern: Alias or architecture of timm, with * and ? for any letters; without one, the
            models of this package and all vision transformers of timm.

    Raises:
        InputError: No model matches; the message offers the nearest.
    """
    every = timm.list_models()
    if pattern is None:
        modules = [*VIT_MODULES, *_ALIKE_MODULES]
        chosen = {*our_architectures(), *timm.list_models(module=modules)}
    else:
        chosen = set(fnmatch.filter(every, pattern.strip().lower().partition(".")[0]))
        chosen |= {name.architecture for name in _aliased(pattern.strip().lower())}
    if not chosen:
        raise _no_match(str(pattern))
    return [name for name in every if name in chosen]


def list_names(pattern: str | None = None) -> list[ModelName]:
    """List models with each of their weights, those of this package first.

    Args:
        pattern: Alias, architecture or architecture.tag, with * and ? for any letters; without
            one, the models of this package and those that have an alias.

    Raises:
        InputError: No model matches; the message offers the nearest.
    """
    if pattern is None:
        names = _with_weights(our_architectures()) | set(map(resolve_name, ALIASES))
    else:
        names = _matching(pattern.strip().lower())
    if not names:
        raise _no_match(str(pattern))
    return sorted(names, key=lambda name: (not name.architecture.startswith("crate"), str(name)))


def _no_match(pattern: str) -> InputError:
    nearest = ", ".join(nearest_names(pattern.replace("*", ""))) or "none"
    return InputError(f"no model matches {pattern!r} (* and ? stand for any); nearest: {nearest}")


def _matching(pattern: str) -> set[ModelName]:
    listed = _with_weights([*our_architectures(), *timm.list_models(module=VIT_MODULES)])
    return _aliased(pattern) | {
        name
        for name in listed
        if fnmatch.fnmatchcase(str(name), pattern)
        or fnmatch.fnmatchcase(name.architecture, pattern)
    }


def _aliased(pattern: str) -> set[ModelName]:
    return {resolve_name(alias) for alias in ALIASES if fnmatch.fnmatchcase(alias.lower(), pattern)}


def _with_weights(architectures: Iterable[str]) -> set[ModelName]:
    return {
        ModelName(architecture, full_name.partition(".")[2] or None)
        for architecture in architectures
        for full_name in get_arch_pretrained_cfgs(architecture) or [architecture]
    }
