"""Damage to weights that are files as such: other numbers, types, shapes and keys."""

import io
import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

from tests.fuzz.damage import Mutator

__all__ = ["TENSORS"]

Edit = Callable[[random.Random, dict[str, Any], str], None]
TYPES = (torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.bool, torch.int64)
TYPES += (torch.uint8, torch.float8_e4m3fn)


def not_finite(rng: random.Random, weights: dict[str, Any], key: str) -> None:
    tensor = weights[key].clone()
    if tensor.is_floating_point() and tensor.numel():
        values = (float("nan"), float("inf"), float("-inf"))
        tensor.view(-1)[rng.randrange(tensor.numel())] = rng.choice(values)
    weights[key] = tensor


def other_type(rng: random.Random, weights: dict[str, Any], key: str) -> None:
    weights[key] = weights[key].to(rng.choice(TYPES))


def other_shape(rng: random.Random, weights: dict[str, Any], key: str) -> None:
    tensor = weights[key]
    shapes = (
        lambda: tensor.reshape(-1)[:-1],
        lambda: tensor.reshape(-1)[:0],
        lambda: tensor.reshape(-1)[0],
        lambda: tensor.unsqueeze(0),
        lambda: tensor.transpose(0, -1) if tensor.ndim > 1 else tensor,
        lambda: torch.zeros(1, 1, 1, 1, 1, 1),
        lambda: tensor.repeat(2, *[1] * (tensor.ndim - 1)),
        lambda: tensor.reshape(-1)[:0].reshape(0, 7),
    )
    weights[key] = rng.choice(shapes)().contiguous()


def other_kind(rng: random.Random, weights: dict[str, Any], key: str) -> None:
    """What only a pickle can hold."""
    tensor = weights[key].float()
    kinds = (
        lambda: tensor.to_sparse(),
        lambda: tensor.reshape(1, -1).to_sparse_csr(),
        lambda: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        lambda: torch.zeros(1).expand(10**10),
        lambda: torch.zeros(1).expand(10**6, 10**6),
        lambda: torch.nn.Parameter(tensor),
        lambda: tensor.to("meta"),
        lambda: rng.choice(
            (None, 1, 1.5, "text", [1, 2], {"a": tensor}, b"bytes", (tensor,), {1, 2})
        ),
    )
    weights[key] = rng.choice(kinds)()


def other_key(rng: random.Random, weights: dict[str, Any], key: str) -> None:
    names = (
        key + ".extra",
        "module." + key,
        "x" * 3000,
        "a\x00b",
        "\u202e\n\x1b[0m",
        key.upper(),
        "",
        "blocks.999999999999.x",
        "blocks.-1.x",
        "state_dict",
        "../../x",
        key.replace("0", "9"),
    )
    weights[rng.choice(names)] = weights[key]
    if rng.random() < 0.6:
        del weights[key]


def missing(rng: random.Random, weights: dict[str, Any], key: str) -> None:
    kept = rng.sample(sorted(weights), rng.randrange(len(weights)))
    for name in [key] if rng.random() < 0.7 else kept:
        del weights[name]


def large_numbers(rng: random.Random, weights: dict[str, Any], key: str) -> None:
    tensor = weights[key]
    if tensor.is_floating_point():
        weights[key] = torch.full_like(tensor, rng.choice((3e38, -3e38, 1e-45)))


EDITS: tuple[Edit, ...] = (not_finite, not_finite, other_type, other_shape, other_kind, other_key)
EDITS += (missing, large_numbers)


def mutate_tensors(rng: random.Random, content: bytes) -> bytes:
    """Change a tensor or a key, and write the file anew in its own format."""
    wrapper, weights, write = _opened(content)
    edit = rng.choice(EDITS)
    key = rng.choice(sorted(name for name, value in weights.items() if torch.is_tensor(value)))
    before = dict(weights)
    edit(rng, weights, key)
    try:
        return write(_wrapped(rng, wrapper, weights))
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError):
        # The format has no such thing: it gets a number that is none instead.
        not_finite(rng, before, key)
        return write(_wrapped(random.Random(0), wrapper, before))


def _opened(content: bytes) -> tuple[dict[str, Any] | None, dict[str, Any], Callable[[Any], bytes]]:
    if content[8:9] == b"{":
        return None, load(content), lambda weights: _as_safetensors(content, weights)
    if content.startswith(b"PK") and b"data.pkl" not in content[:200]:
        with np.load(io.BytesIO(content)) as arrays:
            found = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        return None, found, _as_npz
    whole = torch.load(io.BytesIO(content), weights_only=True)
    legacy = not content.startswith(b"PK")
    inner = next((key for key in ("model", "state_dict") if isinstance(whole.get(key), dict)), None)
    weights = dict(whole[inner] if inner else whole)
    return ({"": inner, **whole} if inner else None), weights, lambda c: _as_torch(c, legacy)


def _wrapped(
    rng: random.Random, wrapper: dict[str, Any] | None, weights: dict[str, Any]
) -> dict[str, Any]:
    if wrapper is None:
        return {1: 2, **weights} if rng.random() < 0.03 else weights  # type: ignore[dict-item]
    inner = wrapper[""]
    return {**{key: value for key, value in wrapper.items() if key}, inner: weights}


def _as_torch(content: Any, legacy: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def _refuse_expanded(weights: dict[str, Any]) -> None:
    """Only a pickle says that many numbers are one."""
    if any(tensor.numel() > 10**8 for tensor in weights.values()):
        raise ValueError("more numbers than this format should write")


def _as_npz(weights: dict[str, Any]) -> bytes:
    _refuse_expanded(weights)
    stream = io.BytesIO()
    np.savez(stream, **{key: tensor.numpy() for key, tensor in weights.items()})
    return stream.getvalue()


def _as_safetensors(before: bytes, weights: dict[str, Any]) -> bytes:
    _refuse_expanded(weights)
    header = json.loads(before[8 : 8 + int.from_bytes(before[:8], "little")])
    return save({k: t.contiguous().clone() for k, t in weights.items()}, header.get("__metadata__"))


TENSORS: dict[str, Mutator] = {"tensors": mutate_tensors, "tensors ": mutate_tensors}
