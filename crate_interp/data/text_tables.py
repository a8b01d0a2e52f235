"""Texts of the tables that Hugging Face keeps data sets in: Parquet and Arrow files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crate_interp.errors import InputError, shorten

__all__ = ["TABLE_SUFFIXES", "read_rows"]

TABLE_SUFFIXES = (".parquet", ".arrow")
_COLUMN = "text"
_ROWS = 1024  # that are in the memory at once


def read_rows(path: Path) -> Iterator[str]:
    """Read the column `text`, or the only column of texts, row by row.

    Args:
        path: A `.parquet` file; or an `.arrow` file, as the package datasets saves them.

    Raises:
        InputError: pyarrow is not installed; or the file cannot be read, has no such column, or a
            row without a text.
    """
    try:
        import pyarrow as pa
    except ImportError:
        raise InputError(f"{path}: needs pyarrow: pip install 'crate-interp[parquet]'") from None
    row = 0
    try:
        for texts in _columns_of(path, pa):
            for text in texts.to_pylist():
                if text is None:
                    raise InputError(f"{path}: row {row}: expected a text, found none")
                yield text
                row += 1
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: expected a {path.suffix} file, found {shorten(str(error))}"
        ) from None
    if not row:
        raise InputError(f"{path}: expected a row or more, found none")


def _columns_of(path: Path, pa: Any) -> Iterator[Any]:
    """Parts of the column of texts, one after the other."""
    if path.suffix.lower() == ".parquet":
        from pyarrow.parquet import ParquetFile

        with ParquetFile(path) as file:
            schema = file.schema_arrow
            name = schema.names[_column_of(path, schema, pa)]
            for batch in file.iter_batches(_ROWS, columns=[name]):
                yield batch.column(0)
        return
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
        column = _column_of(path, stream.schema, pa)
        for batch in stream:
            texts = batch.column(column)
            texts.validate(full=True)  # a file says where its texts begin, and may say anything
            for start in range(0, len(texts), _ROWS):
                yield texts[start : start + _ROWS]


def _column_of(path: Path, schema: Any, pa: Any) -> int:
    """Number of the column of texts."""
    texts = {
        number: field.name
        for number, field in enumerate(schema)
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
    }
    named = [number for number, name in texts.items() if name == _COLUMN] or list(texts)
    if len(named) != 1:
        raise InputError(
            f"{path}: expected a column {_COLUMN}, or a single column of texts, found columns "
            f"{shorten(', '.join(schema.names))}"
        )
    return named[0]
