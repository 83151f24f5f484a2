"""What is told of a run's checks."""

import dagster as dg

from influcoder_assets.commands.driver import failed_checks

ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN


def looked(
    name: str, shard: str, passed: bool, severity: dg.AssetCheckSeverity = ERROR
) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("corpus"),
        check_name=name,
        passed=passed,
        metadata={},
        severity=severity,
        description=f"{shard}: so it is",
        partition=shard,
    )


def test_checks_that_failed_are_told_together_with_where_and_why():
    looks = [looked("ids_unique", shard, False) for shard in ("a", "b", "c", "d")]
    told = "check ids_unique failed, corpus/a, corpus/b, corpus/c and 1 more: a: so it is"
    assert failed_checks([*looks, looked("counts_add_up", "a", True)]) == [told]


def test_what_was_looked_at_again_counts_as_it_was_found_last():
    assert failed_checks([looked("ids_unique", "a", False), looked("ids_unique", "a", True)]) == []


def test_a_warning_is_left_to_the_report():
    assert failed_checks([looked("fidelity_holds", "a", False, WARN)]) == []
