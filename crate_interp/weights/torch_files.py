"""PyTorch's files without PyTorch's reader: tensors mapped from the file, and nothing else run.

A file holds a pickle that says in which storage, where and how large each tensor is, and beside it
the storages: as members of a zip archive, or one after the other (before PyTorch 1.6). What a
tensor says of itself is compared with what is there before it is made.
"""

from __future__ import annotations

import io
import math
import mmap
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crate_interp.errors import CheckpointError, shorten
from crate_interp.files import ARCHIVE_DAMAGE
from crate_interp.weights.pickles import Machine, Name

__all__ = ["StoredTensor", "TorchFile"]

_MAGIC = 0x1950A86A20F9469CFC6C  # of the files before PyTorch 1.6
_MAX_DIMENSIONS = 16

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
}
_UNTYPED = "torch.storage.UntypedStorage"
_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}


@dataclass(frozen=True)
class _Storage:
    """Numbers of one type in a row; `start` and `count` are in such numbers."""

    key: str
    dtype: torch.dtype
    start: int
    count: int


@dataclass(frozen=True)
class StoredTensor:
    """Record of a tensor in a file; `offset` and `strides` are in numbers of the storage."""

    storage: _Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Size of the tensor's own numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class TorchFile:
    """Content of a PyTorch file.

    Attributes:
        content: Plain values, and a `StoredTensor` for each tensor.
    """

    content: Any
    _mapped: mmap.mmap
    _places: Mapping[str, slice]  # of bytes, by storage

    @classmethod
    def read(cls, path: Path) -> TorchFile:
        """Read the structure of a file, of either kind.

        Raises:
            CheckpointError: The file is truncated, damaged or none, or asks for more than tensors
                and plain values.
        """
        with path.open("rb") as file:
            # Copy on write: the tensors may be changed, the file is not.
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        is_archive = mapped[:2] == b"PK"
        content, places = _of_archive(path, mapped) if is_archive else _of_old_file(mapped)
        return cls(content, mapped, places)

    def tensor(self, stored: StoredTensor) -> Tensor:
        """Give a tensor: a view of the mapped file, or a copy where numbers are not aligned there.

        Raises:
            CheckpointError: It reaches beyond its storage, or the storage beyond the file.
        """
        storage, itemsize = stored.storage, stored.dtype.itemsize
        place = self._places.get(storage.key, slice(0, 0))
        start, length = place.start, place.stop - place.start
        start += storage.start * storage.dtype.itemsize
        count = storage.count * storage.dtype.itemsize // itemsize
        needed = (storage.start + storage.count) * storage.dtype.itemsize
        if needed > length:
            raise CheckpointError(
                f"expected {needed} bytes in storage {shorten(storage.key)}, found {length}"
            )
        if not stored.bytes:
            return torch.empty(stored.shape, dtype=stored.dtype)
        last = stored.offset + sum(
            (size - 1) * stride for size, stride in zip(stored.shape, stored.strides, strict=True)
        )
        if last >= count or stored.bytes > count * itemsize:
            raise CheckpointError(
                f"a tensor of shape {shorten(stored.shape)} does not fit into its storage of "
                f"{count} numbers"
            )
        if start % itemsize:
            piece = bytearray(memoryview(self._mapped)[start : start + count * itemsize])
            values = torch.frombuffer(piece, dtype=stored.dtype)
        else:
            values = torch.frombuffer(self._mapped, dtype=stored.dtype, count=count, offset=start)
        return values.as_strided(stored.shape, stored.strides, stored.offset)


def _of_archive(path: Path, mapped: mmap.mmap) -> tuple[Any, dict[str, slice]]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except ARCHIVE_DAMAGE as error:
        raise CheckpointError(f"truncated or damaged zip archive ({error})") from error
    pickled = next((m.filename for m in members if m.filename.endswith("/data.pkl")), None)
    if pickled is None:
        raise CheckpointError("a zip archive without a PyTorch file in it")
    folder = pickled.removesuffix("data.pkl")
    places = {
        member.filename.removeprefix(folder): _place(member, mapped)
        for member in members
        if member.filename in (pickled, folder + "byteorder")
        or member.filename.startswith(folder + "data/")
    }
    if "byteorder" in places and mapped[places["byteorder"]] != b"little":
        raise CheckpointError("expected little-endian numbers, found another byte order")
    content = _interpret(io.BytesIO(mapped[places["data.pkl"]]))
    return content, {
        name.removeprefix("data/"): place
        for name, place in places.items()
        if name.startswith("data/")
    }


def _place(member: zipfile.ZipInfo, mapped: mmap.mmap) -> slice:
    """Place of the bytes of an uncompressed member."""
    name = shorten(member.filename)
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise CheckpointError(f"{name}: expected it uncompressed, as PyTorch writes it")
    head = mapped[member.header_offset : member.header_offset + 30]
    if len(head) < 30 or head[:4] != b"PK\x03\x04":
        raise CheckpointError(f"truncated or damaged zip archive ({name} is not where it says)")
    lengths = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    start = member.header_offset + 30 + lengths
    if member.file_size != member.compress_size or start + member.file_size > len(mapped):
        raise CheckpointError(
            f"truncated or damaged zip archive ({name} has {member.file_size} bytes, "
            f"the file {len(mapped)})"
        )
    return slice(start, start + member.file_size)


def _of_old_file(mapped: mmap.mmap) -> tuple[Any, dict[str, slice]]:
    storages: dict[str, torch.dtype] = {}
    if _interpret(mapped) != _MAGIC:
        raise CheckpointError("not a PyTorch checkpoint: a pickle of another kind")
    _interpret(mapped)  # version of the protocol
    system = _interpret(mapped)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CheckpointError("expected little-endian numbers, found another byte order")
    content = _interpret(mapped, storages)
    keys = _interpret(mapped)
    if not isinstance(keys, list):
        raise CheckpointError(f"expected a list of storages, found a {type(keys).__name__}")
    places = {}
    for key in keys:
        if not isinstance(key, str) or key not in storages:
            raise CheckpointError(f"storage {shorten(key)} belongs to no tensor")
        count = int.from_bytes(mapped.read(8), "little")
        start, length = mapped.tell(), count * storages[key].itemsize
        if length > len(mapped) - start:
            raise CheckpointError(
                f"truncated or damaged PyTorch file (storage {shorten(key)} has {length} bytes, "
                f"the file {len(mapped)})"
            )
        places[key] = slice(start, start + length)
        mapped.seek(start + length)
    return content, places


def _interpret(stream: Any, storages: dict[str, torch.dtype] | None = None) -> Any:
    """Interpret a pickle; note the types of the storages that it speaks of."""

    def reference(value: Any) -> _Storage:
        storage = _storage_of(value)
        if storages is not None:
            storages[storage.key] = storage.dtype
        return storage

    return Machine(_FUNCTIONS, _is_constant, reference).interpret(stream)


def _storage_of(reference: Any) -> _Storage:
    match reference:
        case ("storage", Name() as kind, str(key), _, int(count), *view) if count >= 0:
            name = kind.rpartition(".")[2]
            dtype = torch.uint8 if kind == _UNTYPED else _STORAGES.get(name)
            if dtype is None:
                raise CheckpointError(f"a storage of the type {shorten(kind)}, unknown to us")
            match view:
                case [] | [None]:
                    return _Storage(key, dtype, 0, count)
                case [(_, int(start), int(length))] if start >= 0 and length >= 0:
                    return _Storage(key, dtype, start, length)
    raise CheckpointError(f"its pickle refers to {shorten(reference)}, which is no storage")


def _is_constant(name: str) -> bool:
    module, _, kind = name.rpartition(".")
    return (
        (module in ("torch", "torch.cuda") and kind in _STORAGES)
        or name in _DTYPES
        or name in (_UNTYPED, "torch.Tensor", "torch.nn.parameter.Parameter")
    )


def _sizes(value: Any) -> tuple[int, ...]:
    if (
        isinstance(value, tuple)
        and len(value) <= _MAX_DIMENSIONS
        and all(type(size) is int and 0 <= size < 1 << 62 for size in value)
    ):
        return value
    raise CheckpointError(f"expected the sizes of a tensor, found {shorten(value)}")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> StoredTensor:
    if not isinstance(storage, _Storage):
        raise CheckpointError(f"expected the storage of a tensor, found {shorten(storage)}")
    (offset,), shape, strides = _sizes((offset,)), _sizes(shape), _sizes(strides)
    if len(shape) != len(strides):
        raise CheckpointError(f"a tensor of shape {shorten(shape)} with strides {shorten(strides)}")
    return StoredTensor(storage, storage.dtype, offset, shape, strides)


def _tensor_of_type(
    storage: Any, offset: Any, shape: Any, strides: Any, _: Any, __: Any, dtype: Any, *___: Any
) -> StoredTensor:
    if not isinstance(dtype, Name) or dtype not in _DTYPES:
        raise CheckpointError(f"expected the type of a tensor, found {shorten(dtype)}")
    return replace(_tensor(storage, offset, shape, strides), dtype=_DTYPES[dtype])


def _of_class(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
    if function in _REBUILT and isinstance(arguments, tuple):
        return _REBUILT[function](*arguments)
    raise CheckpointError(f"a tensor made by {shorten(function)}, unknown to us")


def _unsupported(*_: Any) -> Any:
    raise CheckpointError("a sparse or quantized tensor; expected plain ones")


def _mapping(pairs: Any = (), *_: Any) -> dict[Any, Any]:
    if isinstance(pairs, dict):
        return dict(pairs)
    # Python 2 wrote an OrderedDict's items here; later ones and Counters come as instructions.
    if isinstance(pairs, list) and all(
        isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str)
        for pair in pairs
    ):
        return {key: value for key, value in pairs}  # noqa: C416  # pairs may be lists
    return {}


def _nothing(*_: Any) -> None:
    """Values that may lie beside weights and that nobody reads: sets, devices, bytes."""


_UNSUPPORTED = (
    *("sparse_tensor", "sparse_csr_tensor", "nested_tensor", "qtensor"),
    *("meta_tensor_no_storage", "wrapper_subclass"),
)
_IGNORED = (
    *("torch.serialization._get_layout", "torch.device", "argparse.Namespace", "_codecs.encode"),
    *("builtins.set", "builtins.complex", "builtins.bytearray"),
    *("__builtin__.set", "__builtin__.bytearray"),  # of Python 2, under protocol 2
)
_REBUILT: dict[Any, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_type,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **_REBUILT,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
    "torch._tensor._rebuild_from_type_v2": _of_class,
    **{f"torch._utils._rebuild_{kind}": _unsupported for kind in _UNSUPPORTED},
    **dict.fromkeys(_IGNORED, _nothing),
    "torch.Size": lambda sizes=(): sizes,
    "collections.OrderedDict": _mapping,
    "collections.Counter": _mapping,
}
