"""What the tests of the models share: how to look inside."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture
def trace() -> Callable[[nn.Module, Tensor], dict[str, Tensor]]:
    """Run a model and name what passes through its blocks as the reference vectors do."""
    return _trace


def _trace(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen[name] = output.detach().clone()
        seen[f"{name} input"] = inputs[0].detach().clone()

    handles = []
    for number, block in enumerate(model.blocks):
        parts = {"subspace_tokens": block.attn.qkv, "mssa": block.attn, "sparse_block": block.mlp}
        for name, module in {**parts, "out": block, "codes": block.mlp.codes}.items():
            hook = partial(keep, f"block{number:02}/{name}")
            handles.append(module.register_forward_hook(hook))
    with torch.no_grad():
        seen["logits"] = model(images)
    for handle in handles:
        handle.remove()
    for number, block in enumerate(model.blocks):
        start = f"block{number:02}/"
        heads = seen[start + "subspace_tokens"].unflatten(-1, (block.attn.num_heads, -1))
        heads = heads.transpose(1, 2)
        scores = heads @ heads.transpose(-2, -1) * heads.shape[-1] ** -0.5
        seen[start + "attention"] = scores.softmax(dim=-1)
        seen[start + "post_mssa"] = seen[start + "out input"] + seen[start + "mssa"]
    return seen
