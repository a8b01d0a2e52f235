"""Products of float64 rows with 0/1 matrices that read one byte per entry, not eight."""

from __future__ import annotations

import platform

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

__all__ = ["exact_product", "readable"]

_ALL_128 = int.from_bytes(b"\x80" * 8, "little", signed=True)
_DIGIT_VALUES = 256.0 ** torch.arange(8, dtype=torch.float64)


def readable(connected: Bool[Tensor, "B n n"]) -> Shaped[Tensor, "B n n"]:
    """0/1 matrices in the type in which `exact_product` reads them fastest."""
    if (
        connected.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and platform.machine().lower() in ("x86_64", "amd64")
    ):
        return connected.view(torch.int8)
    return connected.to(torch.float32)


def exact_product(
    rows: Float[Tensor, "B b n"], connections: Shaped[Tensor, "B n n"]
) -> Float[Tensor, "B b n"]:
    """Multiply rows with 0/1 matrices, exactly to float64, through eight digits per entry.

    A product reads the matrix once, and is bound by that. oneDNN multiplies int8 matrices with
    int32 sums: an eighth of the bytes of float64, and no copy of a bool matrix. Elsewhere it is
    float32, half the bytes, and far more than twice as fast on GPUs that are no supercomputer's.

    Each row is scaled to 63-bit integers, finer than float64. Adding 128 to every digit of base 256
    makes the bytes of an integer its digits; taking it off again, as the flip of the sign bit does,
    leaves digits in [-128, 127]. Sums of up to 2^17 of these are exact in float32, TF32 or not, and
    of 2^24 in int32 (the Ozaki scheme).
    """
    batch, count, num_patches = rows.shape
    scale = 2.0**62 / rows.abs().amax(dim=2, keepdim=True)
    integers = (rows * scale).to(torch.int64)
    digits = (integers + _ALL_128).bitwise_xor_(_ALL_128).view(torch.int8)
    digits = digits.view(batch, count, num_patches, 8).mT.reshape(batch, -1, num_patches)
    if connections.dtype == torch.int8:  # oneDNN has no product of batches
        sums = torch.stack(list(map(torch._int_mm, digits, connections)))
    else:
        with torch.autocast(rows.device.type, enabled=False):  # which would round the sums
            sums = digits.to(connections.dtype) @ connections
    sums = sums.view(batch * count, 8, num_patches).to(torch.float64)
    return (_DIGIT_VALUES.to(rows.device) @ sums).view_as(rows) / scale
