"""Ingests every shard below a folder in a process of its own, and says what became of each and how
much memory it took: `python -m tests.chaos.ingesting FOLDER OUT`."""

import json
import sys
from pathlib import Path

from influcoder_lib import memory
from influcoder_lib.errors import DataError
from influcoder_lib.ingest import Columns, ingest
from influcoder_lib.samples import find_shards
from tests.chaos.malformed_rows import MAX_CHARACTERS


def main(folder: Path, out: Path) -> None:
    found = find_shards(folder)
    said = {name: str(error) for name, error in found.refused.items()}
    counts = {}
    for key, path in found.files.items():
        name = path.relative_to(folder).as_posix()
        tables = [out / key / f"{table}.parquet" for table in ("samples", "quarantine")]
        try:
            done = ingest(path, name, Columns(label="label"), *tables, MAX_CHARACTERS)
            counts[name] = [key, done.valid, done.quarantined]
        except DataError as error:
            said[name] = str(error)
    print(json.dumps({"counts": counts, "said": said, "peak": memory.peak()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
