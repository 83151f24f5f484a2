"""A home without a disk, for the tests of the plan: making an artifact is a hash of its recipe."""

import copy
from dataclasses import dataclass, field, replace
from typing import Any

from influcoder_lib import fingerprint
from influcoder_lib.manifests import Key, label
from influcoder_lib.refresh import Facts, Node, Step, in_order, plan, recipe
from influcoder_lib.store import Recipe

CORPUS = Node("corpus", True, (), ("shard",), "1")
FEATURES = Node("features", True, ("corpus",), ("model",), "1")
FROZEN = Node("frozen", False, ("features",), ("queries",), "1", frozen=True)
ENCODER = Node("encoder", False, ("frozen",), (), "1")
SCORES = Node("scores", True, ("corpus", "encoder"), (), "1")
REPORT = Node("report", False, ("scores", "encoder"), (), "1")
GRAPH = [CORPUS, FEATURES, FROZEN, ENCODER, SCORES, REPORT]


@dataclass
class World:
    """What a home holds; `content` is what making an artifact from a recipe gives."""

    nodes: list[Node]
    shards: dict[str, str]
    sources: dict[str, str]
    settings: dict[str, dict[str, Any]]
    failing: frozenset[Key] = frozenset()
    contents: int = 0
    recorded: dict[Key, tuple[Recipe, str]] = field(default_factory=dict)
    failed: dict[Key, str] = field(default_factory=dict)
    damaged: frozenset[Key] = frozenset()
    made: list[Key] = field(default_factory=list)

    def facts(self) -> Facts:
        recorded = {key: value for key, value in self.recorded.items() if self.lives(key)}
        facts = Facts(self.shards, self.sources, self.settings, recorded, self.failed)
        return replace(facts, damaged=self.damaged)

    def lives(self, key: Key) -> bool:
        return key[1] is None or key[1] in self.shards

    def plan(self) -> list[Step]:
        return plan(self.nodes, self.facts())

    def everything(self) -> list[Key]:
        return [
            (node.name, shard)
            for node in in_order(self.nodes)
            for shard in (sorted(self.shards) if node.sharded else [None])
        ]

    def content(self, key: Key, current: Recipe) -> str:
        """Content of an artifact; with few contents, other recipes often give equal ones."""
        digest = fingerprint.of_text(label(key), current.fingerprint)
        return str(int(digest[:8], 16) % self.contents) if self.contents else digest

    def make(self, step: Step) -> None:
        key: Key = (step.asset, step.shard)
        by_name = {node.name: node for node in self.nodes}
        current = recipe(by_name[step.asset], step.shard, by_name, self.facts())
        self.made.append(key)
        if key in self.failing:
            self.failed[key] = current.fingerprint
        else:
            # What is on record does not move with the settings of today.
            stored = replace(current, settings=copy.deepcopy(current.settings))
            self.recorded[key] = (stored, self.content(key, current))
            self.failed.pop(key, None)
            self.damaged -= {key}

    def refresh(self) -> list[Key]:
        """Make what is ready, until the plan is empty; what was made."""
        self.made = []
        while steps := self.plan():
            ready = [step for step in steps if step.ready]
            assert ready, f"no step can be made: {steps}"
            for step in ready:
                self.make(step)
        return self.made
