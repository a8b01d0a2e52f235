"""What was recorded of a forward pass.

Shapes: B images, N tokens, K heads, D embed dim, d head dim, h w patch grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxtyping import Float

from crate_interp.errors import InputError, shorten

if TYPE_CHECKING:  # torch takes seconds, and --help needs none of it
    from torch import Tensor

__all__ = ["Activations", "AttentionTerms"]

_SHAPES_SHOWN = 4


class AttentionTerms(NamedTuple):
    """What a block's attention has beside softmax(q kT / sqrt(d)).

    Attributes:
        bias: Added to the scores before the softmax: relative positions, for instance.
        subtracted: Factor of a second map that is subtracted from the first one (differential
            attention); the first half of each head's query and key makes the first, the second
            half the second. `None` for one map.
        is_causal: Whether a token attends to itself and those before it alone.
        along_axes: Added to the scores of each token before the softmax: one number for each row of
            patches, and one for each column (relative positions that depend on the query).
    """

    bias: Float[Tensor, "1 K N N"] | None = None
    subtracted: Float[Tensor, ""] | None = None
    is_causal: bool = False
    along_axes: tuple[Float[Tensor, "B K N h"], Float[Tensor, "B K N w"]] | None = None

    def of_image(self, number: int) -> AttentionTerms:
        """The terms of one image of the batch."""
        if self.along_axes is None:
            return self
        down, across = (side[number : number + 1] for side in self.along_axes)
        return self._replace(along_axes=(down, across))


@dataclass(frozen=True, eq=False)
class Activations(Mapping[tuple[str, int], "Tensor"]):
    """Detached tensors of one forward pass by (site, block); holds no model.

    A negative block counts from the last one, so `activations["key", -1]` and
    `activations["key", 11]` are the same tensor of a model of 12 blocks.

    Attributes:
        tensors: Recorded tensors, by site name and non-negative block number.
        num_blocks: Number of blocks of the model.
        num_prefix_tokens: Number of class and register tokens before the patch tokens.
        grid_hw: Patch grid of the recorded forward pass, rows and columns.
        num_heads: Number of attention heads per block; `None` for blocks that do not attend.
        arguments: Per block, the keyword arguments that it was run with beside the tokens, where
            it needs any: rotary position for instance. Recorded with `tokens` or `tokens_in`.
        attention_terms: Per block, the terms of its attention beside queries and keys, where it has
            any. Recorded with `query`.
        has_class_token: Whether the first prefix token is a class token, not a register.
    """

    tensors: Mapping[tuple[str, int], Tensor] = field(repr=False)
    num_blocks: int
    num_prefix_tokens: int
    grid_hw: tuple[int, int]
    num_heads: int | None = None
    arguments: Mapping[int, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    attention_terms: Mapping[int, AttentionTerms] = field(default_factory=dict, repr=False)
    has_class_token: bool = True

    def __getitem__(self, key: tuple[str, int]) -> Tensor:
        if not (isinstance(key, tuple) and len(key) == 2 and isinstance(key[1], int)):
            raise KeyError(f"expected a site and the number of a block, found {shorten(key)}")
        site, block = key
        place = (str(getattr(site, "value", site)).lower(), block % self.num_blocks)
        if place not in self.tensors or not -self.num_blocks <= block < self.num_blocks:
            recorded = ", ".join(f"({name!r}, {number})" for name, number in self.tensors)
            raise KeyError(f"({place[0]!r}, {block}) was not recorded; recorded: {recorded}")
        return self.tensors[place]

    def __repr__(self) -> str:
        """One line of sizes."""
        shapes = [f"{key}: {tuple(tensor.shape)}" for key, tensor in self.tensors.items()]
        shown = ", ".join(shapes[:_SHAPES_SHOWN])
        more = len(shapes) - _SHAPES_SHOWN
        return (
            f"Activations({{{shown}{f', and {more} more' if more > 0 else ''}}}, "
            f"num_blocks={self.num_blocks}, num_prefix_tokens={self.num_prefix_tokens}, "
            f"grid_hw={self.grid_hw})"
        )

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def of_image(self, number: int) -> Activations:
        """The activations of one image of the batch, as a batch of one."""
        one = {key: tensor[number : number + 1] for key, tensor in self.tensors.items()}
        terms = {block: own.of_image(number) for block, own in self.attention_terms.items()}
        return replace(self, tensors=one, attention_terms=terms)

    def patch_features(self, site: str, block: int = -1) -> Float[Tensor, "B D n"]:
        """Features of the patch tokens of a token-shaped site: prefix tokens dropped, (B, D, h*w).

        Raises:
            InputError: The site's tensor is not of shape (B, N, D).
        """
        tokens = self[site, block]
        expected = self.grid_hw[0] * self.grid_hw[1] + self.num_prefix_tokens
        if tokens.ndim != 3 or tokens.shape[1] != expected:
            raise InputError(
                f"site {site!r} has shape {tuple(tokens.shape)}, expected (B, {expected}, D): "
                "it holds no feature a token"
            )
        features: Tensor = tokens[:, self.num_prefix_tokens :].transpose(1, 2)
        return features
