"""Layouts of weight files: what one is, the table of all, and the renaming by one of them."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from crate_interp.errors import CheckpointError, InputError, errors_of, shorten
from crate_interp.plugins import load_plugin, plugins

__all__ = [
    "LAYOUTS",
    "Layout",
    "Renamed",
    "Rule",
    "Way",
    "depth_of",
    "first_of",
    "register_layout",
    "rename",
    "rename_part",
    "unknown_layout",
]

logger = logging.getLogger(__name__)

Way = Literal["preserving", "linear"]  # how patches and positions are resampled: `resampling.py`
PLACEHOLDERS = {"i": r"\d+", "p": "weight|bias", "any": ".+"}
_MOST_CLASSES = 1_000_000


@dataclass(frozen=True)
class Rule:
    """A tensor of a layout, the parameter that it is, and how to turn one into the other.

    Attributes:
        key: Key in the file, with placeholders: `{i}` a number, `{p}` weight or bias, `{any}`
            anything.
        parameter: Name in the model with the same placeholders.
        operation: Makes the model's tensor from the file's; `None` leaves it as it is.
    """

    key: str
    parameter: str
    operation: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Layout:
    """A layout of weight files: how they are recognised, renamed and fitted.

    Attributes:
        name: Name in messages.
        marks: Keys by which a file of this layout is known, all of them (`{i}` as in rules).
        rules: A rule for every tensor of a backbone; the first that matches a key counts.
        aside: Patterns of keys that belong to other parts of a released model than the backbone.
        heads: Key of a tensor whose second dimension is the number of attention heads, if any.
        square_grids: Position embeddings are those of square grids only.
        head_is_projection: The head maps to a text tower's space, not to classes.
        bias_free_norms: Norms may lack their bias, which is then zero.
        unset: Keys of tensors that may be NaN or infinite, with a warning.
        fit: Gives the renamed tensors the sizes of a model: arguments are the tensors, the model
            and the way to resample; `None` for patches and positions resampled as usual.
    """

    name: str
    marks: tuple[str, ...]
    rules: tuple[Rule, ...]
    aside: tuple[str, ...] = ()
    heads: str = ""
    square_grids: bool = True
    head_is_projection: bool = False
    bias_free_norms: bool = False
    unset: tuple[str, ...] = ()
    fit: Callable[[dict[str, Tensor], Any, Way], dict[str, Tensor]] | None = None

    def is_of(self, keys: Iterable[str]) -> bool:
        """Whether a file with these keys has all marks."""
        return all(any(_pattern(mark).fullmatch(key) for key in keys) for mark in self.marks)


LAYOUTS: dict[str, Layout] = {}


def register_layout(layout: Layout) -> Layout:
    """Add a layout to the table in which `load_backbone` looks; one of the same name is replaced.

    Other packages name a `Layout` as an entry point of the group `crate_interp.layouts`.

    A file is of the layout with the most marks of those that it has all marks of; among layouts of
    as many marks, of the one with the most rules.

    Raises:
        InputError: It is no layout, or one without marks or rules.
    """
    if not isinstance(layout, Layout) or not layout.marks or not layout.rules:
        raise InputError(f"expected a Layout with marks and rules, found {shorten(layout)}")
    LAYOUTS[layout.name] = layout
    return layout


@dataclass(frozen=True, eq=False)
class Renamed:
    """The tensors of a file under the names of a model's parameters.

    Attributes:
        layout: Layout of the file.
        tensors: Tensors by the parameter's name.
        keys: Keys in the file, by the parameter's name.
        unknown: Keys of the file that its layout does not have.
        num_heads: Number of attention heads, where the layout tells it.
    """

    layout: Layout
    tensors: dict[str, Tensor]
    keys: dict[str, str]
    unknown: list[str]
    num_heads: int | None = None

    def key_of(self, parameter: str) -> str:
        """Name a parameter as the file does, or would if it had it."""
        if parameter in self.keys:
            return self.keys[parameter]
        for rule in self.layout.rules:
            match = _pattern(rule.parameter).fullmatch(parameter)
            if match:
                return rule.key.format(**match.groupdict())
        return parameter

    @property
    def outputs(self) -> int:
        """Outputs of the head, 0 without one; what its weight is not a matrix of, is refused."""
        weight = self.tensors.get("head.weight")
        if weight is None:
            return 0
        if weight.ndim != 2 or len(weight) > _MOST_CLASSES:
            shape = shorten(tuple(weight.shape))
            raise CheckpointError(
                f"head.weight: expected (classes, embed_dim), found shape {shape}"
            )
        return len(weight)

    @property
    def classes(self) -> int | None:
        """Classes of the classifier; `None` if there is none."""
        if self.layout.head_is_projection or "head.weight" not in self.tensors:
            return None
        return self.outputs


def rename(state_dict: Mapping[str, Tensor]) -> Renamed:
    """Find the layout of a file's tensors, and name them as the model's parameters.

    Returns:
        The tensors that belong to a backbone; under their own names if the layout is unknown.

    Raises:
        CheckpointError: A tensor is not of the form that the layout has.
        InputError: What another package adds to the table is no layout.
    """
    for entry in plugins("layouts").values():
        register_layout(load_plugin(entry, Layout))
    layouts = [layout for layout in LAYOUTS.values() if layout.is_of(state_dict)]
    layout = max(layouts, key=lambda layout: (len(layout.marks), len(layout.rules)))
    aside = {key for key in state_dict if any(re.fullmatch(a, key) for a in layout.aside)}
    if aside:
        logger.info("%s: left aside, not the backbone's: %s", layout.name, ", ".join(sorted(aside)))
    rest = {key: tensor for key, tensor in state_dict.items() if key not in aside}
    renamed = rename_part(rest, layout)
    known = set(renamed.keys.values())
    unknown = [key for key in rest if key not in known]
    kernels = (rest[key] for key in rest if _pattern(layout.heads).fullmatch(key))
    num_heads = next((kernel.shape[1] for kernel in kernels if layout.heads), None)
    return replace(renamed, unknown=unknown, num_heads=num_heads)


def rename_part(state_dict: Mapping[str, Tensor], layout: Layout) -> Renamed:
    """Rename and convert the tensors that a layout has a rule for; all others are left out.

    Raises:
        CheckpointError: A tensor is not of the form that its rule expects.
    """
    tensors, keys = {}, {}
    for key, tensor in state_dict.items():
        for rule in layout.rules:
            match = _pattern(rule.key).fullmatch(key)
            if match:
                parameter = rule.parameter.format(**match.groupdict())
                with errors_of(key):
                    tensors[parameter] = rule.operation(tensor) if rule.operation else tensor
                keys[parameter] = key
                break
    if layout.bias_free_norms:
        for key in [key for key in tensors if re.search(r"norm\d?\.weight$", key)]:
            tensors.setdefault(key.removesuffix("weight") + "bias", torch.zeros_like(tensors[key]))
    return Renamed(layout, tensors, keys, [])


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    pattern = re.escape(template)
    for name, values in PLACEHOLDERS.items():
        pattern = pattern.replace(re.escape(f"{{{name}}}"), f"(?P<{name}>{values})")
    return re.compile(pattern)


def depth_of(parameters: Iterable[str]) -> int:
    """Count the blocks that parameters belong to: the highest number, and one."""
    matches = (re.match(r"blocks\.(\d{1,3})\.", name) for name in parameters)
    return 1 + max((int(match[1]) for match in matches if match), default=-1)


def unknown_layout(state_dict: Iterable[str]) -> CheckpointError:
    """Say that a file is of no layout in the table."""
    known = ", ".join(layout.name for layout in LAYOUTS.values() if layout.marks)
    return CheckpointError(f"unknown layout, with keys {first_of(state_dict)}; known ones: {known}")


def first_of(texts: Iterable[str], count: int = 4) -> str:
    """List the first of many keys, and how many more there are."""
    texts = list(texts)
    more = f", and {len(texts) - count} more" if len(texts) > count else ""
    cut = (text if len(text) <= 120 else f"{text[:90]}...{text[-25:]}" for text in texts[:count])
    return ", ".join(cut) + more
