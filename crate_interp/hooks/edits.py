"""Edits: the changes of activations that an intervention can make.

Shapes: B images, N tokens (prefix tokens first), c channels that are changed, S images of a source.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from crate_interp.errors import InputError
from crate_interp.structures import Activations

__all__ = ["Edit", "MeanEdit", "PatchIn", "ScaleEdit", "SetEdit", "ZeroEdit"]

Change = Callable[[Tensor], Tensor]
"""From the values (B, N, c) of a forward pass to those that take their place."""


class Edit(ABC):
    """A change of activations: `ZeroEdit`, `SetEdit`, `ScaleEdit`, `MeanEdit` or `PatchIn`."""

    @abstractmethod
    def bind(self, read: Callable[[Activations], Tensor]) -> Change:
        """Make the change of one place.

        Args:
            read: Finds that place in recorded activations, (S, N, c).

        Raises:
            InputError: A source does not have the place.
        """


@dataclass(frozen=True, eq=False)
class ZeroEdit(Edit):
    """Silence the target."""

    def bind(self, read: Callable[[Activations], Tensor]) -> Change:  # noqa: ARG002
        """As `Edit.bind`."""
        return torch.zeros_like


@dataclass(frozen=True, eq=False)
class SetEdit(Edit):
    """Give the target a value: a number, or a tensor that broadcasts to (B, N, c)."""

    value: float | Tensor

    def bind(self, read: Callable[[Activations], Tensor]) -> Change:  # noqa: ARG002
        """As `Edit.bind`."""
        return partial(_broadcast, self.value)


@dataclass(frozen=True, eq=False)
class ScaleEdit(Edit):
    """Multiply the target by a number, or by a tensor that broadcasts to (B, N, c)."""

    by: float | Tensor

    def bind(self, read: Callable[[Activations], Tensor]) -> Change:  # noqa: ARG002
        """As `Edit.bind`."""
        return lambda old: old * _broadcast(self.by, old)


@dataclass(frozen=True, eq=False)
class MeanEdit(Edit):
    """Give the target its mean over the images of a source.

    A prefix token gets its own mean, every patch token that of all patches: nothing of where
    things lie in the source is left, and its grid may be another one.
    """

    source: Activations

    def bind(self, read: Callable[[Activations], Tensor]) -> Change:
        """As `Edit.bind`."""
        values, prefix = read(self.source), self.source.num_prefix_tokens
        prefix_mean = values[:, :prefix].mean(dim=0)
        patch_mean = values[:, prefix:].mean(dim=(0, 1), keepdim=True)[0]

        def mean(old: Float[Tensor, "B N c"]) -> Tensor:
            patches = patch_mean.expand(old.shape[1] - prefix, -1)
            return torch.cat([prefix_mean, patches]).to(old).expand_as(old)

        return mean


@dataclass(frozen=True, eq=False)
class PatchIn(Edit):
    """Give the target what it was in another forward pass, token by token.

    The source holds one image, or as many as the model is run with, on the same grid.
    """

    source: Activations

    def bind(self, read: Callable[[Activations], Tensor]) -> Change:
        """As `Edit.bind`."""
        return partial(_patched, read(self.source))


def _broadcast(value: float | Tensor, old: Float[Tensor, "B N c"]) -> Tensor:
    tensor = torch.as_tensor(value, dtype=old.dtype, device=old.device)
    try:
        return tensor.expand_as(old)
    except RuntimeError:
        raise InputError(
            f"expected a number or a tensor that broadcasts to {tuple(old.shape)}, found shape "
            f"{tuple(tensor.shape)}"
        ) from None


def _patched(source: Float[Tensor, "S N c"], old: Float[Tensor, "B N c"]) -> Tensor:
    if source.shape[1:] != old.shape[1:] or source.shape[0] not in (1, old.shape[0]):
        raise InputError(
            f"a source of shape {tuple(source.shape)} does not fit a target of shape "
            f"{tuple(old.shape)}: expected as many tokens, and one image or as many"
        )
    return source.to(old).expand_as(old)
