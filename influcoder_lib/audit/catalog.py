"""DuckDB over one store: the documented views, for our own questions and for the user's SQL."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from glob import escape
from typing import Any

import duckdb
import polars as pl

from influcoder_lib.audit.views import VIEWS, make_past_views, make_views
from influcoder_lib.errors import DataError, StoreError
from influcoder_lib.store import Store

_AT_START: dict[str, Any] = {
    "temp_directory": "",
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}


@dataclass(frozen=True)
class Table:
    """The answer to a query: column names, and rows of Python values."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def records(self) -> list[dict[str, Any]]:
        """The rows as JSON-ready objects; times are ISO 8601, numbers that are not finite null."""
        return [dict(zip(self.columns, map(_as_json, row), strict=True)) for row in self.rows]


class Catalog:
    """An in-memory database with the views; it sees the artifacts' files and nothing else.

    It shows the store as it was when it was opened.

    Raises:
        StoreError: a manifest or a stored file cannot be read.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._has_past = False
        self._connection = duckdb.connect(config=_AT_START)
        with _stored_files():
            make_views(self._connection, store)
        files = str((store.root / "artifacts").resolve())
        # DuckDB takes a path for a pattern, and looks at the pattern too.
        self._connection.execute("SET allowed_directories = $1", [[files, escape(files)]])
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")

    def add_past(self) -> None:
        """Have the decisions of older versions, too, as `stored.past`: there may be many, and few
        queries need them.

        Raises:
            StoreError: a manifest or a stored file cannot be read.
        """
        if not self._has_past:
            with _stored_files():
                make_past_views(self._connection, self._store)
            self._has_past = True

    def frame(self, query: str, parameters: Mapping[str, Any] | None = None) -> pl.DataFrame:
        """The answer to a query of our own.

        Raises:
            StoreError: a stored file cannot be read.
        """
        with _stored_files():
            return self._connection.sql(query, params=dict(parameters or {})).pl()

    def select(self, text: str) -> Table:
        """The answer to the user's query, one SELECT.

        It is run as a subquery, where DuckDB takes nothing that writes, attaches or sets.

        Raises:
            DataError: the query is more or other than one SELECT, asks for what is not there, or
                reaches for a file outside the store.
        """
        try:
            answer = self._connection.execute("FROM query($1)", [text])
            columns = tuple(column[0] for column in answer.description or ())
            return Table(columns, answer.fetchall())
        except duckdb.Error as error:
            raise DataError(
                f"The query cannot be answered. {_first_part(error)}",
                allowed=f"one SELECT over the views {', '.join(VIEWS)}",
                fix="type `influcoder sql` to see the views' columns",
            ) from error


@contextmanager
def _stored_files() -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise StoreError(
            f"A stored file cannot be read. {_first_part(error)}",
            fix="type `influcoder plan --verify`, then `influcoder run`",
        ) from error


def _first_part(error: duckdb.Error) -> str:
    """DuckDB's message without the lines that quote the query, which are of our making."""
    return str(error).split("\n\nLINE ")[0].replace("\n", " ")


def _as_json(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float() | Decimal():
            return float(value) if math.isfinite(value) else None
        case datetime():
            return value.isoformat() + ("Z" if value.tzinfo is None else "")
        case list() | tuple():
            return [_as_json(each) for each in value]
        case dict():
            return {str(key): _as_json(each) for key, each in value.items()}
    return str(value)
