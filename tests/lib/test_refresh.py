"""The plan of what is out of date: by hand, and against a twin that recomputes everything."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influcoder_lib import fingerprint
from influcoder_lib.refresh import (
    Facts,
    Key,
    Node,
    Step,
    as_json,
    grouped,
    in_order,
    label,
    plan,
    recipe,
    thaw,
)
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
    made: list[Key] = field(default_factory=list)

    def facts(self) -> Facts:
        recorded = {key: value for key, value in self.recorded.items() if self.lives(key)}
        return Facts(self.shards, self.sources, self.settings, recorded, self.failed)

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
            self.recorded[key] = (current, self.content(key, current))
            self.failed.pop(key, None)

    def refresh(self) -> list[Key]:
        """Make what is ready, until the plan is empty; what was made."""
        self.made = []
        while steps := self.plan():
            ready = [step for step in steps if step.ready]
            assert ready, f"no step can be made: {steps}"
            for step in ready:
                self.make(step)
        return self.made


@pytest.fixture
def world() -> World:
    """A home in which everything is made."""
    home = World(
        nodes=list(GRAPH),
        shards={"a": "a1", "b": "b1"},
        sources={"model": "m1", "queries": "q1"},
        settings={"features": {"sketch": {"dimensions": 64, "seed": 0}}, "encoder": {"epochs": 2}},
    )
    home.refresh()
    return home


def reasons(steps: list[Step]) -> dict[str, str]:
    return {label((step.asset, step.shard)): step.reason for step in steps}


def test_a_new_home_makes_everything_once_inputs_first():
    home = World(list(GRAPH), {"a": "1", "b": "1"}, {"model": "m", "queries": "q"}, {})
    steps = home.plan()
    assert set(reasons(steps).values()) == {"never made"}
    assert [(step.asset, step.shard) for step in steps] == home.everything()
    assert [label((s.asset, s.shard)) for s in steps if s.ready] == ["corpus/a", "corpus/b"]
    made = home.refresh()
    assert sorted(map(label, made)) == sorted(map(label, home.everything()))


def test_nothing_is_out_of_date_when_everything_is_made(world):
    assert world.plan() == []
    assert world.refresh() == []


def test_a_changed_shard_reaches_its_own_chain_and_what_is_merged(world):
    world.shards["b"] = "b2"
    assert reasons(world.plan()) == {
        "corpus/b": "shard changed",
        "features/b": "corpus/b is made anew",
        "scores/b": "corpus/b is made anew",
        "report": "scores/b is made anew",
    }
    assert [step.ready for step in world.plan()] == [True, False, False, False]
    made = ["corpus/b", "features/b", "scores/b", "report"]
    assert list(map(label, world.refresh())) == made


def test_a_new_shard_is_made_and_merged(world):
    world.shards["c"] = "c1"
    found = reasons(world.plan())
    assert found.pop("report") == "scores/c is made anew"
    assert found == dict.fromkeys(["corpus/c", "features/c", "scores/c"], "never made")
    assert "report" in map(label, world.refresh())


def test_a_shard_that_vanished_leaves_what_was_merged(world):
    del world.shards["a"]
    assert reasons(world.plan()) == {"report": "scores/a is gone"}
    world.refresh()
    assert sorted(world.recorded["report", None][0].inputs) == ["encoder", "scores/b"]


def test_equal_content_goes_no_further(world):
    """One more blank line in a shard, say: its samples are the same."""
    world.shards["b"] = "b2"
    world.make(world.plan()[0])
    fresh = world.recorded["corpus", "b"][0]
    world.recorded["corpus", "b"] = (fresh, world.recorded["features", "b"][0].inputs["corpus/b"])
    assert world.plan() == []


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"sketch": {"dimensions": 128, "seed": 0}}, "setting sketch.dimensions: 64 → 128"),
        ({"sketch": {"dimensions": 64, "seed": 0}, "b": "x"}, 'setting b: unset → "x"'),
        ({"sketch": {"dimensions": 64}}, "setting sketch.seed: 0 → unset"),
        ({"sketch": {"dimensions": 64, "seed": None}}, "setting sketch.seed: 0 → null"),
        ({"sketch": {"dimensions": 64, "seed": False}}, "setting sketch.seed: 0 → false"),
        ({"sketch": {"dimensions": 64, "seed": [0]}}, "setting sketch.seed: 0 → [0]"),
    ],
    ids=str,
)
def test_a_changed_setting_is_named_with_both_values(world, settings, reason):
    world.settings["features"] = settings
    assert reasons(world.plan()) == {"features/a": reason, "features/b": reason}
    assert all(step.ready for step in world.plan())


@pytest.mark.parametrize("extra", [None, {}], ids=["null", "empty"])
def test_a_setting_that_is_there_but_empty_counts(world, extra):
    world.settings["encoder"] = {"epochs": 2, "extra": extra}
    found = reasons(world.plan())
    assert found["encoder"].startswith("setting extra: ")
    world.refresh()
    del world.settings["encoder"]["extra"]
    assert reasons(world.plan())["encoder"].startswith("setting extra: ")


def test_a_tuple_is_the_list_it_is_written_as(world):
    world.settings["encoder"] = {"epochs": 2, "seeds": [0, 1]}
    world.refresh()
    world.settings["encoder"] = {"seeds": (0, 1), "epochs": 2}
    assert world.plan() == []


def test_a_new_code_version_is_named_and_comes_first(world):
    world.nodes[3] = replace(ENCODER, code_version="2")
    world.settings["encoder"] = {"epochs": 3}
    assert reasons(world.plan())["encoder"] == "code version 1 → 2"
    assert "scores/a" in map(label, world.refresh())


def test_a_changed_source_is_named(world):
    world.sources["model"] = "m2"
    assert reasons(world.plan()) == dict.fromkeys(["features/a", "features/b"], "model changed")


def test_an_input_that_comes_or_goes_is_named(world):
    world.nodes[3] = replace(ENCODER, sources=("queries",))
    assert reasons(world.plan())["encoder"] == "queries is new"
    world.refresh()
    world.nodes[3] = ENCODER
    assert reasons(world.plan())["encoder"] == "queries is gone"


def test_a_frozen_node_does_not_move_with_its_inputs(world):
    world.sources["model"] = "m2"
    made = list(map(label, world.refresh()))
    assert made == ["features/a", "features/b"]
    assert world.plan() == []


@pytest.mark.parametrize("change", ["settings", "source", "code"])
def test_a_frozen_node_moves_with_settings_sources_and_code(world, change):
    if change == "settings":
        world.settings["frozen"] = {"seed": 1}
    elif change == "source":
        world.sources["queries"] = "q2"
    else:
        world.nodes[2] = replace(FROZEN, code_version="2")
    made = list(map(label, world.refresh()))
    assert made == ["frozen", "encoder", "scores/a", "scores/b", "report"]


def test_a_frozen_node_that_moves_waits_for_its_inputs(world):
    world.sources |= {"model": "m2", "queries": "q2"}
    step = next(step for step in world.plan() if step.asset == "frozen")
    assert (step.reason, step.ready) == ("queries changed", False)


def test_a_recipe_that_failed_is_not_tried_again_until_it_changes(world):
    world.shards["b"] = "b2"
    world.failing = frozenset({("features", "b")})
    assert "features/b" in map(label, world.refresh())
    assert world.plan() == []
    world.shards["a"] = "a2"
    assert "features/b" not in reasons(world.plan())
    assert "features/b" not in map(label, world.refresh())
    world.shards["b"] = "b3"
    world.failing = frozenset()
    assert "features/b" in map(label, world.refresh())
    assert world.plan() == []
    assert world.failed == {}


def test_what_failed_is_waited_for_when_its_inputs_are_made_anew(world):
    world.failing = frozenset({("encoder", None)})
    world.settings["encoder"] = {"epochs": 3}
    world.refresh()
    world.failing = frozenset()
    world.sources["queries"] = "q2"
    world.nodes[4] = replace(SCORES, code_version="2")
    ready = {label((step.asset, step.shard)): step.ready for step in world.plan()}
    assert ready == {
        "frozen": True,
        "encoder": False,
        "scores/a": False,
        "scores/b": False,
        "report": False,
    }
    assert len(world.refresh()) == len(ready)


def test_what_needs_a_failed_artifact_is_left_out_and_the_rest_is_made():
    home = World(list(GRAPH), {"a": "1", "b": "1"}, {"model": "m", "queries": "q"}, {})
    home.failing = frozenset({("corpus", "a")})
    made = set(map(label, home.refresh()))
    everything = set(map(label, home.everything()))
    assert made == everything - {"features/a", "scores/a"}
    assert sorted(home.recorded["report", None][0].inputs) == ["encoder", "scores/b"]
    home.failing = frozenset({("encoder", None)})
    home.shards["a"] = "2"
    assert "scores/a" in map(label, home.refresh())


def test_what_was_made_before_is_not_mixed_with_the_inputs_of_what_failed(world):
    """Scores of the old rows beside the new rows would be worse than no scores."""
    world.nodes = [
        replace(SCORES, inputs=("features", "corpus")) if n == SCORES else n for n in GRAPH
    ]
    world.nodes[5] = replace(REPORT, inputs=("scores",))
    world.refresh()
    world.failing = frozenset({("features", "b")})
    world.shards |= {"a": "a2", "b": "b2"}
    made = ["corpus/a", "corpus/b", "features/a", "features/b", "scores/a", "report"]
    assert list(map(label, world.refresh())) == made
    assert world.plan() == []
    world.shards["b"] = "b3"
    world.failing = frozenset()
    assert list(map(label, world.refresh())) == ["corpus/b", "features/b", "scores/b", "report"]


def test_a_thawed_node_is_made_again_if_its_inputs_have_changed(world):
    assert thaw(FROZEN, GRAPH, world.facts()) is None
    world.shards["c"] = "c1"
    world.refresh()
    step = thaw(FROZEN, GRAPH, world.facts())
    assert step == Step("frozen", None, "features/c is new", ready=True)
    world.make(step)
    assert thaw(FROZEN, GRAPH, world.facts()) is None
    assert list(map(label, world.refresh())) == [
        "encoder",
        "scores/a",
        "scores/b",
        "scores/c",
        "report",
    ]
    del world.recorded["frozen", None]
    assert thaw(FROZEN, GRAPH, world.facts()) is None


def test_a_source_of_which_each_shard_has_a_part_moves_the_shards_concerned(world):
    nodes = [replace(SCORES, sources=("reviewed",)) if n == SCORES else n for n in GRAPH]
    parts = {"a": "none", "b": "none"}

    def facts() -> Facts:
        return replace(world.facts(), shard_sources={"reviewed": parts})

    by_name = {node.name: node for node in nodes}
    for shard in "ab":
        current = recipe(by_name["scores"], shard, by_name, facts())
        world.recorded["scores", shard] = (current, world.recorded["scores", shard][1])
    assert plan(nodes, facts()) == []
    parts["b"] = "one entry"
    assert reasons(plan(nodes, facts())) == {
        "scores/b": "reviewed changed",
        "report": "scores/b is made anew",
    }


def test_steps_with_one_reason_are_one_line_for_people(world):
    world.shards |= {"a": "a2", "b": "b2"}
    found = [(each.asset, each.shards, each.reason) for each in grouped(world.plan())]
    assert found == [
        ("corpus", ("a", "b"), "shard changed"),
        ("features", ("a", "b"), "corpus is made anew"),
        ("scores", ("a", "b"), "corpus is made anew"),
        ("report", (), "scores/a is made anew"),
    ]
    assert [each.names(1) for each in grouped(world.plan())] == ["a and 1 more"] * 3 + [""]


def test_a_failed_single_input_stops_everything_after_it():
    home = World(list(GRAPH), {"a": "1"}, {"model": "m", "queries": "q"}, {})
    home.failing = frozenset({("frozen", None)})
    assert list(map(label, home.refresh())) == ["corpus/a", "features/a", "frozen"]


def test_the_plan_as_json_has_asset_shard_and_reason(world):
    world.shards["b"] = "b2"
    assert as_json(world.plan())[0] == {"asset": "corpus", "shard": "b", "reason": "shard changed"}


def test_nodes_are_ordered_and_a_graph_without_an_order_is_an_error():
    assert in_order(GRAPH[::-1]) == GRAPH
    with pytest.raises(ValueError, match="no order for"):
        in_order([replace(CORPUS, inputs=("scores",)), SCORES])
    with pytest.raises(ValueError, match="no order for"):
        in_order([FEATURES])


# --- a brute-force twin -----------------------------------------------------------------------

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
