"""A PostgreSQL server of one's own on 127.0.0.1, where its programs are installed."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.services import free_port

_PLACES = "/usr/lib/postgresql/*/bin/initdb", "/usr/local/pgsql/bin/initdb"


@contextmanager
def server(*databases: str) -> Iterator[str]:
    """Start a server with these databases; gives the address to which a name is added.

    PostgreSQL refuses to be root, who then starts it as somebody else.
    """
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL's server programs are not installed here")
    who: dict[str, Any] = {"user": _servant().pw_uid, "group": _servant().pw_gid}
    who = who if os.getuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))
    if who:
        os.chown(folder, who["user"], who["group"])
    port = free_port()
    control = [str(programs / "pg_ctl"), "-D", str(folder / "data"), "-w"]
    options = f"-p {port} -h 127.0.0.1 -k {folder}"
    quiet: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, "cwd": folder, **who}
    try:
        initdb = [str(programs / "initdb"), "-D", str(folder / "data"), "-U", "influcoder"]
        subprocess.run([*initdb, "-A", "trust", "-N"], **quiet)
        subprocess.run([*control, "-l", str(folder / "log"), "-o", options, "start"], **quiet)
        try:
            address = f"postgresql+psycopg2://influcoder@127.0.0.1:{port}"
            for name in databases:
                _execute(f"{address}/postgres", f'CREATE DATABASE "{name}"')
            yield address
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], **quiet)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def count(address: str, table: str) -> int:
    """How many rows a table has."""
    connection = psycopg2.connect(address.replace("+psycopg2", ""))
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {table}")
            return int(cursor.fetchone()[0])
    finally:
        connection.close()


def _execute(address: str, statement: str) -> None:
    connection = psycopg2.connect(address.replace("+psycopg2", ""))
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


def _programs() -> Path | None:
    found = [path for place in _PLACES for path in sorted(Path("/").glob(place.lstrip("/")))]
    return found[-1].parent if found else None


def _servant() -> pwd.struct_passwd:
    names = {each.pw_name: each for each in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]
