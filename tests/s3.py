"""An S3-compatible server on this machine, and buckets in it."""

import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import s3fs
from moto.server import ThreadedMotoServer

SECRET = "a-password-that-nobody-may-see"

_numbers = itertools.count()


@dataclass(frozen=True)
class Place:
    """A location that machines may share, and what fsspec needs to be told of it."""

    address: str
    options: dict[str, Any]


@contextmanager
def server() -> Iterator[str]:
    """A server on a free port of this machine; gives its URL."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        running.stop()


def place(url: str, bucket: str) -> Place:
    """A prefix in a bucket, which may not exist."""
    options = {
        "key": "somebody",
        "secret": SECRET,
        "client_kwargs": {"endpoint_url": url},
        "config_kwargs": {"retries": {"max_attempts": 0}},
    }
    return Place(f"s3://{bucket}/some/prefix", options)


def new_bucket(url: str) -> Place:
    """A prefix in an empty bucket of its own."""
    found = place(url, f"bucket-{next(_numbers)}")
    s3fs.S3FileSystem(**found.options).mkdir(found.address.split("/")[2])
    return found


def copy(place: Place, other: Place) -> None:
    """Copy all that was published at a place to another one."""
    system = s3fs.S3FileSystem(**place.options)
    system.copy(f"{place.address}/", f"{other.address}/", recursive=True)
