"""Size of the memory, so that what cannot fit is refused before it is tried."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

__all__ = ["usable_memory"]

_CONTROL_GROUPS = ("memory.max", "memory/memory.limit_in_bytes")  # versions 2 and 1


def usable_memory(device: torch.device | None = None) -> int:
    """Bytes that this process may have at most, whatever others use now.

    Args:
        device: A CUDA device has memory of its own; all others, and `None`, have the machine's, or
            what a control group or `ulimit -v` leaves of it.
    """
    if device is not None and device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    limits = [sys.maxsize]
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for name in _CONTROL_GROUPS:
        file = Path("/sys/fs/cgroup") / name
        if file.is_file():
            text = file.read_text().strip()
            limits += [int(text)] if text.isdecimal() else []  # `max`: none
    if sys.platform != "win32":
        import resource

        most, _ = resource.getrlimit(resource.RLIMIT_AS)
        limits += [most] if most != resource.RLIM_INFINITY else []
    return min(limits)
