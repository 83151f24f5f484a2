"""How the encoder stands, from what is on record, and how it is written."""

import pytest

from influcoder_lib.report.standing import DistillationGap, distillation_gap, read_standing
from influcoder_lib.report.wording import encoder_tiles, fidelity_table

CLOSED = DistillationGap(2, 0, 0, 5, 0, ())


def champion(version, winner, **merits):
    return {"version": version, "winner": winner, **{f"merit_{k}": v for k, v in merits.items()}}


@pytest.mark.parametrize(
    ("summary", "merit", "by_hand"),
    [
        (champion("2", "challenger", challenger=0.4, champion=0.3, untrained=0.1), 0.4, False),
        (champion("1", "champion", challenger=0.2, champion=0.3, untrained=0.1), 0.3, False),
        (champion(None, "untrained", challenger=0.0, untrained=0.1), 0.1, False),
        (champion("1", "alias", challenger=0.4, champion=0.3, untrained=0.1), 0.3, True),
        (champion("1", "alias", challenger=0.2, champion=0.3, untrained=0.1), 0.3, False),
        (champion("1", "champion", challenger=0.25, champion=0.2, untrained=0.3), 0.2, False),
        (champion("2", "alias", challenger=0.4, champion=0.4, untrained=0.1), 0.4, False),
        (champion(None, "alias", challenger=0.2, untrained=0.1), 0.1, True),
        ({"version": "1"}, None, False),
    ],
)
def test_the_merit_is_that_of_the_encoder_in_use_and_only_a_person_chooses_a_worse_one(
    summary, merit, by_hand
):
    found = read_standing(summary, "2", {}, CLOSED)
    assert (found.in_use, found.merit) == (summary["version"], merit)
    assert found.chosen_by_hand == by_hand
    assert found.beaten_by_untrained == (summary.get("merit_untrained", 0.0) == 0.3)
    assert found.latest_in_use == (summary["version"] == "2")
    assert found.latest_merit == summary.get("merit_challenger")


def test_fidelity_is_listed_worst_first_and_shards_without_one_are_left_out():
    measured = {
        "sound": {"verdict": "sound", "per_query": 0.4, "low": 0.3, "high": 0.5, "queries": 5},
        "weaker": {"verdict": "weak", "per_query": 0.1},
        "weak": {"verdict": "weak", "per_query": 0.2},
        "failed": {"verdict": "failed", "per_query": 0.15},
        "unclear": {"verdict": "unknown", "per_query": None},
        "unmeasured": None,
    }
    found = read_standing(champion("2", "challenger"), "2", measured, CLOSED)
    assert [each.shard for each in found.fidelity] == [
        "failed",
        "weaker",
        "weak",
        "unclear",
        "sound",
    ]
    rows = fidelity_table(found).rows
    assert rows[0] == ("failed", "failed", "0.150", "—", "—", None, None)
    assert rows[-1] == ("sound", "sound", "0.400", "0.300 to 0.500", "—", 5, None)
    tiles = {tile.name: tile.value for tile in encoder_tiles(found)}
    assert tiles["fidelity by shard"] == "1 failed, 2 weak, 1 unknown, 1 sound"


def test_without_a_measurement_there_is_no_table_of_fidelity():
    found = read_standing(champion("2", "challenger"), "2", {"a": None}, CLOSED)
    assert fidelity_table(found) is None
    assert "fidelity by shard" not in [tile.name for tile in encoder_tiles(found)]


def test_many_shards_are_cut_to_the_worst():
    measured = {
        f"shard {i:02}": {"verdict": "sound", "per_query": i / 100, "low": 0.0, "high": 1.0}
        for i in range(40)
    }
    table = fidelity_table(read_standing(champion("2", "challenger"), "2", measured, CLOSED))
    assert len(table.rows) == 30
    assert table.rows[0][0] == "shard 00"
    assert table.note.endswith("10 better shards not shown.")


def test_what_the_distillation_set_lacks_is_counted():
    gap = distillation_gap(
        {"a": "1", "b": "1", "gone": "1"},
        {"a": "1", "b": "2", "c": "1", "d": "1"},
        ["q1", "q2", "withdrawn"],
        {"toxic": {"q1", "q3"}, "rude": {"q3", "q4"}},
    )
    assert gap == DistillationGap(4, 2, 1, 3, 2, ("rude",))
    assert not gap.is_closed


def test_the_tile_of_the_set_says_what_is_new_and_what_to_do(make_standing):
    behind = encoder_tiles(make_standing(gap=DistillationGap(4, 2, 1, 9, 1, ())))[-1]
    assert behind.value == "behind"
    assert behind.detail == (
        "2 of 4 shards new, 1 changed, 1 of 9 queries new; to include them: influcoder redistill"
    )
    closed = encoder_tiles(make_standing(gap=DistillationGap(1, 0, 0, 9, 0, ())))[-1]
    assert (closed.value, closed.detail) == ("up to date", "1 shard, 9 queries")


def test_the_latest_encoder_has_a_tile_where_it_is_not_the_one_in_use(make_standing):
    same = encoder_tiles(make_standing())
    assert [tile.name for tile in same] == ["encoder in use", "distillation set"]
    assert (same[0].value, same[0].detail) == ("version 2", "0.350 on the test split")
    other = encoder_tiles(make_standing(latest="3", latest_merit=0.31))
    assert (other[1].name, other[1].value) == ("latest trained", "version 3")
    assert other[1].detail == "0.310 on the test split, not in use"
    better = encoder_tiles(make_standing(latest="3", latest_merit=0.41))
    assert better[0].detail == "0.350 on the test split, chosen by hand"
