"""The code location: every asset made by itself as a click in the UI does, and what there is."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from influcoder_assets import checks
from influcoder_assets.definitions import build_defs, defs
from influcoder_assets.maker import makers, nodes
from influcoder_assets.refresh import daily_refresh, refresh_sensor, shard_sensor
from influcoder_assets.resources import HomeResource
from influcoder_assets.workspace import Workspace
from influcoder_lib.errors import DataError
from tests.assets import tiny_home
from tests.assets.conftest import Done
from tests.assets.tiny_home import SHARDS

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
]

# Asset: (group, sharded, what it is made from).
GRAPH = {
    "corpus": ("corpus", True, set()),
    "behavior_queries": ("corpus", False, set()),
    "target_adapter": ("teacher", False, {"corpus"}),
    "gradient_projections": ("teacher", True, {"corpus", "target_adapter"}),
    "distillation_set": (
        "teacher",
        False,
        {"corpus", "target_adapter", "gradient_projections", "behavior_queries"},
    ),
    "teacher_rankings": ("teacher", False, {"distillation_set"}),
    "influence_encoder": ("encoder", False, {"distillation_set", "teacher_rankings"}),
    "champion_encoder": (
        "encoder",
        False,
        {"influence_encoder", "distillation_set", "teacher_rankings"},
    ),
    "encoder_comparison": (
        "encoder",
        False,
        {
            "influence_encoder",
            "distillation_set",
            "teacher_rankings",
            "behavior_queries",
        },
    ),
    "query_embeddings": ("curation", False, {"behavior_queries", "champion_encoder"}),
    "corpus_embeddings": ("curation", True, {"corpus", "champion_encoder"}),
    "embedding_index": ("curation", False, {"corpus_embeddings"}),
    "calibration_scores": (
        "curation",
        False,
        {"champion_encoder", "query_embeddings"},
    ),
    "influence_scores": (
        "curation",
        True,
        {
            "corpus_embeddings",
            "query_embeddings",
            "calibration_scores",
            "gradient_projections",
            "champion_encoder",
        },
    ),
    "decision_rule": ("curation", False, {"calibration_scores"}),
    "filtered_dataset": (
        "curation",
        True,
        {
            "corpus",
            "gradient_projections",
            "influence_scores",
            "decision_rule",
            "behavior_queries",
            "corpus_embeddings",
        },
    ),
    "curation_report": (
        "curation",
        False,
        {
            "filtered_dataset",
            "influence_scores",
            "decision_rule",
            "behavior_queries",
            "encoder_comparison",
            "champion_encoder",
            "influence_encoder",
            "distillation_set",
            "gradient_projections",
            "embedding_index",
        },
    ),
}
CHECKED = {
    ("corpus", "ids_unique"),
    ("gradient_projections", "features_sound"),
    ("distillation_set", "sketch_error_within_bound"),
    ("influence_encoder", "registry_copy_is_exact"),
    ("champion_encoder", "encoder_beats_untrained"),
    ("corpus_embeddings", "embeddings_sound"),
    ("influence_scores", "no_query_in_corpus"),
    ("influence_scores", "fidelity_holds"),
    ("filtered_dataset", "counts_add_up"),
}


@pytest.fixture(scope="module")
def clicked(pristine: Path, tmp_path_factory: pytest.TempPathFactory):
    """A home made by materialising every asset by itself; with the events of each."""
    home = tiny_home.copy_home(pristine, tmp_path_factory.mktemp("clicked") / "home")
    said = {}
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", list(SHARDS))
        click = clicking(home, instance)
        for node in nodes():
            for shard in SHARDS if node.sharded else (None,):
                said[node.name, shard] = tiny_home.recorded(instance, click(node.name, shard))
    return home, said


def clicking(home: Path, instance: dg.DagsterInstance) -> Callable[[str, str | None], str]:
    """Materialises one artifact through its own definition, as the UI does; gives the run's id."""
    job = build_defs(HomeResource(path=str(home))).resolve_implicit_global_asset_job_def()

    def click(asset: str, shard: str | None) -> str:
        return job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(asset)],
            partition_key=shard,
            raise_on_error=False,
        ).run_id

    return click


def failure_of(instance: dg.DagsterInstance, run_id: str) -> str:
    """What the UI shows as the reason why the one step of a run failed."""
    (entry,) = instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    return entry.dagster_event.step_failure_data.user_failure_data.description


def test_definitions_load_and_their_jobs_and_schedules_resolve():
    dg.Definitions.validate_loadable(defs)


def test_the_graph_is_the_one_that_was_drawn():
    found = {}
    for spec in defs.resolve_all_asset_specs():
        name = spec.key.to_user_string()
        upstream = {dep.asset_key.to_user_string() for dep in spec.deps}
        found[name] = (spec.group_name, spec.partitions_def is not None, upstream)
    assert found.pop("refresh_plan") == ("refresh", False, set())
    assert found == GRAPH


@pytest.mark.parametrize("first", ["maker", "curation"])
def test_whatever_is_imported_first_there_is_every_asset_in_the_same_order(first):
    code = (
        f"import influcoder_assets.{first};"
        "from influcoder_assets.maker import nodes;"
        "print(*(node.name for node in nodes()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [node.name for node in nodes()]


def test_every_asset_says_what_it_is_and_which_code_made_it():
    for spec in defs.resolve_all_asset_specs():
        assert spec.description, spec.key
        assert spec.code_version, spec.key
        assert spec.kinds, spec.key


def test_the_checks_are_the_ones_of_the_issue():
    graph = defs.resolve_asset_graph()
    assert {(k.asset_key.to_user_string(), k.name) for k in graph.asset_check_keys} == CHECKED
    assert {(check.asset, check.name) for check in checks.CHECKS} == CHECKED
    assert all(check.description for check in checks.CHECKS)


def test_jobs_sensors_and_schedules():
    repository = defs.get_repository_def()
    jobs = {name for name in repository.job_names if not name.startswith("__")}
    assert jobs == {"refresh", "redistill"}
    assert {each.name: each.default_status.value for each in repository.sensor_defs} == {
        "refresh_sensor": "STOPPED",
        "shard_sensor": "RUNNING",
    }
    assert {each.name: each.cron_schedule for each in repository.schedule_defs} == {
        "daily_refresh": "0 3 * * *"
    }
    assert repository.get_job("refresh").executor_def.name == "in_process"


def test_the_refresh_job_has_a_step_for_every_asset_inputs_first():
    steps = [each.name for each in defs.resolve_job_def("refresh").graph.nodes_in_topological_order]
    own = [name.removeprefix("refresh_") for name in steps if name.startswith("refresh_")]
    assert set(own) == set(makers())
    for name, (_, _, upstream) in GRAPH.items():
        assert all(own.index(each) < own.index(name) for each in upstream)


def test_every_asset_can_be_made_by_itself_with_its_checks(clicked):
    _, said = clicked
    for (asset, shard), (materialized, evaluated) in said.items():
        assert [(e.asset_key.to_user_string(), e.partition) for e in materialized] == [
            (asset, shard)
        ]
        found = {(e.asset_key.to_user_string(), e.check_name) for e in evaluated}
        assert found == {each for each in CHECKED if each[0] == asset}
        assert {e.partition for e in evaluated} <= {shard}
        for each in evaluated:
            assert each.passed or each.check_name == "encoder_beats_untrained", each


def test_clicks_leave_nothing_for_the_refresh_to_do(clicked):
    home, _ = clicked
    assert tiny_home.plan(home) == []


def test_clicks_and_the_refresh_make_the_same_content_bit_for_bit(clicked, done: Done):
    home, said = clicked
    ours, theirs = Workspace.open(home).store, done.workspace.store
    assert said.keys() == done.first.made
    # The report shows when it was made.
    for key in sorted(said.keys() - {("curation_report", None)}, key=str):
        one, other = ours.require(*key), theirs.require(*key)
        assert one.files == other.files, key
        assert one.fingerprint == other.fingerprint
        assert one.recipe == other.recipe
    reports = [
        re.sub(
            r"T\d\d\\?:\d\d\\?:\d\dZ",
            "",
            store.path(store.require("curation_report"), "report.md").read_text(),
        )
        for store in (ours, theirs)
    ]
    assert reports[0] == reports[1]


def test_a_click_has_the_content_as_its_data_version(clicked):
    home, said = clicked
    store = Workspace.open(home).store
    for key, ((event,), _) in said.items():
        assert event.tags["dagster/data_version"] == store.require(*key).fingerprint


def test_a_click_on_an_asset_whose_input_is_missing_says_what_to_make_first(new_home):
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", list(SHARDS))
        failure = failure_of(instance, clicking(new_home, instance)("corpus_embeddings", "a.jsonl"))
    assert "corpus/a.jsonl has not been made yet" in failure
    assert "materialise corpus first" in failure


def test_a_click_on_a_shard_whose_file_has_just_gone_says_so(new_home):
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", list(SHARDS))
        (new_home / "corpus" / "a.jsonl").unlink()
        failure = failure_of(instance, clicking(new_home, instance)("corpus", "a.jsonl"))
    assert failure.startswith("No file of the corpus makes the shard a.jsonl.")


def test_a_click_in_a_home_with_impossible_settings_names_the_key(new_home, change_settings):
    change_settings(new_home, "target_model.windows", 3)
    with dg.DagsterInstance.ephemeral() as instance:
        failure = failure_of(instance, clicking(new_home, instance)("behavior_queries", None))
    assert "target_model.windows" in failure


def test_the_sensor_asks_for_one_run_when_there_is_something_to_make(new_home):
    with dg.DagsterInstance.ephemeral() as instance:
        result = refresh_sensor(sensor_context(new_home, instance))
        assert len(result.run_requests) == 1
        assert int(result.run_requests[0].tags["influcoder/steps"]) == len(tiny_home.plan(new_home))
        assert set(instance.get_dynamic_partitions("shards")) == set(SHARDS)


def test_the_sensor_skips_when_everything_is_up_to_date(done: Done):
    with dg.DagsterInstance.ephemeral() as instance:
        result = refresh_sensor(sensor_context(done.home, instance))
    assert isinstance(result, dg.SkipReason)
    assert "up to date" in result.skip_message


def test_the_sensor_does_not_retry_what_failed_but_names_it(refreshed_home):
    (refreshed_home / "corpus" / "empty.jsonl").write_text("")
    workspace = Workspace.open(refreshed_home)
    with pytest.raises(DataError, match="empty"):
        tiny_home.make(workspace, "corpus", "empty.jsonl")
    tiny_home.make(workspace, "curation_report")
    with dg.DagsterInstance.ephemeral() as instance:
        result = refresh_sensor(sensor_context(refreshed_home, instance))
        waits = "all but what failed and 4 artifacts that wait for it is up to date"
        assert result.skip_message == f"{waits}; failed: corpus/empty.jsonl"
        (refreshed_home / "corpus" / "empty.jsonl").write_text('{"prompt": "a"}')
        again = refresh_sensor(sensor_context(refreshed_home, instance))
        assert len(again.run_requests) == 1


def test_the_sensor_never_asks_for_a_second_refresh_at_a_time(new_home):
    with dg.DagsterInstance.ephemeral() as instance:
        instance.create_run_for_job(
            defs.resolve_job_def("refresh"), status=dg.DagsterRunStatus.STARTED
        )
        result = refresh_sensor(sensor_context(new_home, instance))
    assert result.skip_message == "a refresh is running"


@pytest.mark.parametrize("sensor", [refresh_sensor, shard_sensor], ids=["refresh", "shards"])
def test_a_sensor_skips_with_the_reason_when_the_settings_are_wrong(
    new_home, change_settings, sensor
):
    change_settings(new_home, "target_model.windows", 3)
    with dg.DagsterInstance.ephemeral() as instance:
        result = sensor(sensor_context(new_home, instance))
    assert "target_model.windows" in result.skip_message


def test_the_shard_sensor_registers_shards_and_starts_nothing(new_home):
    with dg.DagsterInstance.ephemeral() as instance:
        result = shard_sensor(sensor_context(new_home, instance))
        assert isinstance(result, dg.SkipReason)
        assert set(instance.get_dynamic_partitions("shards")) == set(SHARDS)
        assert instance.get_runs_count() == 0


def test_the_schedule_asks_for_what_the_sensor_asks_for(pristine, refreshed_home, tmp_path):
    new_home = tiny_home.copy_home(pristine, tmp_path / "new")
    with tiny_home.chosen(new_home) as instance:
        asked = daily_refresh(schedule_context(new_home, instance))
        assert int(asked.tags["influcoder/steps"]) == len(tiny_home.plan(new_home))
    with tiny_home.chosen(refreshed_home) as instance:
        asked = daily_refresh(schedule_context(refreshed_home, instance))
        assert asked.skip_message == "everything is up to date"


def test_the_shard_sensor_puts_up_a_tombstone_once(refreshed_home):
    (refreshed_home / "corpus" / "c.parquet").unlink()
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", list(SHARDS))
        first = shard_sensor(sensor_context(refreshed_home, instance))
        assert first.skip_message == "2 shards are registered"
        assert tombstones(instance) == ["c.parquet"]
        assert set(instance.get_dynamic_partitions("shards")) == {"a.jsonl", "sub.b.csv"}
        again = shard_sensor(sensor_context(refreshed_home, instance))
        assert tombstones(instance) == ["c.parquet"]
    assert isinstance(again, dg.SkipReason)
    assert list(Workspace.open(refreshed_home).store.tombstones()) == ["c.parquet"]


@pytest.mark.parametrize("first", ["refresh_sensor", "daily_refresh", "refresh_plan"])
def test_whoever_sees_first_that_a_shard_is_gone_puts_up_the_tombstone(refreshed_home, first):
    (refreshed_home / "corpus" / "c.parquet").unlink()
    with tiny_home.chosen(refreshed_home) as instance:
        if first == "refresh_sensor":
            refresh_sensor(sensor_context(refreshed_home, instance))
        elif first == "daily_refresh":
            daily_refresh(schedule_context(refreshed_home, instance))
        else:
            clicking(refreshed_home, instance)("refresh_plan", None)
        shard_sensor(sensor_context(refreshed_home, instance))
        assert tombstones(instance) == ["c.parquet"]


def tombstones(instance: dg.DagsterInstance) -> list[str | None]:
    """The shards that the event log says have gone."""
    found = instance.fetch_observations(dg.AssetKey("corpus"), limit=10).records
    return [record.partition_key for record in found]


def sensor_context(home: Path, instance: dg.DagsterInstance) -> dg.SensorEvaluationContext:
    """What a sensor is given on a tick."""
    return dg.build_sensor_context(
        instance=instance, resources={"home": HomeResource(path=str(home))}
    )


def schedule_context(home: Path, instance: dg.DagsterInstance) -> dg.ScheduleEvaluationContext:
    """What the schedule is given at its hour."""
    return dg.build_schedule_context(
        instance=instance, resources={"home": HomeResource(path=str(home))}
    )
