"""Sums of the shards' aggregates that are kept, so that a report adds up only what has changed.

Shards are sorted into a tree by the hexadecimal digits of their name's fingerprint: a node of more
than FAN shards has a child a digit. Every node's sum is a file, named by its digits, that says
which decisions it is the sum of. One shard more, fewer or changed costs the nodes above it, which
is a number that hardly grows with the corpus. The sums are those that adding up everything gives,
as far as `sums` says; losing the files costs time and nothing else.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from influcoder_lib import fingerprint
from influcoder_lib.atomic import write_atomically
from influcoder_lib.curation.rules import Rule
from influcoder_lib.report.groups import Json
from influcoder_lib.report.layout import SCHEMA
from influcoder_lib.report.sums import add_up, combine

FAN = 16


@dataclass(frozen=True)
class KeptSums:
    """The sums in one folder; `read` gives the aggregates of a shard."""

    folder: Path
    rules: Sequence[Rule]
    read: Callable[[str], Json]

    def total(self, contents: Mapping[str, str]) -> Json:
        """Sum of the shards' aggregates, as `sums.combine` gives it.

        Args:
            contents: content fingerprint of every shard's decisions, by shard.

        Raises:
            StoreError: aggregates do not belong together or to these rules, or cannot be read.
        """
        return self._sum("", {shard: (_digits(shard), contents[shard]) for shard in contents})

    def _sum(self, node: str, shards: Mapping[str, tuple[str, str]]) -> Json:
        made_from = self._made_from(shards)
        kept = self._kept(node, made_from)
        if kept is not None:
            return kept
        if len(shards) <= FAN:
            found = combine([self.read(shard) for shard in sorted(shards)], self.rules)
        else:
            children: dict[str, dict[str, tuple[str, str]]] = {}
            for shard, (digits, content) in sorted(shards.items()):
                children.setdefault(digits[len(node)], {})[shard] = (digits, content)
            parts = [self._sum(node + digit, own) for digit, own in sorted(children.items())]
            found = add_up(parts, self.rules)
        self._keep(node, made_from, found)
        return found

    def _made_from(self, shards: Mapping[str, tuple[str, str]]) -> str:
        contents = {shard: content for shard, (_, content) in shards.items()}
        return fingerprint.of_json([SCHEMA, [rule.to_dict() for rule in self.rules], contents])

    def _kept(self, node: str, made_from: str) -> Json | None:
        """The node's sum, if it is of these decisions and its bytes are those that were written."""
        try:
            head, body = self._file(node).read_bytes().split(b"\n", 1)
        except (FileNotFoundError, ValueError):
            return None
        if head.decode(errors="replace") != f"{made_from} {fingerprint.of_bytes(body)}":
            return None
        return json.loads(body)

    def _keep(self, node: str, made_from: str, found: Json) -> None:
        body = json.dumps(found).encode()
        head = f"{made_from} {fingerprint.of_bytes(body)}\n".encode()
        write_atomically(self._file(node), head + body)

    def _file(self, node: str) -> Path:
        return self.folder / f"all{node and '-'}{node}.json"


def _digits(shard: str) -> str:
    return fingerprint.of_text(shard)
