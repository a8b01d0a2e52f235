"""Cost of a model: parameters, multiply-adds and activations of a forward pass.

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from crate_interp.errors import InputError

__all__ = ["ForwardCost", "forward_cost"]

_LAYERS = (F.linear, F.conv1d, F.conv2d, F.conv3d)


@dataclass(frozen=True)
class ForwardCost:
    """Counts of one forward pass of one image; they do not depend on device or number type.

    Attributes:
        parameters: Numbers in the model's parameters, tables of positions included.
        multiply_adds: Multiply-adds of convolutions, linear layers and both attention products, as
            papers count; norms, softmax and element-wise steps are left out.
        activations: Numbers that convolutions and linear layers put out, as timm's published tables
            count; attention maps are left out.
    """

    parameters: int
    multiply_adds: int
    activations: int

    @property
    def flops(self) -> int:
        """Floating-point operations: a multiply-add is two."""
        return 2 * self.multiply_adds


class _Activations(TorchFunctionMode):
    """Counts the numbers that linear layers and convolutions put out."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _LAYERS:
            self.count += result.numel()
        return result


@torch.no_grad()
def forward_cost(model: nn.Module, images: Float[Tensor, "B 3 H W"]) -> ForwardCost:
    """Count what a forward pass costs per image.

    Args:
        model: Model in evaluation mode; on the meta device nothing is computed.
        images: Images on the model's device; their values do not matter.

    Raises:
        InputError: There is no image.
    """
    if not len(images):
        raise InputError("images: expected one or more, found none")
    activations = _Activations()
    # Not every fused attention kernel is known to the counter, the two plain products are.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, activations:
        model(images)
    return ForwardCost(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        multiply_adds=counter.get_total_flops() // (2 * len(images)),
        activations=activations.count // len(images),
    )
