"""A table of masks, as pandas, DuckDB, Spark and others read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import IO, Any

from crate_interp.data.export import Content, Export, ExportedImage
from crate_interp.errors import InputError

__all__ = ["ParquetExport"]

_ROWS = 10_000  # of a row group: some 4 MB of masks


class ParquetExport(Export):
    """Writes `masks.parquet`, one row a mask; an image without a mask has no row.

    Columns: `image_id`, `file_name`, `height` and `width` of the image, `counts` of the mask as
    COCO's compressed RLE, `bbox` as x, y, width, height, `area` in pixels, and `score`.
    """

    def files(self, images: Iterable[ExportedImage], title: str) -> Iterator[tuple[str, Content]]:
        """Write one file, a group of rows at a time."""
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise InputError(
                "the export format parquet needs pyarrow: pip install 'crate-interp[parquet]'"
            ) from None
        yield "masks.parquet", partial(_write, images, title)


def _write(images: Iterable[ExportedImage], title: str, file: IO[bytes]) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    schema = pa.schema(
        {
            "image_id": pa.int64(),
            "file_name": pa.string(),
            "height": pa.int32(),
            "width": pa.int32(),
            "counts": pa.string(),
            "bbox": pa.list_(pa.float64(), 4),
            "area": pa.int64(),
            "score": pa.float64(),
        },
        metadata={"title": title},
    )
    with ParquetWriter(file, schema, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []
        for row in _rows(images):
            rows.append(row)
            if len(rows) == _ROWS:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        writer.write_table(pa.Table.from_pylist(rows, schema))


def _rows(images: Iterable[ExportedImage]) -> Iterator[dict[str, Any]]:
    from crate_interp.data.rle import area_of

    for image in images:
        height, width = image.hw
        for result in image.results:
            yield {
                "image_id": image.image_id,
                "file_name": image.file_name,
                "height": height,
                "width": width,
                "counts": result["segmentation"]["counts"],
                "bbox": list(result["bbox"]),
                "area": area_of(result["segmentation"]),
                "score": result["score"],
            }
