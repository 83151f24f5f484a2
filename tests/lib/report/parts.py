"""Reports straight from the shards' aggregates, for tests of what is in a report."""

from collections.abc import Sequence
from typing import Any

from influcoder_lib.curation.rules import Rule
from influcoder_lib.report import merging
from influcoder_lib.report.merging import Context
from influcoder_lib.report.model import Report
from influcoder_lib.report.sums import combine


def merge(parts: Sequence[dict[str, Any]], rules: Sequence[Rule], context: Context) -> Report:
    """The report of these shards."""
    return merging.merge(
        combine(parts, rules), {part["shard"]: part for part in parts}, rules, context
    )
