"""`influcoder explain`, `search` and `sql`: why it was decided, what is near, what is on record."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from influcoder_assets.commands import audit_tables
from influcoder_assets.commands.terminal import HomeOption, JsonOption, errors
from influcoder_assets.config import load_settings
from influcoder_assets.home import find_home
from influcoder_assets.storage import open_store
from influcoder_lib.errors import DataError
from influcoder_lib.store import Store

if TYPE_CHECKING:
    from influcoder_lib.audit.search import Answer, Searcher
    from influcoder_lib.samples import Sample

TextOption = Annotated[
    bool, typer.Option("--text", help="Show texts too; they may be unpleasant to read.")
]
TopOption = Annotated[int, typer.Option(min=1, help="How many to show.")]


def explain(
    identity: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="A sample's id, or its first 6 characters or more."),
    ] = None,
    query: Annotated[
        str | None, typer.Option(help="Id of a query: all that was dropped because of it.")
    ] = None,
    text: TextOption = False,
    top: Annotated[int, typer.Option(min=1, help="With --query: how many to show.")] = 10,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Why a sample was dropped or kept, by what, and what is like it.

    --json prints an object with the fields of audit.explanation.Explanation: sample_id, prompt,
    response, label, source, decision, reason, places, standings (with queries), neighbours (drop,
    keep), history and trace; with --query, those of audit.queries.Effect: query, behaviors,
    prompt, response, dropped, top. Every prompt and response is null without --text.
    """
    with errors():
        if (identity is None) == (query is None):
            raise DataError(
                "It is not said what to explain.",
                allowed="the id of a sample, or --query and the id of a query",
            )
        store = _store(home)
        if identity is not None:
            from influcoder_lib.audit.explanation import explain as explain_sample

            found: Any = explain_sample(store, identity)
            show: Callable[..., None] = audit_tables.print_explanation
        else:
            from influcoder_lib.audit.queries import dropped_by

            found = dropped_by(store, str(query), top)
            show = audit_tables.print_effect
    if as_json:
        _print_json(asdict(found) if text else _without_texts(asdict(found)))
    else:
        show(found, text)


def search(
    text: Annotated[
        str | None, typer.Argument(help="The output; with --response, the prompt before it.")
    ] = None,
    response: Annotated[str | None, typer.Option(help="The output to the prompt TEXT.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="File of outputs, in the same form as a shard.")
    ] = None,
    top: TopOption = 10,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """The samples of the corpus that push the model most towards an output.

    Without a text, a response or a file it asks for outputs until an empty line.

    --json prints, for an output, an object with prompt, response, milliseconds, truncated and
    found: a list of cosine, sample_id, shard, file, row, label, decision (keep, drop), prompt,
    response, nearest first. For a file it is a list of such objects; when outputs are asked for,
    one object a line.
    """
    with errors():
        if file is not None and (text is not None or response is not None):
            raise DataError("Both a file and a text are given.", allowed="one of them")
        place = find_home(home)
        samples = _given(place, text, response, file)
        searcher = _searcher(_store(home))
        if samples is None:
            _ask(searcher, top, as_json)
            return
        answers = [searcher.search(sample, top) for sample in samples]
    if as_json:
        found = [_answer(answer) for answer in answers]
        _print_json(found if file else found[0])
        return
    for answer in answers:
        audit_tables.print_answer(answer, named=file is not None)


def sql(
    query: Annotated[
        str | None, typer.Argument(help="One SELECT; without it, the views are listed.")
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Ask the stored tables in SQL (DuckDB), read-only.

    --json prints a list with an object a row, its keys the columns in their order; times are
    ISO 8601 in UTC, and what JSON has no number for is null. Without a query it is an object:
    the views by name, each with about and columns.
    """
    with errors():
        from influcoder_lib.audit.catalog import Catalog
        from influcoder_lib.audit.views import VIEWS

        table = None if query is None else Catalog(_store(home)).select(query)
    if table is None and as_json:
        _print_json({name: asdict(view) for name, view in VIEWS.items()})
    elif table is None:
        audit_tables.print_views(VIEWS)
    elif as_json:
        _print_json(table.records())
    else:
        audit_tables.print_table(table)


def _store(home: Path | None) -> Store:
    """The home's artifacts; no model is imported."""
    place = find_home(home)
    return open_store(place, load_settings(place).storage)


def _given(
    home: Path, text: str | None, response: str | None, file: Path | None
) -> "list[Sample] | None":
    """The outputs that the command line names; None if it names none."""
    from influcoder_assets.corpus import text_columns
    from influcoder_lib.audit.search import output
    from influcoder_lib.ingest import read_picked
    from influcoder_lib.samples import to_samples

    if file is not None:
        corpus = load_settings(home).corpus
        columns = text_columns(corpus)
        return to_samples(read_picked(file, "--file", columns, corpus.max_characters))
    if response is not None:
        return [output(text or "", response)]
    return None if text is None else [output("", text)]


def _searcher(store: Store) -> "Searcher":
    from influcoder_lib import target_model
    from influcoder_lib.audit.search import Searcher

    target_model.quiet()
    with Console(stderr=True).status("loading the encoder in use"):
        searcher = Searcher(store)
    audit_tables.warn_of_missing(searcher.missing)
    return searcher


def _ask(searcher: "Searcher", top: int, as_json: bool) -> None:
    """Search for one typed output after another; the model stays loaded."""
    from influcoder_lib.audit.search import output

    for typed in _lines():
        answer = searcher.search(output("", typed), top)
        if as_json:
            typer.echo(json.dumps(_answer(answer)))
        else:
            audit_tables.print_answer(answer, named=False)


def _lines() -> Iterator[str]:
    """Lines typed at a prompt, until a blank one or the end of the input."""
    while True:
        typer.echo("output> ", nl=False, err=True)
        try:
            typed = input()
        except (EOFError, KeyboardInterrupt):
            typer.echo("", err=True)
            return
        if not typed.strip():
            return
        yield typed


def _answer(answer: "Answer") -> dict[str, Any]:
    return {
        "prompt": answer.sample.prompt,
        "response": answer.sample.response,
        "milliseconds": round(answer.milliseconds, 1),
        "truncated": answer.truncated,
        "found": [asdict(each) for each in answer.found],
    }


def _without_texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: None if key in ("prompt", "response") else _without_texts(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_without_texts(each) for each in value]
    return value


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1))
