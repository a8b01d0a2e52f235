"""Files of features, written image by image: npz, safetensors and Parquet.

Shapes: I images, h w patch grid, D feature.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np
from jaxtyping import Float

from crate_interp.errors import InputError
from crate_interp.runs.journal import Entry

__all__ = ["WRITERS", "check_parquet"]

_ROW_GROUP = 1 << 24  # bytes of features in a row group of Parquet
_LARGEST_HEADER = 100_000_000  # bytes, that safetensors reads


def write_npz(entries: Sequence[Entry], about: Mapping[str, Any], file: IO[bytes]) -> None:
    """Write the arrays `features`, (I, h, w, D) or (I, D), `file_names`, `image_ids` and `about`.

    Args:
        entries: Entry of each image, with its `features`; all of one shape.
        about: Provenance.
        file: The open file.
    """
    shape = (len(entries), *entries[0]["features"].shape)
    arrays = {
        "about": np.array(_json_of(about)),
        "file_names": np.array([entry["file_name"] for entry in entries]),
        "image_ids": _ids_of(entries),
    }
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        with archive.open("features.npy", "w", force_zip64=True) as member:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(member, header)
            for content in _bytes_of(entries):
                member.write(content)


def write_safetensors(entries: Sequence[Entry], about: Mapping[str, Any], file: IO[bytes]) -> None:
    """Write the tensors `features`, (I, h, w, D) or (I, D), and `image_ids`.

    The metadata has `about` and `file_names`, both as JSON.

    Args:
        entries: Entry of each image, with its `features`; all of one shape.
        about: Provenance.
        file: The open file.

    Raises:
        InputError: The names of the images take more room than the format has for them.
    """
    ids = _ids_of(entries)
    shape = (len(entries), *entries[0]["features"].shape)
    end = ids.nbytes + 4 * math.prod(shape)
    names = json.dumps([entry["file_name"] for entry in entries])
    header = {
        "__metadata__": {"about": _json_of(about), "file_names": names},
        "image_ids": {"dtype": "I64", "shape": ids.shape, "data_offsets": [0, ids.nbytes]},
        "features": {"dtype": "F32", "shape": shape, "data_offsets": [ids.nbytes, end]},
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that numbers begin at a multiple of their size
    if len(text) > _LARGEST_HEADER:
        raise InputError(
            f"the names of {len(entries)} images take {len(text)} bytes, and safetensors has "
            f"{_LARGEST_HEADER} for them: write .parquet or .npz"
        )
    file.write(struct.pack("<Q", len(text)) + text + ids.tobytes())
    for content in _bytes_of(entries):
        file.write(content)


def write_parquet(entries: Sequence[Entry], about: Mapping[str, Any], file: IO[bytes]) -> None:
    """Write a row per patch, or per image where an image has one feature.

    Columns: `image_id`, `file_name`, for patches `row` and `column` on the grid of `grid_rows` and
    `grid_columns`, and `feature`, a list of D numbers. The schema's metadata has `about`.

    Args:
        entries: Entry of each image, with its `features`.
        about: Provenance.
        file: The open file.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    first = entries[0]["features"]
    places = ("row", "column", "grid_rows", "grid_columns") if first.ndim == 3 else ()
    schema = pa.schema(
        {
            "image_id": pa.int64(),
            "file_name": pa.string(),
            **{name: pa.int32() for name in places},
            "feature": pa.list_(pa.float32(), first.shape[-1]),
        },
        metadata={"about": _json_of(about)},
    )
    # Numbers hardly repeat: a dictionary of them would be longer than they are.
    with ParquetWriter(file, schema, compression="zstd", use_dictionary=["file_name"]) as writer:
        for group in _groups(entries):
            tables = [_rows(entry, features, schema) for entry, features in group]
            writer.write_table(pa.concat_tables(tables), row_group_size=1 << 30)


def check_parquet() -> None:
    """Refuse to write Parquet where pyarrow is missing.

    Raises:
        InputError: It is.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise InputError(".parquet needs pyarrow: pip install 'crate-interp[parquet]'") from None


def _groups(entries: Sequence[Entry]) -> Iterator[list[tuple[Entry, Float[np.ndarray, ...]]]]:
    """Images whose features are a row group together."""
    group, size = [], 0
    for entry in entries:
        features = entry["features"]
        group.append((entry, features))
        size += features.nbytes
        if size >= _ROW_GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


def _rows(entry: Entry, features: Float[np.ndarray, ...], schema: Any) -> Any:
    """Rows of one image."""
    import pyarrow as pa

    grid = features.shape[:-1]
    count = math.prod(grid)
    numbers = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), features.shape[-1])
    columns: list[Any] = [np.full(count, entry["image_id"]), [entry["file_name"]] * count]
    if grid:
        columns += [*np.indices(grid).reshape(2, -1), *(np.full(count, side) for side in grid)]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=False)]
    return pa.Table.from_arrays([*arrays, numbers], schema=schema)


def _bytes_of(entries: Sequence[Entry]) -> Iterator[bytes]:
    for entry in entries:
        yield entry["features"].astype("<f4", copy=False).tobytes()


def _ids_of(entries: Sequence[Entry]) -> np.ndarray[Any, Any]:
    return np.array([entry["image_id"] for entry in entries], "<i8")


def _json_of(about: Mapping[str, Any]) -> str:
    return json.dumps(about, default=str)


WRITERS: dict[str, Callable[[Sequence[Entry], Mapping[str, Any], IO[bytes]], None]] = {
    ".npz": write_npz,
    ".parquet": write_parquet,
    ".safetensors": write_safetensors,
}
"""What writes a file, by its suffix."""
