"""Ingests every shard below a folder in a process of its own, and says what became of each and how
much memory it took: `python -m tests.chaos.ingesting FOLDER OUT`."""

import json
import re
import sys
from pathlib import Path

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
    print(json.dumps({"counts": counts, "said": said, "peak": _peak_memory()}))


def _peak_memory() -> int:
    """Bytes that this process has held at most. What `getrusage` tells is, at first, what the
    process had that started this one."""
    (line,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(line) << 10


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
