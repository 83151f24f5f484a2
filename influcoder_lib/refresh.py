"""The plan of what is out of date. Pure: recorded recipes and current facts in, steps out.

An artifact is up to date when the recipe it was made from (content of its inputs, settings, code
version) equals the current one. Times and git hashes never count. Skipping work goes through this
plan and nothing else.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from influcoder_lib.errors import listed
from influcoder_lib.manifests import Key, Recipe, label, source_input, source_of

_NO_SETTINGS: Mapping[str, Any] = {}
_BEHAVIORS = "behaviors"
"""The key of a node's settings that has something, or a name at least, for each behavior."""


@dataclass(frozen=True)
class Node:
    """One asset of the graph.

    `inputs` are other nodes: a sharded node takes the same shard of a sharded input and the whole
    of an unsharded one; an unsharded node takes every shard. `sources` name fingerprints of things
    outside the graph; the source `shard` is the shard's own file. A frozen node, once made, moves
    with its settings, sources and code only, never with its inputs; `thaw` says what they would do.
    """

    name: str
    sharded: bool
    inputs: tuple[str, ...]
    sources: tuple[str, ...]
    code_version: str
    frozen: bool = False


@dataclass(frozen=True)
class Facts:
    """What is true now: shard files, other sources, settings by node, and what was recorded.

    `recorded` maps (asset, shard) to (recipe, content fingerprint); `failed` maps it to the
    fingerprint of the recipe that failed last. `shard_sources` maps the name of a source that has
    a part for each shard to the fingerprints of the parts. `damaged` are artifacts whose files are
    not those that were recorded.
    """

    shards: Mapping[str, str]
    sources: Mapping[str, str]
    settings: Mapping[str, Mapping[str, Any]]
    recorded: Mapping[Key, tuple[Recipe, str]]
    failed: Mapping[Key, str]
    shard_sources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    damaged: frozenset[Key] = frozenset()

    def source(self, name: str, shard: str | None) -> str:
        """Fingerprint of a source, or of the part of it that concerns the shard."""
        if name == "shard":
            return self.shards[str(shard)]
        if name in self.shard_sources:
            return self.shard_sources[name][str(shard)]
        return self.sources[name]

    def about(self, shard: str, assets: Iterable[str]) -> "Facts":
        """What of it concerns the making of one shard's artifacts of these assets."""
        keys = {(asset, each) for asset in assets for each in (None, shard)}
        return Facts(
            {shard: self.shards[shard]},
            self.sources,
            self.settings,
            {key: self.recorded[key] for key in keys & self.recorded.keys()},
            {key: self.failed[key] for key in keys & self.failed.keys()},
            {name: {shard: parts[shard]} for name, parts in self.shard_sources.items()},
            self.damaged & keys,
        )

    def after_making(self, key: Key, made: Recipe, content: str) -> "Facts":
        """What is true once an artifact was made from a recipe."""
        failed = {other: recipe for other, recipe in self.failed.items() if other != key}
        recorded = {**self.recorded, key: (made, content)}
        return replace(self, recorded=recorded, failed=failed, damaged=self.damaged - {key})

    def after_failing(self, key: Key, tried: Recipe) -> "Facts":
        """What is true once making an artifact from a recipe has failed."""
        return replace(self, failed={**self.failed, key: tried.fingerprint})

    def after_looking(self, name: str, shard: str | None, content: str) -> "Facts":
        """What is true once a source, or the part of it that concerns a shard, is another one."""
        if name not in self.shard_sources:
            return replace(self, sources={**self.sources, name: content})
        parts = {**self.shard_sources[name], str(shard): content}
        return replace(self, shard_sources={**self.shard_sources, name: parts})


@dataclass(frozen=True)
class Step:
    """One artifact to make, and why; `ready` when none of its inputs is to be made first."""

    asset: str
    shard: str | None
    reason: str
    ready: bool


def plan(nodes: Sequence[Node], facts: Facts, among: Collection[Key] | None = None) -> list[Step]:
    """Steps in dependency order; empty when everything is up to date.

    A step whose very recipe failed before is left out, and so is every step that takes its
    artifact as it is, because that would mix what is old with what is new. A merged node goes on
    without: it takes the shard's artifact of before.

    With `among`, only these artifacts are looked at: all others are taken to be up to date, or
    left out. That is so for those that were not in the plan, as long as nothing but steps of that
    plan was made, or has failed, since.
    """
    by_name = {node.name: node for node in nodes}
    compare = _Comparison()
    planned: dict[Key, Step] = {}
    blocked: set[Key] = set()
    for node in in_order(nodes):
        for shard in _shards_of(node, facts, among):
            key = (node.name, shard)
            step = _step(node, shard, by_name, facts, planned, compare)
            if step is None:
                continue
            current = recipe(node, shard, by_name, facts)
            has_failed = step.ready and facts.failed.get(key) == current.fingerprint
            if has_failed or not blocked.isdisjoint(_single_inputs(node, shard, by_name)):
                blocked.add(key)
            else:
                planned[key] = step
    return list(planned.values())


def waiting(nodes: Sequence[Node], facts: Facts) -> list[Key]:
    """What the plan leaves out because something that it is made from has failed: it was never
    made, is out of date, or may be so once that is mended. What failed itself is not among it."""
    by_name = {node.name: node for node in nodes}
    compare = _Comparison()
    planned = {(step.asset, step.shard) for step in plan(nodes, facts)}
    left_out: set[Key] = set()
    found: list[Key] = []
    for node in in_order(nodes):
        for shard in _shards_of(node, facts, None):
            key = (node.name, shard)
            if key in planned:
                continue
            current, made = recipe(node, shard, by_name, facts), facts.recorded.get(key)
            has_failed = facts.failed.get(key) == current.fingerprint
            outdated = (
                made is None or key in facts.damaged or bool(compare(made[0], current, node.frozen))
            )
            follows = not node.frozen and not left_out.isdisjoint(
                _single_inputs(node, shard, by_name)
            )
            if has_failed or outdated or follows:
                left_out.add(key)
            if (outdated or follows) and not has_failed:
                found.append(key)
    return found


def _shards_of(node: Node, facts: Facts, among: Collection[Key] | None) -> Sequence[str | None]:
    """Shards for which the node is looked at; [None] for all of an unsharded one."""
    if among is not None:
        return sorted((s for name, s in among if name == node.name), key=lambda s: s or "")
    return sorted(facts.shards) if node.sharded else [None]


def recipe(node: Node, shard: str | None, by_name: Mapping[str, Node], facts: Facts) -> Recipe:
    """The current recipe of one artifact, from the recorded content of its inputs."""
    inputs = {
        label(key): facts.recorded[key][1]
        for key in input_keys(node, shard, by_name, facts)
        if key in facts.recorded
    }
    inputs |= {source_input(name): facts.source(name, shard) for name in node.sources}
    return Recipe(inputs, facts.settings.get(node.name, _NO_SETTINGS), node.code_version)


def input_keys(
    node: Node, shard: str | None, by_name: Mapping[str, Node], facts: Facts
) -> list[Key]:
    """The artifacts that one artifact is made from."""
    keys: list[Key] = []
    for name in node.inputs:
        if not by_name[name].sharded:
            keys.append((name, None))
        elif node.sharded:
            keys.append((name, shard))
        else:
            keys.extend((name, each) for each in sorted(facts.shards))
    return keys


def thaw(node: Node, nodes: Sequence[Node], facts: Facts) -> Step | None:
    """The step that makes a frozen node again from its inputs of today; None if it was never made,
    or if nothing that it is made from has changed."""
    by_name = {each.name: each for each in nodes}
    made = facts.recorded.get((node.name, None))
    if made is None:
        return None
    reason = _Comparison()(made[0], recipe(node, None, by_name, facts), frozen=False)
    return Step(node.name, None, reason, ready=True) if reason else None


def _single_inputs(node: Node, shard: str | None, by_name: Mapping[str, Node]) -> list[Key]:
    """The artifacts that one artifact is made from, but for those that are merged into it."""
    return [
        (name, shard if by_name[name].sharded else None)
        for name in node.inputs
        if node.sharded or not by_name[name].sharded
    ]


def in_order(nodes: Sequence[Node]) -> list[Node]:
    """Nodes with every input before what is made from it, otherwise in the given order.

    Raises:
        ValueError: the graph has a cycle or an input that is no node.
    """
    done: list[Node] = []
    left = list(nodes)
    while left:
        names = {node.name for node in done}
        free = [node for node in left if set(node.inputs) <= names]
        if not free:
            raise ValueError(f"no order for {[node.name for node in left]}")
        done.append(free[0])
        left.remove(free[0])
    return done


def _step(
    node: Node,
    shard: str | None,
    by_name: Mapping[str, Node],
    facts: Facts,
    planned: Mapping[Key, Step],
    compare: "_Comparison",
) -> Step | None:
    key = (node.name, shard)
    inputs = input_keys(node, shard, by_name, facts)
    waiting = next((each for each in inputs if each in planned), None)
    made = facts.recorded.get(key)
    difference = "never made"
    if key in facts.damaged:
        difference = "its files are damaged"
    elif made is not None:
        difference = compare(made[0], recipe(node, shard, by_name, facts), node.frozen)
    if not difference and waiting and not node.frozen:
        difference = f"{label(waiting)} is made anew"
    if not difference or _never_possible(node, inputs, facts, planned):
        return None
    return Step(node.name, shard, difference, ready=waiting is None)


def _never_possible(
    node: Node, inputs: Sequence[Key], facts: Facts, planned: Mapping[Key, Step]
) -> bool:
    """A single missing input, or all shards of a merged one missing, with none of it planned."""
    by_asset: dict[str, list[Key]] = {name: [] for name in node.inputs}
    for each in inputs:
        by_asset[each[0]].append(each)
    return any(
        not any(each in facts.recorded or each in planned for each in keys)
        for keys in by_asset.values()
    )


class _Comparison:
    """Says why a recorded recipe is not the current one, in words; empty if they are equal.

    Settings are compared once for all recipes that hold the same two mappings.
    """

    def __init__(self) -> None:
        self._said: dict[tuple[int, int], str] = {}

    def __call__(self, made: Recipe, current: Recipe, frozen: bool) -> str:
        if made.code_version != current.code_version:
            return f"code version {made.code_version} → {current.code_version}"
        pair = (id(made.settings), id(current.settings))
        if pair not in self._said:
            self._said[pair] = _difference_of_settings(made.settings, current.settings)
        return self._said[pair] or _difference_of_inputs(made.inputs, current.inputs, frozen)


def _difference_of_settings(made: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    if difference := _difference_of_behaviors(made, current):
        return difference
    before, after = _flat(made), _flat(current)
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            return f"setting {name}: {before.get(name, 'unset')} → {after.get(name, 'unset')}"
    return ""


def _difference_of_behaviors(made: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """Of settings that have something for each behavior: which came, or went, as a whole."""
    if not (_BEHAVIORS in made and _BEHAVIORS in current):
        return ""
    before, after = set(made[_BEHAVIORS]), set(current[_BEHAVIORS])
    if added := sorted(after - before):
        return f"behavior {listed(added)} added"
    return f"behavior {listed(sorted(before - after))} removed" if before - after else ""


def _difference_of_inputs(made: Mapping[str, str], current: Mapping[str, str], frozen: bool) -> str:
    if made == current:
        return ""
    for name in sorted(made.keys() | current.keys()):
        if made.get(name) == current.get(name):
            continue
        source = source_of(name)
        if frozen and source is None:
            continue
        what = source or name
        if name not in made:
            return f"{what} is new"
        return f"{what} changed" if name in current else f"{what} is gone"
    return ""


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """JSON text of every leaf by its dotted name; an empty mapping is a leaf too."""
    if isinstance(value, Mapping) and (value or not prefix):
        return {
            key: leaf
            for name, inner in value.items()
            for key, leaf in _flat(inner, f"{prefix}.{name}" if prefix else str(name)).items()
        }
    return {prefix: json.dumps(value, ensure_ascii=False)}


@dataclass(frozen=True)
class Group:
    """Steps of one asset that have one reason; `shards` are empty for an unsharded asset."""

    asset: str
    shards: tuple[str, ...]
    reason: str


def grouped(steps: Sequence[Step]) -> list[Group]:
    """The plan for people: thousands of shards that have one reason are one line of it."""
    groups: dict[tuple[str, str], list[str]] = {}
    for step in steps:
        reason = step.reason.replace(f"/{step.shard} ", " ") if step.shard else step.reason
        shards = groups.setdefault((step.asset, reason), [])
        if step.shard:
            shards.append(step.shard)
    return [Group(asset, tuple(shards), reason) for (asset, reason), shards in groups.items()]


def as_json(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """The plan as a list of `{asset, shard, reason}`."""
    return [
        {name: value for name, value in asdict(step).items() if name != "ready"} for step in steps
    ]
