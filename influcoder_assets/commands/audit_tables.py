"""How explanations, search results and tables are printed.

All text that comes from data passes `plain`, so that it can neither mark up nor drive a terminal.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from influcoder_assets.commands.terminal import console
from influcoder_lib.errors import listed

if TYPE_CHECKING:
    from influcoder_lib.audit.catalog import Table
    from influcoder_lib.audit.explanation import Explanation
    from influcoder_lib.audit.lineage import Trace
    from influcoder_lib.audit.neighbours import Neighbour
    from influcoder_lib.audit.queries import Dropped, Effect
    from influcoder_lib.audit.search import Answer
    from influcoder_lib.audit.views import View

MOST_ROWS = 50
"""Rows of an answer that are printed; --json prints all."""

_NONE = "—"
_WIDEST_CELL = 40
_MOST_CHARACTERS = 1000
_DECISIONS = {"keep": ("kept", "green"), "drop": ("dropped", "red")}

Facts = Sequence[tuple[str, str | None]]


def plain(value: str) -> str:
    """One line of printable characters: a control character becomes �, a gap one space."""
    shown = "".join(c if c.isprintable() else " " if c.isspace() else "�" for c in value)
    return " ".join(shown.split())


def print_explanation(found: "Explanation", texts: bool) -> None:
    """Decision and reason first, then numbers, neighbours, history and origin."""
    said = Text.assemble(_decision(found.decision), "  ", plain(found.reason))
    console.print(said, style="bold", soft_wrap=True)
    _print_facts([*_row_facts(found), *(_texts(found) if texts else ())])
    _print_grid(
        ("behavior", "score", "threshold", "rank", "percentile"),
        [
            (
                each.behavior,
                f"{each.score:.3f}",
                f"{each.threshold:.3f}",
                f"{each.rank:,} of {each.of:,}" if each.of > 1 else _NONE,
                f"{100 * each.percentile:.1f} %",
            )
            for each in found.standings
        ],
    )
    _print_title("Queries that it resembles most")
    queries = [(each.behavior, query) for each in found.standings for query in each.queries]
    _print_lines(
        ("cosine", "behavior", "query"),
        [(f"{query.cosine:.3f}", behavior, query.query) for behavior, query in queries],
        [_line(query) for _, query in queries] if texts else (),
    )
    _print_title("Nearest samples, kept and dropped")
    nearest = [each for decision in _DECISIONS for each in found.neighbours[decision]]
    _print_samples(nearest, "cosine", texts)
    _print_title("History")
    _print_grid(
        ("since", "decision", "encoder", "run", "reason"),
        [
            (
                _time(past.since),
                _decision(past.decision),
                (past.encoder or _NONE)[:8],
                past.run_id[:8],
                past.reason or "not in the shard",
            )
            for past in found.history
        ],
    )
    _print_title("Made from")
    _print_facts(_trace_facts(found.trace))


def print_effect(found: "Effect", texts: bool) -> None:
    """How many samples a query has dropped, and those with the highest scores."""
    some = f", the highest {len(found.top)} below" if len(found.top) < found.dropped else ""
    _print_facts(
        [
            ("query", found.query),
            ("behavior", ", ".join(found.behaviors)),
            ("dropped", f"{found.dropped:,} in the live shards{some}"),
            *(_texts(found) if texts else ()),
        ]
    )
    if found.top:
        _print_samples(found.top, "score", texts)


def print_answer(answer: "Answer", named: bool) -> None:
    """What a search found; `named` says what was searched for, where it was not just typed."""
    if named:
        console.print(Text(_line(answer.sample), "bold"), no_wrap=True, overflow="ellipsis")
    _print_samples(answer.found, "cosine", texts=True)
    cut = "; the text is longer than the encoder reads, part of it was not read"
    said = f"found in {answer.milliseconds:.0f} ms{cut if answer.truncated else ''}"
    console.print(Text(said, "dim"), "", sep="\n")


def print_views(views: Mapping[str, "View"]) -> None:
    """What can be asked, view by view."""
    for name, view in views.items():
        console.print(Text.assemble((name, "bold"), "  ", view.about))
        console.print(Padding(Text(", ".join(view.columns), "dim"), (0, 0, 0, 2)))
    console.print(
        "\nRows of a shard whose file is gone stay, with shard_state 'gone'. Times are UTC."
        '\nAn example:\n  influcoder sql "SELECT shard, count(*) FROM decisions WHERE decision ='
        " 'drop' GROUP BY shard\"",
        highlight=False,
    )


def print_table(table: "Table") -> None:
    """The first rows of an answer, each as a line, or as a list where a line has no room."""
    rows = [[_cell(value) for value in row] for row in table.rows[:MOST_ROWS]]
    columns = list(zip(table.columns, *rows, strict=True))
    widths = [min(_WIDEST_CELL, max(map(len, column))) for column in columns]
    if sum(widths) + 2 * len(widths) <= console.width:
        _print_grid(table.columns, rows)
    else:
        for row in rows:
            _print_facts(list(zip(table.columns, row, strict=True)))
    more = len(table.rows) - len(rows)
    if more:
        console.print(Text(f"{more:,} more rows: add a LIMIT, or print all with --json", "dim"))


def warn_of_missing(shards: Sequence[str]) -> None:
    """Say which shards a search leaves out."""
    if shards:
        said = f"not searched, as not yet embedded by the encoder in use: {listed(shards)}"
        Console(stderr=True).print(Text(said, "yellow"), soft_wrap=True)


def _row_facts(found: "Explanation") -> Facts:
    place, *others = found.places
    ends = {
        "live": None,
        "gone": f"with its shard, since {_time(place.until)}",
        "past": f"the row left its shard on {_time(place.until)}",
    }
    return [
        ("sample", found.sample_id),
        ("row", _where(place)),
        ("gone", ends[place.state]),
        ("label", found.label),
        ("source", found.source),
        *(
            ("also in", f"{_where(each)} ({_DECISIONS[each.decision][0]}, {each.state})")
            for each in others
        ),
    ]


def _trace_facts(origin: "Trace") -> Facts:
    adapter = " ".join(
        f"{key} {value}" for key, value in origin.target_model_settings["adapter"].items()
    )
    version = f"version {origin.version}" if origin.version else "untrained"
    last_run = origin.runs["filtered_dataset"][-1]
    runs = {run for each in origin.runs.values() for run in each}
    return [
        ("raw file", f"{_where(origin)}, hash {origin.raw_hash}"),
        ("encoder", f"{version}, {origin.encoder}"),
        ("MLflow run", origin.mlflow_run),
        ("trained from", origin.base_encoder),
        (
            "target model",
            f"{origin.target_model or ''} {origin.target_model_hash}, adapter {adapter}",
        ),
        ("queries", f"{_counted(origin.queries)}, {origin.queries_hash}"),
        *(
            ("rule", f"{rule['behavior']}: {rule['label']}, threshold {rule['threshold']:.4f}")
            for rule in origin.rules
        ),
        ("code", _code(origin.code_versions)),
        ("run", f"{last_run}{'' if len(runs) == 1 else f' and {len(runs) - 1} before it'}"),
    ]


def _code(versions: Mapping[str, Sequence[str]]) -> str:
    """Code versions by asset, those that most have said once."""
    said = {asset: ", ".join(found) for asset, found in versions.items()}
    (usual, _), *_ = Counter(said.values()).most_common(1)
    unusual = [f"{asset} {version}" for asset, version in said.items() if version != usual]
    return ", ".join([*unusual, f"version {usual} of {'the others' if unusual else 'all assets'}"])


def _counted(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in numbers.items())


def _print_samples(found: "Sequence[Neighbour | Dropped]", measure: str, texts: bool) -> None:
    """A line a sample, and with `texts` the beginning of its text below it."""
    decided = [getattr(each, "decision", "drop") for each in found]
    rows = [
        (
            f"{getattr(each, measure):.3f}",
            _decision(decision),
            each.sample_id,
            each.label or _NONE,
            _where(each),
        )
        for each, decision in zip(found, decided, strict=True)
    ]
    columns = (measure, "decision", "sample", "label", "row")
    _print_lines(columns, rows, [_line(each) for each in found] if texts else ())


def _print_lines(
    columns: Sequence[str], rows: Sequence[Sequence[str | Text]], below: Sequence[str]
) -> None:
    """Aligned rows below the names of their columns; below each row its line of `below`, if any."""
    if not rows:
        _print_line(Text("none", "dim"))
        return
    head, *lines = _aligned([[Text(each, "dim") for each in columns], *rows])
    _print_line(head)
    for line, text in itertools.zip_longest(lines, below):
        _print_line(line)
        if text is not None:
            _print_line(Text(f"        {text}", "dim"))


def _aligned(rows: Iterable[Sequence[str | Text]]) -> list[Text]:
    """Rows as lines, each column as wide as its widest cell."""
    cells = [[_text(each) for each in row] for row in rows]
    widths = [max(cell.cell_len for cell in column) for column in zip(*cells, strict=True)]
    for row in cells:
        for cell, width in zip(row, widths, strict=True):
            cell.pad_right(width - cell.cell_len)
    return [Text("  ").join(row) for row in cells]


def _print_line(line: Text) -> None:
    console.print(line, no_wrap=True, overflow="ellipsis")


def _print_title(title: str) -> None:
    console.print(Text(f"\n{title}", "bold"))


def _print_grid(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    grid = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        grid.add_column(Text(plain(column)))
    for row in rows:
        grid.add_row(*map(_text, row))
    console.print(grid)


def _print_facts(facts: Facts) -> None:
    """Names and values, those without a value left out."""
    grid = RichTable.grid(padding=(0, 2, 0, 0))
    for name, value in facts:
        if value is not None:
            grid.add_row(Text(plain(name), "dim"), Text(plain(value)))
    console.print(grid, "")


def _text(cell: str | Text) -> Text:
    return cell if isinstance(cell, Text) else Text(plain(cell))


def _decision(decision: str | None) -> Text:
    return Text(*_DECISIONS.get(str(decision), (_NONE, "dim")))


def _where(place: Any) -> str:
    return f"{place.file}:{place.row}" if place.file else place.shard


def _texts(found: Any) -> Facts:
    return [
        (name, None if text is None else text[:_MOST_CHARACTERS])
        for name, text in (("prompt", found.prompt), ("response", found.response))
    ]


def _line(found: Any) -> str:
    """Prompt and response in one line, as far as they are known."""
    parts = [plain(text[:_MOST_CHARACTERS]) for text in (found.prompt, found.response) if text]
    return " → ".join(parts)


def _time(stamp: str | None) -> str:
    return (stamp or _NONE).replace("T", " ")[:16]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else plain(str(value)[:_MOST_CHARACTERS])
