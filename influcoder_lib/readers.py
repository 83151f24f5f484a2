"""Rows of raw files: streaming readers of jsonl, jsonl.gz, csv and parquet.

A bad row never stops a file: it is told with its number, field and reason. A file that cannot be
trusted as a whole (cut off, empty, a column missing, grown beyond measure when it is unpacked) is
an error.
"""

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from influcoder_lib.csv_rows import read_csv
from influcoder_lib.errors import DataError
from influcoder_lib.json_rows import read_jsonl, read_jsonl_gz
from influcoder_lib.parquet_rows import read_parquet
from influcoder_lib.raw_rows import Asked, BadRow, Row, first_line
from influcoder_lib.samples import SUFFIXES


def read_rows(path: Path, name: str, asked: Asked, limit: int) -> Iterator[Row | BadRow]:
    """Every row of a raw file in order; `values` holds at least those of the columns that exist.

    Args:
        path: the file; its suffix decides the format.
        name: what errors call the file.
        asked: the columns.
        limit: bytes that a jsonl line may have, of which a longer one becomes a `BadRow` unread;
            and characters that a csv row may have.

    Raises:
        DataError: the file has an unknown suffix, is empty, cut off, damaged or unreadable, holds
            no rows, is not UTF-8 but UTF-16 or UTF-32, grows beyond all measure when it is
            unpacked, none of its rows has one of the needed columns, or a row of csv is longer than
            `limit`: a quote that never closes is the likely cause.
    """
    lower = path.name.lower()
    suffix = next((ending for ending in SUFFIXES if lower.endswith(ending)), None)
    if suffix is None:
        raise DataError(
            "The format of the file is not known.",
            where=f"file {name}",
            allowed=f"names that end in {', '.join(SUFFIXES)}",
        )
    count = 0
    with _file_errors(name):
        if path.stat().st_size == 0:
            raise DataError("The file is empty.", where=f"file {name}", fix="remove or refill it")
        for row in _READERS[suffix](path, name, asked, limit):
            count += 1
            yield row
    if count == 0:
        raise DataError("The file holds no rows.", where=f"file {name}", fix="remove or refill it")


@contextmanager
def _file_errors(name: str) -> Iterator[None]:
    """Turn what a damaged or unreadable file raises into an error that names it."""
    where = f"file {name}"
    try:
        yield
    except EOFError as error:
        raise DataError(
            "The gzip file is cut off: its end is missing.", where=where, fix="copy it again"
        ) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"The file is no intact gzip file ({error}).", where=where, fix="copy it again"
        ) from error
    except (pa.ArrowException, OSError) as error:
        # What arrow says of damaged bytes is an OSError too, but none of the system's.
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"The file cannot be read ({error.strerror}).", where=where) from error
        raise DataError(
            f"The file is no intact parquet file ({first_line(error)}).",
            where=where,
            fix="copy it again; a parquet file that was cut off cannot be read",
        ) from error


_READERS: dict[str, Callable[[Path, str, Asked, int], Iterator[Row | BadRow]]] = {
    ".jsonl": read_jsonl,
    ".jsonl.gz": read_jsonl_gz,
    ".csv": read_csv,
    ".parquet": read_parquet,
}
