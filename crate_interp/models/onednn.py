"""Inference through oneDNN on AMD processors, and attention in bfloat16 on any that has it.

On AMD's, PyTorch's BLAS, Intel's MKL, does not use AVX-512, and oneDNN, which PyTorch carries too,
is faster: on two Zen 5 cores a linear layer has 456 instead of 192 GFLOP/s, and attention over 3600
tokens takes three quarters of the time. The sums are the same up to their order.

bfloat16 doubles the speed of products again, but its 8 bits, in every layer, change masks. In
attention alone they need not: a sum over thousands of tokens evens out what rounding adds to each,
if numbers are shifted so that those that matter are small when they are rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import Mlp
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from crate_interp.files import checked_as
from crate_interp.options.choices import Precision

__all__ = ["fast_inference", "has_fast_bfloat16", "inference_precision"]

_MANY_TOKENS = 1024  # from here on, blocks of rows beat PyTorch's fused attention
_ROWS = 256  # their attention to 3600 tokens, 3.7 MB, stays in the cache
_ROUNDED_ROWS = 512  # the same in bfloat16
_ONE_IN = 32  # keys that tell how large the scores of a row become
_PADDING = 8  # columns; one of them is used, and rows stay aligned


class _OneDnn(TorchFunctionMode):
    """Takes over linear layers and attention, and GELU together with the layer before it."""

    def __init__(
        self,
        linear: bool = True,
        attention: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
        model: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self._linear = linear
        self._attention = attention or _attention
        self._before_gelu = set() if model is None else _weights_before_gelu(model)
        self._activated: Tensor | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self._linear and func is F.linear and _is_float32_on_cpu(args[0]):
            if len(args) == 3 and id(args[1]) in self._before_gelu:
                self._activated = _linear(*args, activation="gelu")
                return self._activated
            return _linear(*args, **kwargs)
        if func is F.gelu and args[0] is self._activated:
            self._activated = None
            return args[0]
        if func is F.scaled_dot_product_attention and _is_float32_on_cpu(args[0]):
            # Nothing but plain self-attention: no mask, dropout, own scale, or grouped heads.
            alike = len(args) == 3 and args[0].shape == args[1].shape
            if alike and args[0].shape[-2] >= _MANY_TOKENS and not any(kwargs.values()):
                return self._attention(*args)
        return func(*args, **kwargs)


def _weights_before_gelu(model: nn.Module) -> set[int]:
    """Identities of the weights whose product nothing but a GELU sees, hooks included."""
    return {
        id(module.fc1.weight)
        for module in model.modules()
        if type(module) is Mlp
        and type(module.fc1) is nn.Linear
        and type(module.act) is nn.GELU
        and module.act.approximate == "none"
        and not (module.fc1._forward_hooks or module.act._forward_pre_hooks)
    }


def _is_float32_on_cpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype is torch.float32


def _linear(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str = "none",
) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(
        *(input, weight, bias, activation, [], "none")
    )
    return product


def _attention(
    query: Float[Tensor, "B K N d"], key: Float[Tensor, "B K N d"], value: Float[Tensor, "B K N d"]
) -> Float[Tensor, "B K N d"]:
    # Contiguous throughout: oneDNN has slow paths for the strides of a split projection.
    queries = (query * query.shape[-1] ** -0.5).flatten(0, 1).contiguous()
    keys = key.flatten(0, 1).contiguous()
    values = value.flatten(0, 1).transpose(1, 2).contiguous()
    out = torch.empty_like(queries)
    for head in range(len(queries)):
        for rows, target in zip(queries[head].split(_ROWS), out[head].split(_ROWS), strict=True):
            attention = _linear(rows, keys[head]).softmax(dim=-1)
            target.copy_(_linear(attention, values[head]))
    return out.view(query.shape)


def _rounded_attention(
    query: Float[Tensor, "B K N d"], key: Float[Tensor, "B K N d"], value: Float[Tensor, "B K N d"]
) -> Float[Tensor, "B K N d"]:
    """Attention whose products have factors, scores and sums of 8 bits, everything else 24.

    Two shifts change nothing but the rounding: the mean key adds one number to all scores of a row,
    which softmax does not see, and the mean value is added afterwards. A third one, in a column of
    its own, brings the largest score of a row, as a part of the keys tells it, near zero, where
    bfloat16 is fine.
    """
    width = query.shape[-1]
    queries = (query * width**-0.5).flatten(0, 1).bfloat16().contiguous()
    keys = (key - key.mean(dim=2, keepdim=True)).flatten(0, 1).bfloat16().contiguous()
    mean = value.mean(dim=2).flatten(0, 1)
    values = (value.flatten(0, 1) - mean[:, None]).transpose(1, 2).bfloat16().contiguous()
    out = torch.empty(queries.shape, dtype=query.dtype)
    for head in range(len(queries)):
        largest = _linear(queries[head], keys[head, ::_ONE_IN].contiguous()).amax(dim=1)
        shifted, padded = (F.pad(part[head], (0, _PADDING)) for part in (queries, keys))
        shifted[:, width] = -largest
        padded[:, width] = 1
        for rows, target in zip(
            shifted.split(_ROUNDED_ROWS), out[head].split(_ROUNDED_ROWS), strict=True
        ):
            attention = _linear(rows, padded).softmax(dim=-1)
            torch.add(_linear(attention, values[head]), mean[head], out=target)
    return out.view(query.shape)


def fast_inference() -> AbstractContextManager[Any]:
    """Run float32 linear layers and attention by the fastest library, inside a `with` block.

    For inference without autocast; nothing of a model is changed, hooks run as usual.
    """
    return _OneDnn() if _is_faster() else nullcontext()


def inference_precision(precision: Precision, model: nn.Module) -> AbstractContextManager[Any]:
    """Run forward passes of a model in a number type, inside a `with` block.

    Args:
        precision: `float32` by the fastest library; `bfloat16_attention`, the same but for
            attention over 1024 tokens and more, if the processor `has_fast_bfloat16`; the others by
            autocast.
        model: Model in evaluation mode, on its device; hooks that it has by then are respected.

    Raises:
        InputError: No such number type.
    """
    checked_as(precision, Precision, "precision")
    device = next(model.parameters()).device
    if precision in ("bfloat16", "float16"):
        return torch.autocast(device.type, getattr(torch, precision))
    if device.type != "cpu":
        return nullcontext()
    if precision == "bfloat16_attention" and has_fast_bfloat16():
        return _OneDnn(_is_faster(), _rounded_attention, model)
    return _OneDnn(model=model) if _is_faster() else nullcontext()


@cache
def has_fast_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 (AVX512-BF16 or AMX), and PyTorch has oneDNN."""
    return "avx512_bf16" in _processor()


@cache
def _is_faster() -> bool:
    has_avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return has_avx512 and "AuthenticAMD" in _processor()


def _processor() -> str:
    """Description by Linux; empty where PyTorch has no oneDNN."""
    file = Path("/proc/cpuinfo")
    has_onednn = torch.backends.mkldnn.is_available() and hasattr(
        torch.ops.mkldnn, "_linear_pointwise"
    )
    return file.read_text() if has_onednn and file.exists() else ""
