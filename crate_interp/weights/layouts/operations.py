"""Common parts of layouts: the layers of the official PyTorch code, and transposed kernels."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from crate_interp.errors import CheckpointError
from crate_interp.weights.layout import Rule

__all__ = ["OFFICIAL", "layer_rules", "of_dimensions", "transposed"]


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


def transposed(dims: int, join: tuple[int, int] | None = None) -> Callable[[Tensor], Tensor]:
    """Make a JAX kernel the weight of a Linear.

    Args:
        dims: Dimensions of the kernel.
        join: Dimensions that are one in the Linear.
    """
    return of_dimensions(dims, lambda kernel: kernel.flatten(*join).t() if join else kernel.t())


def of_dimensions(dims: int, operation: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Do an operation only on tensors of so many dimensions; others are refused."""

    def checked(tensor: Tensor) -> Tensor:
        if tensor.ndim != dims:
            raise CheckpointError(f"expected {dims} dimensions, found shape {tuple(tensor.shape)}")
        return operation(tensor)

    return checked
