"""The dataset card: README.md in the Hugging Face layout, metadata first, then words for people.

Everything that the template prints is escaped for markdown unless it is marked safe, because names
of sources and labels come from the data.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from influcoder_lib.errors import listed
from influcoder_lib.export.origin import Origin
from influcoder_lib.export.tables import Format, features
from influcoder_lib.report import wording
from influcoder_lib.report.escaping import escape
from influcoder_lib.report.model import DropReason, FunnelRow

MAX_ROWS = 50
"""Rows of a table: a source for every row of the corpus is no reading matter."""

_SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")


@dataclass(frozen=True)
class Groups:
    """The largest groups of rows, at most MAX_ROWS, and how many smaller ones there are."""

    largest: Sequence[FunnelRow]
    smaller: int


@dataclass(frozen=True)
class Description:
    """What is told of an exported dataset, in the card and in its manifest.

    `repeated` counts the kept samples that are kept of an earlier shard too. `by_source`,
    `by_label` and `drop_reasons` count what is in the exported files; `licences` are by source, and
    `hub_licence` are the metadata keys that state the one of the whole; `out_of_date` is the number
    of steps that the plan had then, `not_filtered` names the shards that are not there, `failed`
    the artifacts (`asset/shard`) that could not be made, of which older ones may be there.
    """

    origin: Origin
    form: Format
    repeated: int
    by_source: Groups
    by_label: Groups
    drop_reasons: Sequence[DropReason]
    licences: Mapping[str, str]
    hub_licence: Mapping[str, str]
    out_of_date: int
    not_filtered: Sequence[str]
    failed: Sequence[str]


def render_card(card: Description) -> str:
    """The text of README.md."""
    template = _environment().get_template("card.md.j2")
    return template.render(
        metadata=Markup(yaml.safe_dump(_metadata(card), sort_keys=False)),
        card=card,
        origin=card.origin,
        totals=card.origin.totals,
        version=version("influcoder"),
    )


def size_category(rows: int) -> str:
    """The hub's name for a number of rows, e.g. 1K<n<10K."""
    reached = sum(rows >= 10 ** (3 + power) for power in range(len(_SIZES)))
    if reached == 0:
        return f"n<{_SIZES[0]}"
    if reached == len(_SIZES):
        return f"n>{_SIZES[-1]}"
    return f"{_SIZES[reached - 1]}<n<{_SIZES[reached]}"


def _metadata(card: Description) -> dict[str, Any]:
    """A part without a row is not announced: `datasets` cannot load one."""
    totals = card.origin.totals
    parts = {"default": "data"} | ({"dropped": "dropped"} if totals["dropped"] else {})
    return {
        **card.hub_licence,
        "pretty_name": "Filtered dataset",
        "size_categories": [size_category(totals["kept"])],
        "tags": ["influcoder"],
        "configs": [
            {"config_name": name, "data_files": f"{folder}/*.{card.form}"}
            for name, folder in parts.items()
        ],
        "dataset_info": [
            {"config_name": name, "features": features(folder)} for name, folder in parts.items()
        ],
    }


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("influcoder_lib.export"),
        autoescape=False,
        finalize=lambda value: value if isinstance(value, Markup) else escape(str(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for name in ("count", "percent", "score"):
        environment.filters[name] = _number(getattr(wording, name))
    for name in ("label", "rule_name", "rule_in_words", "encoder", "plural"):
        environment.filters[name] = getattr(wording, name)
    environment.filters["listed"] = listed
    return environment


def _number(write: Callable[[Any], str]) -> Callable[[Any], Markup]:
    """A written number needs no escape, which would make the raw text hard to read."""
    return lambda value: Markup(write(value))
