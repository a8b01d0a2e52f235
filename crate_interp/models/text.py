"""Causal language models: CRATE, its overcomplete variant, CRATE-alpha, and a GPT of their sizes.

Shapes: B texts, T tokens of a text, V tokens of the vocabulary, D embed dim.

Reference: Improving Neuron-level Interpretability with White-box Language Models, arXiv 2410.16443.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from timm.layers import LayerNorm
from timm.models import checkpoint_seq
from torch import Tensor, nn

from crate_interp.errors import InputError, shorten
from crate_interp.models.anatomy import Anatomy, Atoms, Place, Site
from crate_interp.models.crate import BASE, CrateBlock, MlpBlock
from crate_interp.models.crate_alpha import ODL, CrateAlphaBlock
from crate_interp.models.subspace import SubspaceBlock, choose, place_of

__all__ = ["TEXT_MODELS", "OvercompleteBlock", "TextTransformer"]


class OvercompleteBlock(SubspaceBlock):
    """z_half = z + MSSA(LN(z)); z_next = D a2 of ODL(LN(z_half)) with one dictionary, no residual.

    Args:
        dim: Width D of the tokens.
        num_heads: Number of subspaces.
        mlp_ratio: Dictionary atoms over D.
        step_size: eta of ODL.
        threshold: lambda of ODL.
        **arguments: Arguments of `SubspaceBlock`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        step_size: float = 0.1,
        threshold: float = 0.1,
        **arguments: Any,
    ) -> None:
        super().__init__(dim, num_heads, has_bias=True, **arguments)
        steps: Any = {"step_size": step_size, "threshold": threshold}
        atoms = int(dim * mlp_ratio)
        self.mlp = ODL(dim, atoms, tied=True, **steps, **place_of(arguments))

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Map the tokens entering the block to those leaving it."""
        out: Tensor = self.mlp(self.norm2(self.attend(x)))
        return out

    def anatomy(self) -> Anatomy:
        """Say what can be read and changed: what the codes write is the stream that leaves."""
        dictionary = self.mlp.written
        place, count = Place("mlp.codes"), dictionary.shape[1]
        atoms = Atoms(Site.CODES, count, place, dictionary.detach, self.mlp.threshold)
        return self.anatomy_with(atoms)


class _Kind(NamedTuple):
    """A kind of blocks.

    Attributes:
        block: Makes a block.
        has_norm: Whether a norm stands before the head.
        options: Names of its own arguments.
    """

    block: Callable[..., nn.Module]
    has_norm: bool
    options: frozenset[str]


_STEPS = frozenset({"step_size", "threshold"})
_KINDS = {
    "crate": _Kind(CrateBlock, False, _STEPS),
    "overcomplete": _Kind(OvercompleteBlock, True, _STEPS | {"mlp_ratio"}),
    "alpha": _Kind(CrateAlphaBlock, True, _STEPS | {"mlp_ratio"}),
    "gpt": _Kind(partial(MlpBlock, attention="mhsa"), True, frozenset({"mlp_ratio"})),
}


class TextTransformer(nn.Module):
    """A causal transformer that says which token comes next; its head is the token embedding.

    Args:
        block: Kind of the blocks: `crate`; `overcomplete`, whose one dictionary has `mlp_ratio` D
            atoms; `alpha`, with two dictionaries and a residual; `gpt`, with a MLP.
        vocabulary: Number V of different tokens.
        context: Most tokens of a text.
        embed_dim: Width D of the tokens.
        depth: Number of blocks.
        num_heads: Number of attention heads; divides D.
        **arguments: Arguments of the block: `mlp_ratio`, `step_size`, `threshold`.

    Attributes:
        token_embedding: Embedding of the tokens, (V, D), which is the head, too.
        pos_embed: Embedding of the positions, (context, D).

    Raises:
        InputError: There is no such kind of block, the heads do not divide the width, or a block
            has no such argument.
    """

    def __init__(
        self,
        block: str,
        *,
        vocabulary: int = 50257,
        context: int = 1024,
        embed_dim: int,
        depth: int,
        num_heads: int,
        **arguments: Any,
    ) -> None:
        super().__init__()
        kind: _Kind = choose("block", block, _KINDS)
        for name in arguments.keys() - kind.options:
            raise InputError(
                f"{name}: expected {' or '.join(sorted(kind.options))} of the blocks {block}, "
                f"found {shorten(arguments[name])}"
            )
        norm_layer = partial(LayerNorm, eps=1e-5)
        options: Any = {"norm_layer": norm_layer, "is_causal": True, **arguments}
        self.embed_dim = embed_dim
        self.token_embedding = nn.Embedding(vocabulary, embed_dim)
        self.pos_embed = nn.Parameter(torch.empty(context, embed_dim))
        self.blocks = nn.Sequential(
            *(kind.block(embed_dim, num_heads, **options) for _ in range(depth))
        )
        self.norm = norm_layer(embed_dim) if kind.has_norm else nn.Identity()
        self.grad_checkpointing = False
        self._reset_parameters()

    @property
    def vocabulary(self) -> int:
        """Number of different tokens."""
        return self.token_embedding.num_embeddings

    @property
    def context(self) -> int:
        """Most tokens of a text."""
        return len(self.pos_embed)

    @property
    def sizes(self) -> dict[str, int]:
        """Sizes of the model, by the names of its arguments."""
        attention: Any = self.blocks[0].get_submodule("attn")
        return {
            "vocabulary": self.vocabulary,
            "context": self.context,
            "embed_dim": self.embed_dim,
            "depth": len(self.blocks),
            "num_heads": attention.num_heads,
        }

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute activations twice in training, and keep fewer of them."""
        self.grad_checkpointing = enable

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Give the logits of the token after each token of each text.

        Raises:
            InputError: The texts are empty or too long, or a number is no token's.
        """
        self._check(tokens)
        x = self.token_embedding(tokens) + self.pos_embed[: tokens.shape[1]]
        if self.grad_checkpointing and self.training:
            x = checkpoint_seq(self.blocks, x)
        else:
            x = self.blocks(x)
        return F.linear(self.norm(x), self.token_embedding.weight)

    def _check(self, tokens: Tensor) -> None:
        if tokens.ndim != 2 or not 0 < tokens.shape[1] <= self.context:
            raise InputError(
                f"tokens: expected texts of 1 to {self.context} tokens, found shape "
                f"{tuple(tokens.shape)}"
            )
        if self.training or not len(tokens):  # to look would have a GPU wait at every update
            return
        least, most = (int(end) for end in tokens.aminmax())
        if least < 0 or most >= self.vocabulary:
            raise InputError(
                f"tokens: expected numbers from 0 to {self.vocabulary - 1}, the model's "
                f"vocabulary, found {least} to {most}"
            )

    def _reset_parameters(self) -> None:
        """Draw linear layers and embeddings as GPT-2 does; dictionaries draw themselves."""
        nn.init.normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


# `mini`: the four have about as many parameters as one another, and as many blocks and heads.
_MINI: dict[str, Any] = {"vocabulary": 65, "context": 128, "depth": 4, "num_heads": 4}
TEXT_MODELS: dict[str, dict[str, Any]] = {
    "crate_text_base": {"block": "crate", **BASE},
    "crate_overcomplete_text_base": {"block": "overcomplete", **BASE},
    "crate_alpha_text_base": {"block": "alpha", **BASE},
    "gpt_text_base": {"block": "gpt", **BASE},
    "crate_text_mini": {"block": "crate", **_MINI, "embed_dim": 256},
    "crate_overcomplete_text_mini": {"block": "overcomplete", **_MINI, "embed_dim": 180},
    "crate_alpha_text_mini": {"block": "alpha", **_MINI, "embed_dim": 140},
    "gpt_text_mini": {"block": "gpt", **_MINI, "embed_dim": 128},
}
