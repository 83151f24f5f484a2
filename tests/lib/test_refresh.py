"""The plan of what is out of date, by hand; `test_refresh_twin` has random graphs."""

from dataclasses import replace

import pytest

from influcoder_lib.errors import listed
from influcoder_lib.manifests import label
from influcoder_lib.refresh import (
    Facts,
    Step,
    as_json,
    grouped,
    in_order,
    plan,
    recipe,
    thaw,
    waiting,
)
from tests.lib.refresh_world import CORPUS, ENCODER, FEATURES, FROZEN, GRAPH, REPORT, SCORES, World


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


@pytest.mark.parametrize(
    ("behaviors", "reason"),
    [
        ({"rude": {"value": 1}, "toxic": {"value": 1}}, "behavior toxic added"),
        ({}, "behavior rude removed"),
        ({"toxic": {"value": 1}}, "behavior toxic added"),
        ({"rude": {"value": 2}}, "setting behaviors.rude.value: 1 → 2"),
    ],
    ids=str,
)
def test_a_behavior_that_came_or_went_is_named_and_not_its_settings(world, behaviors, reason):
    world.settings["encoder"] = {"behaviors": {"rude": {"value": 1}}}
    world.refresh()
    world.settings["encoder"] = {"behaviors": behaviors}
    assert reasons(world.plan())["encoder"] == reason


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


@pytest.mark.parametrize("key", [("features", "b"), ("frozen", None), ("report", None)])
def test_what_is_damaged_is_made_anew_and_what_follows_from_it_is_as_before(world, key):
    world.damaged = frozenset([key])
    (step, *after) = world.plan()
    assert ((step.asset, step.shard), step.reason) == (key, "its files are damaged")
    assert step.ready
    assert all(each.reason.endswith(" is made anew") for each in after)
    assert world.refresh() == [key]
    made = world.facts().recorded[key]
    facts = replace(world.facts(), damaged=frozenset([key, ("corpus", "a")]))
    assert facts.after_making(key, *made).damaged == {("corpus", "a")}


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


def test_of_a_home_s_facts_those_about_one_shard_say_how_to_make_it(world):
    world.damaged = frozenset([("corpus", "a"), ("corpus", "b")])
    world.failed = {("scores", "a"): "1", ("scores", "b"): "2", ("report", None): "3"}
    facts = replace(world.facts(), shard_sources={"queries_of": {"a": "qa", "b": "qb"}})
    by_name = {node.name: node for node in world.nodes}
    own = facts.about("b", by_name)
    for node in world.nodes:
        if node.sharded:
            assert recipe(node, "b", by_name, own) == recipe(node, "b", by_name, facts)
    assert own.shards == {"b": "b1"}
    assert {shard for _, shard in own.recorded} == {None, "b"}
    assert own.failed == {("scores", "b"): "2", ("report", None): "3"}
    assert own.damaged == {("corpus", "b")}
    assert own.shard_sources == {"queries_of": {"b": "qb"}}


def test_steps_with_one_reason_are_one_line_for_people(world):
    world.shards |= {"a": "a2", "b": "b2"}
    found = [(each.asset, each.shards, each.reason) for each in grouped(world.plan())]
    assert found == [
        ("corpus", ("a", "b"), "shard changed"),
        ("features", ("a", "b"), "corpus is made anew"),
        ("scores", ("a", "b"), "corpus is made anew"),
        ("report", (), "scores/a is made anew"),
    ]
    assert [listed(each.shards, 1) for each in grouped(world.plan())] == ["a and 1 more"] * 3 + [""]


def test_a_failed_single_input_stops_everything_after_it_and_that_waits():
    home = World(list(GRAPH), {"a": "1"}, {"model": "m", "queries": "q"}, {})
    home.failing = frozenset({("frozen", None)})
    assert list(map(label, home.refresh())) == ["corpus/a", "features/a", "frozen"]
    assert list(map(label, waiting(GRAPH, home.facts()))) == ["encoder", "scores/a", "report"]


def test_what_is_made_of_a_shard_that_failed_waits_for_it_and_merged_ones_do_not(world):
    assert waiting(GRAPH, world.facts()) == []
    world.failing = frozenset({("corpus", "b"), ("corpus", "c")})
    world.shards |= {"b": "b2", "c": "c1"}
    world.refresh()
    left = ["features/b", "features/c", "scores/b", "scores/c"]
    assert list(map(label, waiting(GRAPH, world.facts()))) == left
    world.shards |= {"b": "b3"}
    assert list(map(label, waiting(GRAPH, world.facts()))) == ["features/c", "scores/c"]


def test_the_plan_as_json_has_asset_shard_and_reason(world):
    world.shards["b"] = "b2"
    assert as_json(world.plan())[0] == {"asset": "corpus", "shard": "b", "reason": "shard changed"}


def test_nodes_are_ordered_and_a_graph_without_an_order_is_an_error():
    assert in_order(GRAPH[::-1]) == GRAPH
    with pytest.raises(ValueError, match="no order for"):
        in_order([replace(CORPUS, inputs=("scores",)), SCORES])
    with pytest.raises(ValueError, match="no order for"):
        in_order([FEATURES])
