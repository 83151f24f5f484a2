"""The plan against a brute-force twin that recomputes every recipe, on random graphs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from influcoder_lib import fingerprint
from influcoder_lib.manifests import Key, label
from influcoder_lib.refresh import Node, plan
from influcoder_lib.store import Recipe
from tests.lib.refresh_world import CORPUS, World

NAMES = "nopqr"
values = st.none() | st.booleans() | st.integers(0, 1) | st.just({}) | st.just({"deep": 1})
some_settings = st.dictionaries(st.sampled_from("xy"), values, max_size=2)


@st.composite
def graphs(draw: st.DrawFn) -> list[Node]:
    nodes: list[Node] = []
    for name in NAMES[: draw(st.integers(1, len(NAMES)))]:
        sharded = draw(st.booleans())
        inputs = draw(st.lists(st.sampled_from(nodes or [CORPUS]), unique=True, max_size=3))
        sources = {"s", "t", *(["shard"] if sharded else [])}
        nodes.append(
            Node(
                name,
                sharded,
                tuple(node.name for node in inputs if node in nodes),
                tuple(draw(st.lists(st.sampled_from(sorted(sources)), unique=True, max_size=2))),
                draw(st.sampled_from("12")),
                draw(st.integers(0, 3)) == 0,
            )
        )
    return nodes


@st.composite
def changes(draw: st.DrawFn, nodes: list[Node]) -> dict[str, Any]:
    """One state of everything outside the store."""
    shards = draw(st.dictionaries(st.sampled_from("abc"), st.sampled_from("12"), min_size=1))
    keys = [(node.name, s) for node in nodes for s in (shards if node.sharded else [None])]
    return {
        "nodes": [replace(node, code_version=draw(st.sampled_from("112"))) for node in nodes],
        "shards": shards,
        "sources": {name: draw(st.sampled_from("112")) for name in "st"},
        "settings": {node.name: draw(some_settings) for node in nodes},
        "failing": frozenset(draw(st.lists(st.sampled_from(keys), max_size=2))),
    }


histories = graphs().flatmap(
    lambda nodes: st.tuples(st.just(nodes), st.lists(changes(nodes), min_size=1, max_size=4))
)


def moves(node: Node, inputs: Mapping[str, str], settings: Any, made: Recipe | None) -> bool:
    """Whether an artifact has to be made, told from its whole recipe."""
    if made is None:
        return True
    before = made.inputs
    if node.frozen:
        inputs = {name: value for name, value in inputs.items() if name.startswith("source:")}
        before = {name: value for name, value in before.items() if name.startswith("source:")}
    now = fingerprint.of_json([dict(inputs), settings, node.code_version])
    return now != fingerprint.of_json([dict(before), dict(made.settings), made.code_version])


def twin(home: World) -> tuple[dict[Key, tuple[Recipe, str]], list[Key]]:
    """Recompute every recipe from scratch, inputs first: what is then on record, what was made."""
    recorded, made = dict(home.facts().recorded), []
    blocked: set[Key] = set()
    kinds = {node.name: node for node in home.nodes}
    for key in home.everything():
        name, shard = key
        node, inputs, possible, waits = kinds[name], {}, True, False
        for each in node.inputs:
            if not kinds[each].sharded:
                needed: list[Key] = [(each, None)]
            else:
                needed = [(each, s) for s in ([shard] if node.sharded else sorted(home.shards))]
            there = [other for other in needed if other in recorded]
            possible = possible and bool(there)
            is_merged = kinds[each].sharded and not node.sharded
            waits = waits or (not is_merged and needed[0] in blocked)
            inputs |= {label(other): recorded[other][1] for other in there}
        for source in node.sources:
            value = home.shards[str(shard)] if source == "shard" else home.sources[source]
            inputs[f"source:{source}"] = value
        options = home.settings[name]
        current = Recipe(inputs, options, node.code_version)
        before = recorded[key][0] if key in recorded else None
        if not possible or not moves(node, inputs, options, before):
            continue
        if waits or home.failed.get(key) == current.fingerprint:
            blocked.add(key)
            continue
        made.append(key)
        if key in home.failing:
            blocked.add(key)
        else:
            recorded[key] = (current, home.content(key, current))
    return recorded, made


@settings(max_examples=300)
@given(histories, st.sampled_from([0, 1, 2]))
def test_following_the_plan_gives_what_recomputing_everything_from_scratch_does(history, contents):
    nodes, states = history
    home = World(nodes, {}, {}, {}, contents=contents)
    for state in states:
        for name, value in state.items():
            setattr(home, name, value)
        recorded, made = twin(home)
        assert sorted(map(label, home.refresh())) == sorted(map(label, made))
        assert home.facts().recorded == recorded
        assert home.refresh() == []


@settings(max_examples=150)
@given(histories, st.sampled_from([0, 1, 2]), st.randoms(use_true_random=False))
def test_looking_among_the_steps_of_the_plan_is_enough_while_nothing_else_moves(
    history, contents, dice
):
    nodes, states = history
    home = World(nodes, {}, {}, {}, contents=contents)
    for state in states:
        for name, value in state.items():
            setattr(home, name, value)
        steps = home.plan()
        while ready := [step for step in steps if step.ready]:
            home.make(dice.choice(ready))
            among = {(step.asset, step.shard) for step in steps}
            steps = plan(home.nodes, home.facts(), among)
            assert steps == home.plan()
