"""Names that make no shard, links, and what is no regular file."""

import os
import stat
from collections.abc import Iterator

from tests.chaos.malformed_files import Expected, Kind, Place
from tests.chaos.malformed_rows import SUFFIXES, as_file, good_rows

_ODD = ("a\nb", "a'b", 'a"b', "<script>", "a b", "a,b", "%2e%2e%2f", "..\\..\\x", "$(id)", "*")
_FOREIGN = ("é", "日本", "\u0130", "\u202e", "\udcff", "\x1b[31m", "a\tb")


def hostile_name(place: Place) -> Iterator[Expected]:
    odd = place.dice.choice(_ODD + _FOREIGN)
    name = f"{place.stem}{odd}.jsonl"
    (place.folder / name).write_bytes(as_file(good_rows(place.dice), ".jsonl"))
    yield Expected(name, refused="The name of the shard holds")


def long_name(place: Place) -> Iterator[Expected]:
    name = place.dice.choice(["x" * (250 - len(place.stem)), "/".join(["deep"] * 60)])
    path = place.folder / f"{place.stem}{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(as_file(good_rows(place.dice), ".csv"))
    yield Expected(path.relative_to(place.folder).as_posix(), refused="The name of the shard has")


def twin_names(place: Place) -> Iterator[Expected]:
    stem = place.stem
    names = place.dice.choice(
        [
            (f"{stem}k.jsonl", f"{stem}\u212a.jsonl"),
            (f"{stem}.JSONL", f"{stem}.jsonl"),
            (f"{stem}/a.jsonl", f"{stem}.a.jsonl"),
        ]
    )
    for name in names:
        (place.folder / name).parent.mkdir(exist_ok=True)
        (place.folder / name).write_bytes(as_file(good_rows(place.dice), ".jsonl"))
        yield Expected(name, refused="2 files make the same partition key")


def reserved_name(place: Place) -> Iterator[Expected]:
    rows = good_rows(place.dice)
    folder = place.folder / place.stem
    folder.mkdir()
    name = place.dice.choice(
        ["con", "nul", "_", "--help", "-rf", "null", "x.json", "x.part", "x.."]
    )
    (folder / f"{name}.jsonl").write_bytes(as_file(rows, ".jsonl"))
    (folder / ".hidden.jsonl").write_bytes(b"no shard")
    (folder / "folder.jsonl").mkdir()
    yield Expected(f"{place.stem}/{name}.jsonl", len(rows))


def link(place: Place) -> Iterator[Expected]:
    targets = {
        "../outside.jsonl": "A link leaves the corpus folder",
        "../../../../../../../../../etc/passwd": "A link leaves the corpus folder",
        "/dev/zero": "A link leaves the corpus folder",
        "..": "A link leaves the corpus folder",
        "not/there": "A link leads nowhere",
        f"{place.stem}.jsonl": "A link leads nowhere",
        ".": "A link to a folder is not followed",
    }
    target = place.dice.choice(list(targets))
    (place.folder.parent / "outside.jsonl").write_bytes(b"{}")
    (place.folder / f"{place.stem}.jsonl").symlink_to(target)
    yield Expected(f"{place.stem}.jsonl", refused=targets[target])


def link_inside(place: Place) -> Iterator[Expected]:
    rows = good_rows(place.dice)
    name = place.put(".jsonl", as_file(rows, ".jsonl"))
    (place.folder / f"{place.stem}_again.jsonl").symlink_to(name)
    yield Expected(name, len(rows))
    yield Expected(f"{place.stem}_again.jsonl", len(rows))


def no_regular_file(place: Place) -> Iterator[Expected]:
    name = f"{place.stem}{place.dice.choice(SUFFIXES)}"
    os.mknod(place.folder / name, 0o600 | place.dice.choice((stat.S_IFIFO, stat.S_IFSOCK)))
    yield Expected(name, refused="A shard is no regular file")


NAMES: tuple[Kind, ...] = (
    hostile_name,
    long_name,
    twin_names,
    reserved_name,
    link,
    link_inside,
    no_regular_file,
)
