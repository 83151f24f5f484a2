"""The rows of a parquet file, a few in memory at a time whatever the file says of itself."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from influcoder_lib.raw_rows import ROW_BYTES, Asked, BadRow, Row, check_growth

_BUFFER = 1 << 20
_ROWS = 256
# A page of a column is unpacked as a whole: so many bytes of one are no harm, however small it was.
_HELD = 1 << 26


def read_parquet(path: Path, name: str, asked: Asked, limit: int) -> Iterator[Row | BadRow]:
    """Rows of a parquet file, each made only when it is its turn: a text that stands in many rows
    is stored once, and would fill memory if it were copied for all of them. A row may have any
    length, whatever `limit` is.

    Raises:
        DataError: a needed column is missing, one is there twice, or the file grows beyond all
            measure when it is unpacked.
    """
    metadata, size = pq.read_metadata(path), path.stat().st_size
    columns = asked.among(metadata.schema.to_arrow_schema().names, name)
    texts = _look(metadata, name, columns, size)
    with pq.ParquetFile(
        path, metadata=metadata, read_dictionary=texts, buffer_size=_BUFFER
    ) as file:
        number = length = 0
        for batch in _batches(file, columns):
            for values in zip(*(map(_cell, batch.column(each)) for each in columns), strict=True):
                number += 1
                length += sum(len(each) for each in values if isinstance(each, str | bytes))
                check_growth(name, length, size)
                yield Row(number, dict(zip(columns, values, strict=True)))


def _batches(file: pq.ParquetFile, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    """The rows, group by group: Arrow cannot join nested texts of two groups in one batch."""
    for group in range(file.num_row_groups):
        yield from file.iter_batches(batch_size=_ROWS, row_groups=[group], columns=list(columns))


def _look(metadata: pq.FileMetaData, name: str, columns: tuple[str, ...], size: int) -> list[str]:
    """Look at what the file says of itself; gives the paths of the columns' texts."""
    leaves = [metadata.schema.column(place) for place in range(metadata.num_columns)]
    needed = [place for place, leaf in enumerate(leaves) if leaf.path.split(".")[0] in columns]
    check_growth(name, ROW_BYTES * metadata.num_rows, size)
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, needed):
            if chunk.total_uncompressed_size > _HELD:
                check_growth(name, chunk.total_uncompressed_size, chunk.total_compressed_size)
    return [leaves[each].path for each in needed if leaves[each].physical_type == "BYTE_ARRAY"]


def _cell(scalar: pa.Scalar) -> Any:
    """Its Python value, 0.1 for the float32 that is nearest to it; a text that is not UTF-8 stays
    bytes, and of what Python has no value for, such as a time in the year 300,000, only the type is
    left."""
    try:
        value = scalar.as_py()
    except UnicodeDecodeError as error:
        return bytes(error.object)
    except (ValueError, OverflowError, LookupError):
        return scalar.type
    if isinstance(scalar, pa.FloatScalar) and value is not None:
        return float(str(np.float32(value)))
    return value
