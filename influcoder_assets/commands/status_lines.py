"""How a home's status is written: a name and a few words a line, the most useful first."""

from collections.abc import Iterator
from datetime import UTC, datetime

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from influcoder_assets.commands.audit_tables import plain
from influcoder_assets.commands.standing import Corpus, Encoders, LastRun, Status
from influcoder_assets.commands.terminal import console
from influcoder_lib import refresh
from influcoder_lib.errors import listed
from influcoder_lib.report.wording import count, encoder_tiles, percent, plural, score

Line = tuple[str, str]

_REASONS = 3
_NAMED = 3
_AGES = ((86400, "day"), (3600, "hour"), (60, "minute"))


def print_status(found: Status) -> None:
    """Print one screen."""
    shown = Table.grid(padding=(0, 2))
    shown.add_column(style="bold", no_wrap=True)
    for name, text in _lines(found):
        shown.add_row(Text(plain(name)), Text(plain(text)))
    console.print(shown, highlight=False)


def _lines(found: Status) -> Iterator[Line]:
    yield "home", found.home
    yield "corpus", _corpus(found.corpus)
    if found.encoders is None:
        yield "encoder in use", "none yet"
    else:
        yield from _encoder_lines(found.encoders)
    for each in found.behaviors:
        said = f"{each.rule}; threshold {score(each.threshold)}"
        if each.dropped is not None:
            said += f"; {count(each.dropped)} dropped, {percent(each.share)} of valid samples"
        yield each.name, said
    yield from _plan_lines(found)
    for name, message in found.failures.items():
        yield "failed", f"{name}: {message.splitlines()[0]}"
    for warning in found.warnings:
        yield "warning", warning
    yield "last run", _run(found.last_run) if found.last_run else "none yet"
    yield "on disk", ", ".join(f"{name} {decimal(size)}" for name, size in found.bytes.items())


def _corpus(corpus: Corpus) -> str:
    gone = f", {count(corpus.gone)} gone" if corpus.gone else ""
    waiting = f", {count(corpus.not_filtered)} not filtered yet" if corpus.not_filtered else ""
    return (
        f"{plural(corpus.shards, 'shard')}{gone}{waiting}; {count(corpus.rows_in)} rows in = "
        f"{count(corpus.kept)} kept + {count(corpus.dropped)} dropped + "
        f"{count(corpus.quarantined)} quarantined"
    )


def _encoder_lines(encoders: Encoders) -> Iterator[Line]:
    standing = encoders.standing
    tiles = {
        tile.name: ", ".join(filter(None, (tile.value, tile.detail)))
        for tile in encoder_tiles(standing)
    }
    yield "encoder in use", f"{tiles['encoder in use']}, since {_when(encoders.in_use_since)}"
    if encoders.fidelity:
        figures = (
            f"{name.replace('_', ' ')} {value:.3f}" for name, value in encoders.fidelity.items()
        )
        yield "", f"fidelity: {', '.join(figures)}"
    if standing.fidelity:
        yield "", f"by shard: {_verdicts(encoders)}"
    if "latest trained" in tiles:
        yield "latest trained", tiles["latest trained"]
    yield "distillation set", f"frozen {_when(encoders.distillation_set_frozen)}"
    yield "", tiles["distillation set"]


def _verdicts(encoders: Encoders) -> str:
    """How many shards are sound, and which are not."""
    standing = encoders.standing
    verdicts = dict.fromkeys(each.verdict for each in standing.fidelity)
    found = {verdict: standing.shards_that_are(verdict) for verdict in verdicts}
    return "; ".join(
        f"{count(len(shards))} {verdict}"
        + ("" if verdict == "sound" else f" ({listed(shards, _NAMED)})")
        for verdict, shards in found.items()
    )


def _plan_lines(found: Status) -> Iterator[Line]:
    groups = refresh.grouped(found.steps)
    if not groups:
        yield "plan", nothing_to_make(bool(found.failures), found.waiting)
        return
    yield "plan", f"{plural(len(found.steps), 'step')} out of date; `influcoder plan` lists all"
    for group in groups[:_REASONS]:
        shards = f" {listed(group.shards, _NAMED)}" if group.shards else ""
        yield "", f"{group.asset}{shards}: {group.reason}"
    if len(groups) > _REASONS:
        yield "", "…"
    if found.waiting:
        yield "", waits(found.waiting)


def nothing_to_make(has_failures: bool, waiting: int) -> str:
    """How things stand where the plan is empty."""
    if waiting:
        return f"{waits(waiting)}; everything else is up to date"
    return f"everything{' else' if has_failures else ''} is up to date"


def waits(waiting: int) -> str:
    """How many artifacts wait for others to be mended."""
    return f"{plural(waiting, 'artifact')} {'waits' if waiting == 1 else 'wait'} for what failed"


def _run(run: LastRun) -> str:
    when = run.ended or run.began
    return f"{run.job}, {run.status}" + (f", {_when(when)}" if when else "")


def _when(written: str) -> str:
    """A time (UTC, ISO 8601) and how long ago it was."""
    then = datetime.fromisoformat(written)
    seconds = (datetime.now(UTC) - then).total_seconds()
    for length, unit in _AGES:
        if seconds >= length:
            return f"{written}, {plural(int(seconds // length), unit)} ago"
    return f"{written}, just now"
