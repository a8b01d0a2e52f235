"""What several layouts share: the layers of the official PyTorch code, and transposed kernels."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from crate_interp.errors import CheckpointError
from crate_interp.weights.layout import Rule

__all__ = ["OFFICIAL", "layer_rules", "transposed"]


def layer_rules(prefix: str) -> tuple[Rule, ...]:
    """Give the rules of the layers of the official CRATE, CRATE-alpha and CRATE-MAE."""
    return (
        Rule(prefix + ".0.norm.{p}", "blocks.{i}.norm1.{p}"),
        Rule(prefix + ".0.fn.qkv.weight", "blocks.{i}.attn.qkv.weight"),
        Rule(prefix + ".0.fn.to_out.0.{p}", "blocks.{i}.attn.proj.{p}"),
        Rule(prefix + ".1.norm.{p}", "blocks.{i}.norm2.{p}"),
        Rule(prefix + ".1.fn.weight", "blocks.{i}.mlp.weight"),
        Rule(prefix + ".1.fn.D", "blocks.{i}.mlp.D"),
        Rule(prefix + ".1.fn.D1", "blocks.{i}.mlp.D1"),
    )


OFFICIAL = (
    Rule("cls_token", "cls_token"),
    Rule("pos_embedding", "pos_embed"),
    *layer_rules("transformer.layers.{i}"),
    Rule("mlp_head.0.{p}", "fc_norm.{p}"),
    Rule("mlp_head.1.{p}", "head.{p}"),
)


def transposed(dims: int, join: int | None = None) -> Callable[[Tensor], Tensor]:
    """Make a JAX kernel the weight of a Linear.

    Args:
        dims: Dimensions of the kernel.
        join: This dimension and the next are one in the Linear.
    """

    def operation(kernel: Tensor) -> Tensor:
        if kernel.ndim != dims:
            raise CheckpointError(f"expected {dims} dimensions, found shape {tuple(kernel.shape)}")
        return (kernel if join is None else kernel.flatten(join, join + 1)).t()

    return operation
