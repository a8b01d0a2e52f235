"""Several processes: how they join, and FSDP.

With FSDP, parameters, gradients, moments and moving average are in pieces, one per process.

What is written is whole all the same, so a run may go on with another number of processes, sharded
or not. Gathering is a joint act: every process must take part in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor

from crate_interp.errors import InputError
from crate_interp.training.recipe import Recipe

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["gather", "join_processes", "scatter", "shard", "whole"]


def join_processes(recipe: Recipe) -> Accelerator:
    """Join the processes that `torchrun` or `accelerate launch` started, or this one alone.

    Raises:
        InputError: accelerate is not installed, the launcher shards by itself, or precision or
            batch size do not go with the device and the number of processes.
    """
    try:
        from accelerate import Accelerator, DistributedType
    except ImportError as error:
        raise InputError("training needs accelerate: pip install 'crate-interp[train]'") from error
    # The loop casts and accumulates by itself: accelerate places the model and joins processes.
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no")
    kind = accelerator.distributed_type
    if kind in (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise InputError(
            f"accelerate launch: found {kind.value}; expected plain processes, without --use_fsdp "
            "and the like: the recipe's `sharding: fsdp` splits a model"
        )
    device, processes = accelerator.device.type, accelerator.num_processes
    if recipe.precision == "float16" and recipe.sharding == "fsdp" and processes > 1:
        raise InputError("sharding fsdp: expected precision bfloat16 or float32, found float16")
    if recipe.precision == "float16" and device != "cuda":
        raise InputError(f"precision float16: expected a GPU, found {device}; try bfloat16")
    if recipe.batch_size % (recipe.accumulation * processes):
        raise InputError(
            f"batch_size: expected a multiple of {recipe.accumulation} accumulation steps x "
            f"{processes} processes, found {recipe.batch_size}"
        )
    return accelerator


def shard(model: nn.Module, device: torch.device, processes: int) -> None:
    """Split the parameters of a model over all processes, in place.

    A block's parameters are whole only while the block computes; the rest of the model is one more
    unit.

    Args:
        model: Model with its blocks in a container of the name `blocks`; the same in every process.
        device: Device of this process.
        processes: Number of processes; their process group exists.

    Raises:
        InputError: The installed torch has no FSDP2.
    """
    try:
        from torch.distributed.fsdp import fully_shard
    except ImportError as error:
        raise InputError("sharding fsdp: expected torch 2.6 or newer") from error
    mesh = init_device_mesh(device.type, (processes,))
    containers = [part for name, part in model.named_modules() if name.endswith("blocks")]
    for container in containers:
        for block in container.children():
            fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def gather(state: Any, keep: bool = True) -> Any:
    """Make the sharded tensors of a state whole, on the CPU; others stay as they are.

    Args:
        state: A tensor, or mappings of tensors and whatever else.
        keep: Whether this process needs the result; otherwise its tensors are `None`, which saves
            the memory.
    """
    if isinstance(state, Mapping):
        return {key: gather(value, keep) for key, value in state.items()}
    if not isinstance(state, DTensor):
        return state
    tensor = whole(state)
    return tensor.cpu() if keep else None


def whole(tensor: Tensor) -> Tensor:
    """Give the tensor that a sharded one is a piece of; another one as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def scatter(state: Mapping[Any, Any], like: Mapping[Any, Any]) -> dict[Any, Any]:
    """Split the tensors of a whole state as those of another one are.

    Args:
        state: Whole tensors, the same in every process.
        like: State that is sharded or not; what it lacks stays whole.
    """
    return {key: _split(value, like.get(key)) for key, value in state.items()}


def _split(value: Any, like: Any) -> Any:
    if isinstance(like, DTensor) and isinstance(value, Tensor) and value.shape == like.shape:
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value
