"""Computing in float64: on the CPU where a device has none, as Apple's GPUs."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["float64_device", "on_float64_device", "to_float64"]


def float64_device(device: torch.device) -> torch.device:
    """The device itself, or the CPU in place of one that has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def on_float64_device(tensor: Tensor) -> Tensor:
    """The tensor, on the CPU if its device has no float64."""
    return tensor.cpu() if tensor.device.type == "mps" else tensor


def to_float64(tensor: Tensor) -> Tensor:
    """The tensor in float64, on the CPU if its device has none."""
    return on_float64_device(tensor).double()
