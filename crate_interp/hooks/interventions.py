"""Changes what a backbone computes on the way, inside a context manager that leaves nothing behind.

Shapes: B images, N tokens (prefix tokens first), C channels of a site, c channels of a target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from crate_interp.errors import InputError
from crate_interp.hooks.edits import Edit
from crate_interp.hooks.own_passes import hooked, uncompiled
from crate_interp.hooks.sites import Site, anatomy_at, blocks_of
from crate_interp.models.anatomy import Part, Place
from crate_interp.structures import Activations

__all__ = ["Target", "channels_of", "count_units", "intervene"]


@dataclass(frozen=True, eq=False)
class Target:
    """Place in a model that an edit changes.

    Attributes:
        site: `heads`, `subspace`, `codes`, `neurons`, `tokens` or `tokens_in`; see `Site`.
        block: Number of the block, from 0; negative numbers count from the last block.
        index: Number of a head (`heads`, `subspace`), an atom (`codes`), a neuron, or a channel of
            the residual stream; or several of them. `None`: all.
        tokens: Numbers of tokens, prefix tokens first, negative ones from the last; or a bool mask,
            (N,) or for each image its own, (B, N). `None`: all.
    """

    site: Site | str
    block: int = -1
    index: int | Sequence[int] | None = None
    tokens: int | Sequence[int] | Tensor | np.ndarray | None = None


@contextmanager
def intervene(model: nn.Module, edits: Mapping[Target, Edit]) -> Iterator[None]:
    """Change activations of a vision transformer in the forward passes inside a `with` block.

        dog = Observer(model).activations([dog_rgb], ["heads"], [-1])
        edits = {
            Target("heads", block=-1, index=3): PatchIn(dog),
            Target("codes", block=2, index=[17, 40], tokens=mask): ScaleEdit(0.5),
        }
        with intervene(model, edits):
            scores = model(pixels)

    Edits of one place are made in the order of the mapping, those of an inner `intervene` after
    those of an outer one; `record` inside sees what the model goes on with. Fused attention stays
    on, and gradients flow. Passes that other threads run on the same model are as they were. When
    the block is left, also by an exception, no hook stays on the model.

    Args:
        model: A CRATE family model or a timm vision transformer.
        edits: Edits to make, by target.

    Raises:
        InputError: A site, block, head, atom or token that the model does not have; a source that
            lacks the target or does not fit; a value that does not broadcast.
    """
    with ExitStack() as hooks:
        hooks.enter_context(uncompiled())
        for target, edit in edits.items():
            place = _place_of(model, target.site, target.block)
            for part in place.parts:
                change = _change_of(model, target, edit, part)
                module = blocks_of(model)[target.block].get_submodule(part.path)
                hook = _on_input(change) if place.enters else _on_output(change)
                hooks.enter_context(hooked(module, hook, before=place.enters))
        yield


def count_units(model: nn.Module, site: Site | str, block: int = -1) -> int:
    """Count the heads, atoms, neurons or channels at a site, for `Target.index`.

    Raises:
        InputError: No such block, or a site that it does not have or that cannot be changed.
    """
    units = _place_of(model, site, block).units
    backbone: Any = model
    return int(backbone.embed_dim) if units is None else units


def channels_of(
    model: nn.Module, site: Site | str, block: int = -1, index: int | Sequence[int] | None = None
) -> Tensor:
    """The channels of a site's tensor that belong to heads, atoms, neurons; `None`: to all.

    Raises:
        InputError: As `count_units`, or a number that is out of range.
    """
    count = count_units(model, site, block)
    units = torch.arange(count) if index is None else torch.as_tensor(index).flatten()
    if not _are_within(units, 0, count):
        raise InputError(
            f"{Site(site).value} {index} at block {block}: expected numbers from 0 to {count - 1}"
        )
    width = _place_of(model, site, block).width
    return (width * units[:, None] + torch.arange(width)).flatten()


def _place_of(model: nn.Module, site: Site | str, block: int) -> Place:
    anatomy = anatomy_at(model, block)
    changeable = [known for known in anatomy.sites if known in anatomy.places]
    if site not in changeable:
        raise InputError(
            f"{type(model).__name__} has no site {getattr(site, 'value', site)!r} at block {block} "
            f"that can be changed; it has {', '.join(known.value for known in changeable)}"
        )
    return anatomy.places[Site(site)]


def _change_of(
    model: nn.Module, target: Target, edit: Edit, part: Part
) -> Callable[[Tensor], Tensor]:
    """Make the change of one of the tensors that a site consists of."""
    channels = channels_of(model, target.site, target.block, target.index)
    inside = channels - part.first
    is_here = inside >= 0 if part.channels is None else (inside >= 0) & (inside < part.channels)
    channels, inside = channels[is_here], inside[is_here] + part.start
    blocks = len(blocks_of(model))

    def read(source: Activations) -> Tensor:
        if source.num_blocks != blocks:
            raise InputError(f"a source of {source.num_blocks} blocks, a model of {blocks}")
        try:
            values = source[Site(target.site), target.block]
        except KeyError as error:
            raise InputError(f"the source lacks the target: {error.args[0]}") from None
        if len(channels) and int(channels.max()) >= values.shape[-1]:
            raise InputError(f"a source of shape {tuple(values.shape)} lacks channels of {target}")
        return values[..., channels]

    new_values = edit.bind(read)

    def change(values: Float[Tensor, "B *N C"]) -> Float[Tensor, "B *N C"]:
        if not len(inside):
            return values
        if values.ndim == 4:  # SAM's tokens have a grid
            return change(values.flatten(1, 2)).reshape(values.shape)
        whole = target.index is None and len(inside) == values.shape[-1]
        old = values if whole else values[..., inside]
        new = new_values(old)
        if target.tokens is not None:
            new = torch.where(_token_mask(target.tokens, old)[..., None], new, old)
        if whole:
            return new.contiguous()
        edited = values.clone()
        edited[..., inside] = new
        return edited

    return change


def _token_mask(tokens: Any, old: Float[Tensor, "B N c"]) -> Bool[Tensor, "*B N"]:
    """True at the chosen tokens."""
    images, count = old.shape[:2]
    chosen = torch.as_tensor(tokens, device=old.device)
    if chosen.dtype == torch.bool:
        if chosen.shape not in ((count,), (images, count)):
            raise InputError(
                f"tokens: expected a mask of shape ({count},) or ({images}, {count}), found "
                f"{tuple(chosen.shape)}"
            )
        return chosen
    if not _are_within(chosen, -count, count):
        raise InputError(f"tokens {tokens}: expected a mask, or numbers from 0 to {count - 1}")
    mask = torch.zeros(count, dtype=torch.bool, device=old.device)
    mask[chosen.flatten()] = True
    return mask


def _are_within(numbers: Tensor, low: int, high: int) -> bool:
    if numbers.dtype == torch.bool or numbers.is_floating_point() or not numbers.numel():
        return False
    return low <= int(numbers.min()) and int(numbers.max()) < high


def _on_input(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    return lambda _, args, kwargs: ((change(args[0]), *args[1:]), kwargs)


def _on_output(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    return lambda _, __, ___, output: change(output)
