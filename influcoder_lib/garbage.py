"""Which stored files nobody needs any more, and taking them away.

Manifests always stay, so what was made of what remains on record. Of past versions, the files stay
of young ones, of every decision with what it takes to explain it, and of the encoders that may be
used again. Stored vectors, which all versions share, stay too.
"""

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from influcoder_lib import timestamps
from influcoder_lib.atomic import below, parts
from influcoder_lib.remote import Stamp, stamps_below, stamps_of
from influcoder_lib.store import Manifest, Store

_DECISIONS = "filtered_dataset"
_EXPLAINING = "corpus_embeddings"
_KEPT_WHOLE = {_DECISIONS, "decision_rule", "behavior_queries", "query_embeddings"}
_ENCODERS = {"champion_encoder", "influence_encoder"}
# What belongs to no manifest may be on its way to one, from whichever machine.
_ON_ITS_WAY = 24 * 3600


@dataclass(frozen=True)
class Garbage:
    """Files to be taken away, with their bytes: here, and at the location; and whose they are."""

    here: dict[Path, int]
    there: dict[Path, int]
    versions: tuple[Manifest, ...]


def superseded(
    histories: Iterable[Sequence[Manifest]], since: str, encoders: Collection[str | None]
) -> list[Manifest]:
    """The versions whose files nobody needs.

    Args:
        histories: all manifests of each artifact, oldest first.
        since: versions made at this time or later are kept (UTC, ISO 8601).
        encoders: registry versions of encoders that are kept; None is the untrained one.
    """
    histories = [history for history in histories if history]
    explaining = {
        made.recipe.inputs.get(f"{_EXPLAINING}/{made.shard}")
        for history in histories
        for made in history
        if made.asset == _DECISIONS
    }

    def is_kept(made: Manifest, history: Sequence[Manifest]) -> bool:
        return (
            made is history[-1]
            or made.created >= since
            or made.asset in _KEPT_WHOLE
            or (made.asset == _EXPLAINING and made.fingerprint in explaining)
            or (made.asset in _ENCODERS and made.summary.get("version") in encoders)
        )

    found = []
    for history in histories:
        kept = {made.fingerprint for made in history if is_kept(made, history)}
        found += [made for made in history if made.fingerprint not in kept]
    return found


def find_garbage(store: Store, days: float, encoders: Collection[str | None]) -> Garbage:
    """Files of superseded versions; and files of a day or more ago that no manifest names, or that
    somebody, on whichever machine, began to write and did not finish.

    Raises:
        StoreError: a manifest cannot be read, or the location does not answer.
    """
    since = timestamps.of(time.time() - days * 86400)
    histories = list(store.histories().values())
    past = superseded(histories, since, encoders)
    gone = {store.place(made) for made in past}
    named = {store.place(made) for history in histories for made in history}

    def needless(stamps: dict[Path, Stamp]) -> dict[Path, int]:
        return {
            path: stamp.bytes
            for path, stamp in stamps.items()
            if (place := _artifact_of(store.root, path)) in gone
            or (place not in named and _is_old(stamp))
        }

    half_written = stamps_of(path for part in parts(store.root) for path in (part, *below(part)))
    here = needless(stamps_below(store.root / "artifacts"))
    here |= _old(half_written)
    there = needless(store.remote.stamps("artifacts")) | _old(store.remote.parts())
    removed = {_artifact_of(store.root, path) for path in here.keys() | there.keys()}
    return Garbage(here, there, tuple(made for made in past if store.place(made) in removed))


def remove(store: Store, garbage: Garbage) -> Garbage:
    """Take the files away, at the location first, but for those that a manifest in force names by
    now: whoever made equal content meanwhile has published these very files. Returns what went.

    Raises:
        StoreError: a manifest cannot be read, or the location does not answer.
        OSError: a file cannot be removed.
    """
    store.remote.catch_up()
    in_force = {store.place(history[-1]): history[-1] for history in store.histories().values()}
    used = {place / name for place, made in in_force.items() for name in made.files}
    garbage = Garbage(
        {path: size for path, size in garbage.here.items() if path not in used},
        {path: size for path, size in garbage.there.items() if path not in used},
        tuple(made for made in garbage.versions if store.place(made) not in in_force),
    )
    store.remote.remove(garbage.there)
    for path in garbage.here:
        path.unlink(missing_ok=True)
    for folder in {path.parent for path in garbage.here}:
        while folder != store.root and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent
    return garbage


def _old(stamps: dict[Path, Stamp]) -> dict[Path, int]:
    return {path: stamp.bytes for path, stamp in stamps.items() if _is_old(stamp)}


def _is_old(stamp: Stamp) -> bool:
    return time.time() - stamp.modified > _ON_ITS_WAY


def _artifact_of(root: Path, path: Path) -> Path:
    """The artifact's folder, ASSET/SHARD/FINGERPRINT, that a file is in."""
    return root.joinpath(*path.relative_to(root).parts[:4])
