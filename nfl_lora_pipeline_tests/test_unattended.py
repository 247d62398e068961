"""Sensor, schedule and their job: each alone, and with the assets' own conditions switched on."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import polars as pl
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, InstigatorType, SensorInstigatorData
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from nfl_lora_pipeline.definitions import build_definitions
from nfl_lora_pipeline.defs import automation as unattended
from nfl_lora_pipeline.defs.automation import (
    automation_runs,
    build_schedules,
    build_sensors,
    look_without_memory,
    update_config,
    update_season,
)
from nfl_lora_pipeline.defs.dataset import parquet
from nfl_lora_pipeline.defs.resources import Resources, WeekSource
from nfl_lora_pipeline.defs.update import BY_TAG, MAKES_TAG, Order, StepFailed, _Work, update
from nfl_lora_pipeline.files import replace_file
from nfl_lora_pipeline.settings import Settings
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.weeks.week import NflWeek
from nfl_lora_pipeline_tests import upstream

TINY = upstream.week_bytes(upstream.tiny_week())


@dataclass
class Deployment:
    """A folder of raw weeks, a store and an instance."""

    root: Path
    instance: dg.DagsterInstance
    recipe: str = "embedded"

    @property
    def store(self) -> Store:
        return Store(self.root / "data")

    @property
    def settings(self) -> Settings:
        folder = str(self.root / "raw")
        return Settings(store=str(self.store.root), source="folder", data_dir=folder, season=2025, recipe=self.recipe)

    @property
    def resources(self) -> Resources:
        return Resources.of(self.settings)

    def publish(self, number: int, content: bytes = TINY) -> None:
        replace_file(self.root / "raw" / "2025" / str(number) / "WR.json", content)

    def sense(self, cursor: str | None = None) -> dg.SensorResult:
        """What the sensor wants; the partitions asked for are added, as the daemon does."""
        new_weeks, *_ = build_sensors(self.settings)
        wanted = {name: self.resources.by_name()[name] for name in ("store", "week_source", "watch")}
        defs = build_definitions(self.settings)
        with dg.build_sensor_context(self.instance, cursor=cursor, resources=wanted, definitions=defs) as context:
            result = new_weeks(context)
        assert isinstance(result, dg.SensorResult)
        for request in result.dynamic_partitions_requests or []:
            self.instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
        return result

    def update(self, *weeks: str, look: bool = False, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
        return update_season.execute_in_process(
            instance=self.instance,
            resources=self.resources.by_name(),
            run_config=update_config(weeks, look_too=look),
            raise_on_error=raise_on_error,
        )

    def made(self) -> dict[str, int]:
        """How often each asset was materialised."""
        assets = [node.key for node in build_definitions(self.settings).resolve_asset_graph().asset_nodes]
        counts = {
            key.to_user_string(): len(self.instance.fetch_materializations(key, limit=100).records) for key in assets
        }
        return {name: count for name, count in counts.items() if count}

    def switch(self, sensor: str, status: InstigatorStatus, *, location: str = "here") -> None:
        """What the UI does when somebody switches a sensor on or off."""
        code = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="nowhere"), location_name=location)
        origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(code, "__repository__"), sensor)
        state = InstigatorState(origin, InstigatorType.SENSOR, status, SensorInstigatorData())
        known = self.instance.get_instigator_state(state.instigator_origin_id, state.selector_id)
        (self.instance.update_instigator_state if known else self.instance.add_instigator_state)(state)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Iterator[Deployment]:
    """Without a training: what comes after the weeks' assets is left out."""
    monkeypatch.setattr(_Work, "make_season", lambda self: None)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Deployment(tmp_path, instance)


@pytest.fixture
def switchable(here) -> Iterator[Deployment]:
    """The same on an instance that keeps what was switched on and off."""
    with dg.instance_for_test() as instance:
        yield Deployment(here.root, instance)


def asked(result: dg.SensorResult) -> list[tuple[str | None, str | None, Any]]:
    """(job, partition, weeks to fetch) of every run that the sensor wants."""
    return [
        (
            request.job_name,
            request.partition_key,
            (request.run_config or {}).get("ops", {}).get("bring_up_to_date", {}).get("config", {}).get("weeks"),
        )
        for request in result.run_requests or []
    ]


def test_alone_the_sensor_asks_for_one_update_with_all_new_weeks(here):
    here.publish(1)
    here.publish(2)
    result = here.sense()
    assert asked(result) == [("update_season", None, ["2025-W01", "2025-W02"])]
    assert here.instance.get_dynamic_partitions("nfl_week") == ["2025-W01", "2025-W02"]
    assert asked(here.sense(result.cursor)) == []


def test_with_the_conditions_on_the_sensor_asks_for_each_raw_week(switchable):
    switchable.switch("automation", InstigatorStatus.RUNNING)
    switchable.publish(1)
    switchable.publish(2)
    result = switchable.sense()
    assert asked(result) == [("fetch_week", "2025-W01", None), ("fetch_week", "2025-W02", None)]
    assert switchable.instance.get_dynamic_partitions("nfl_week") == ["2025-W01", "2025-W02"]
    sha = sha256(TINY).hexdigest()
    assert [request.run_key for request in result.run_requests or []] == [
        f"2025-W01-{sha[:16]}",
        f"2025-W02-{sha[:16]}",
    ]


def test_a_correction_taken_back_has_a_run_key_of_its_own(here):
    cursor, keys = None, []
    for content in (TINY, upstream.week_bytes(upstream.tiny_week()[:5]), TINY):
        here.publish(1, content)
        result = here.sense(cursor)
        cursor = result.cursor
        keys += [request.run_key for request in result.run_requests or []]
        here.update("2025-W01")
    assert len(set(keys)) == 3


def test_nothing_new_is_skipped_with_what_was_seen(here):
    assert here.sense().skip_reason == dg.SkipReason("season 2025: no week to be seen")
    here.publish(1)
    cursor = here.sense().cursor
    assert here.sense(cursor).skip_reason == dg.SkipReason("season 2025: 1 unchanged")


def test_a_failed_update_is_asked_for_again_after_an_hour_and_with_the_next_week_at_once(here, monkeypatch):
    monkeypatch.setattr(_Work, "make_season", _fails)
    here.publish(1)
    cursor = here.sense().cursor
    failed = _failed_run(here, "2025-W01")
    assert asked(here.sense(cursor)) == []
    monkeypatch.setattr(unattended, "AGAIN_SECONDS", 0.0)
    result = here.sense(cursor)
    assert asked(result) == [("update_season", None, ["2025-W01"])]
    assert [request.run_key for request in result.run_requests or []] == [failed.run_id]
    monkeypatch.undo()
    here.publish(2)
    assert asked(here.sense(cursor)) == [("update_season", None, ["2025-W01", "2025-W02"])]


@pytest.mark.parametrize(("key", "says"), [("2025-W99", "week 99: "), ("abc", "week 'abc': ")])
def test_an_update_for_what_is_no_week_says_so_at_once_and_is_never_asked_for_again(here, monkeypatch, key, says):
    monkeypatch.setattr(unattended, "AGAIN_SECONDS", 0.0)
    failed = _failed_run(here, key)
    events = [record.dagster_event for record in here.instance.all_logs(failed.run_id)]
    (said,) = [event.step_failure_data.user_failure_data for event in events if event and event.is_step_failure]
    assert said is not None
    assert (said.description or "").startswith(says)
    assert here.made() == {}
    assert asked(here.sense()) == []
    here.publish(1)
    assert asked(here.sense()) == [("update_season", None, ["2025-W01"])]


def test_a_run_says_in_its_name_and_tags_whose_it_is_and_what_it_makes(here):
    here.publish(1)
    update(Order(here.resources, [NflWeek(2025, 1)]), here.instance)
    by_command = here.instance.get_runs()
    assert {run.job_name for run in by_command} == {"nfl_lora_run"}
    assert {run.tags[BY_TAG] for run in by_command} == {"nfl-lora run"}
    assert [run.tags[MAKES_TAG] for run in reversed(by_command)] == [
        f"{name}, 2025-W01" for name in ("raw_wr_json", "players", "qa_pairs")
    ]
    here.update("2025-W01")
    assert here.instance.get_runs(limit=1)[0].tags[BY_TAG] == "part of update_season"


def test_a_failed_update_that_was_made_up_for_is_left_alone(here, monkeypatch):
    monkeypatch.setattr(unattended, "AGAIN_SECONDS", 0.0)
    here.publish(1)
    cursor = here.sense().cursor
    with monkeypatch.context() as once:
        once.setattr(_Work, "make_season", _fails)
        _failed_run(here, "2025-W01")
    here.update("2025-W01")
    assert asked(here.sense(cursor)) == []


def _fails(work: _Work) -> None:
    work.outcome.failures.append(StepFailed("the training went up in smoke"))


def _failed_run(here: Deployment, *weeks: str) -> dg.DagsterRun:
    """An update that ends in a failure."""
    return update_season.execute_in_process(
        instance=here.instance,
        resources=here.resources.by_name(),
        run_config=update_config(weeks),
        raise_on_error=False,
    ).dagster_run


def test_the_schedule_asks_for_an_update_that_looks_for_itself(here):
    time = datetime(2025, 9, 10, 9, tzinfo=ZoneInfo("America/New_York"))
    (weekly_retraining,) = build_schedules(here.settings)
    request = weekly_retraining(dg.build_schedule_context(here.instance, scheduled_execution_time=time))
    assert isinstance(request, dg.RunRequest)
    assert request.run_config == update_config([], look_too=True)
    assert request.run_key == "2025-09-10T09:00:00-04:00"


def test_the_schedule_is_for_wednesday_mornings_in_new_york_from_september_to_february():
    from dagster._utils.schedules import schedule_execution_time_iterator

    zone = ZoneInfo("America/New_York")
    (weekly_retraining,) = build_schedules(Settings())
    start = datetime(2025, 7, 1, tzinfo=zone).timestamp()
    ticks = schedule_execution_time_iterator(start, weekly_retraining.cron_schedule, "America/New_York", ascending=True)
    first, *others = [next(ticks) for _ in range(30)]
    assert first.isoformat() == "2025-09-03T09:00:00-04:00"
    assert {time.astimezone(zone).strftime("%a %H") for time in others} == {"Wed 09"}
    assert max(time for time in others if time < first + timedelta(days=200)).isoformat() == "2026-02-25T09:00:00-05:00"


def test_an_update_that_looks_fetches_what_is_new_and_corrected_alone(here):
    here.publish(1)
    here.publish(2)
    assert here.update(look=True).success
    assert here.made() == {"raw_wr_json": 2, "players": 2, "qa_pairs": 2}
    rows = upstream.tiny_week()
    rows[0]["ReceivingYDS"] = "85"
    here.publish(2, upstream.week_bytes(rows))
    assert here.update(look=True).success
    assert here.made() == {"raw_wr_json": 3, "players": 3, "qa_pairs": 3}
    assert here.update(look=True).success
    assert here.made() == {"raw_wr_json": 3, "players": 3, "qa_pairs": 3}


def test_an_update_makes_up_for_a_week_that_was_only_fetched(switchable):
    switchable.publish(1)
    switchable.switch("automation", InstigatorStatus.RUNNING)
    assert switchable.update("2025-W01").success
    assert switchable.made() == {"raw_wr_json": 1}
    (state,) = switchable.instance.all_instigator_state()
    switchable.instance.delete_instigator_state(state.instigator_origin_id, state.selector_id)
    assert switchable.update().success
    assert switchable.made() == {"raw_wr_json": 1, "players": 1, "qa_pairs": 1}


def test_a_file_of_the_store_that_was_replaced_without_a_run_is_noticed(here):
    week = NflWeek(2025, 1)
    here.publish(1)
    assert here.update(look=True).success
    players = here.store.read_players(week)
    replace_file(here.store.players(week), parquet(players.with_columns(receiving_yards=pl.col("receiving_yards") + 1)))
    assert here.update().success
    assert here.made() == {"raw_wr_json": 1, "players": 2, "qa_pairs": 1}
    assert here.store.read_players(week).equals(players)
    replace_file(here.store.qa_pairs(week), parquet(here.store.read_qa_pairs(week).head(3)))
    assert here.update().success
    assert here.made() == {"raw_wr_json": 1, "players": 2, "qa_pairs": 2}
    content = upstream.week_bytes(upstream.tiny_week()[1:])
    replace_file(here.store.raw(week), content)
    origin = json.loads(here.store.raw_origin(week).read_text()) | {"sha256": sha256(content).hexdigest()}
    replace_file(here.store.raw_origin(week), json.dumps(origin).encode())
    assert here.update(look=True).success
    assert here.made() == {"raw_wr_json": 2, "players": 2, "qa_pairs": 2}, "upstream's is as it was"
    assert here.store.read_raw(week) == TINY


def test_an_upstream_that_gives_no_answer_is_worth_asking_again(here):
    source = WeekSource(kind="github", folder=str(here.root), base_url="http://127.0.0.1:9")
    resources = replace(here.resources, week_source=source)
    found = look_without_memory(resources, dg.build_op_context().log)
    assert found.changed == []
    assert [bool(sighting.problem) for sighting in found.sightings] == [True]
    order = Order(resources, [NflWeek(2025, 1)], patient=True)
    (failure,) = update(order, here.instance).failures
    assert failure.worth_retrying


def test_an_update_before_the_first_week_of_a_season_does_nothing(here, monkeypatch):
    monkeypatch.setattr(_Work, "make_season", _fails)
    assert here.update(look=True).success
    assert here.made() == {}


def test_the_rest_of_an_update_does_not_wait_for_a_week_that_cannot_be_had(here):
    here.publish(1, b"[")
    here.publish(2)
    order = Order(here.resources, [NflWeek(2025, number) for number in (1, 2, 3)], patient=True)
    failures = update(order, here.instance).failures
    assert here.made() == {"raw_wr_json": 1, "players": 1, "qa_pairs": 1}
    bad, absent = map(str, failures)
    assert bad.startswith("2025-W01: ")
    assert absent.startswith("2025-W03: ")
    assert not any(failure.worth_retrying for failure in failures)
    assert "no such file" in absent


def test_whether_the_conditions_are_on_is_read_from_the_instance(switchable):
    def runs(*, default: bool) -> bool:
        return automation_runs(switchable.instance, "here", default=default)

    assert (runs(default=False), runs(default=True)) == (False, True)
    switchable.switch("new_weeks", InstigatorStatus.RUNNING)
    switchable.switch("automation", InstigatorStatus.RUNNING, location="elsewhere")
    assert (runs(default=False), runs(default=True)) == (False, True)
    switchable.switch("automation", InstigatorStatus.DECLARED_IN_CODE)
    assert (runs(default=False), runs(default=True)) == (False, True)
    switchable.switch("automation", InstigatorStatus.STOPPED)
    assert (runs(default=False), runs(default=True)) == (False, False)
    switchable.switch("automation", InstigatorStatus.RUNNING)
    assert (runs(default=False), runs(default=True)) == (True, True)


def test_an_instance_that_keeps_no_switches_goes_by_the_code(here):
    assert automation_runs(here.instance, default=True)
    assert not automation_runs(here.instance, default=False)


@pytest.mark.parametrize(("watch", "status"), [("", "STOPPED"), ("0", "STOPPED"), ("1", "RUNNING")])
def test_everything_is_off_unless_watch_is_set(watch, status):
    code = (
        "from nfl_lora_pipeline.definitions import defs; r = defs().get_repository_def(); "
        "print(*(f'{d.name} {d.default_status.value}' for d in [*r.sensor_defs, *r.schedule_defs]), sep='\\n')"
    )
    environment = os.environ | {"NFL_LORA_WATCH": watch}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    switches = dict(line.split() for line in done.stdout.splitlines())
    assert switches.pop("dead_runs") == "RUNNING", "it only puts in order what others left"
    assert list(switches.values()) == [status] * 3


def test_loading_the_definitions_imports_nothing_to_ask_upstream_with():
    code = "import sys; from nfl_lora_pipeline.definitions import defs; defs(); sys.exit('requests' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_update_leaves_the_same_as_the_command_lines_job(tmp_path, hasty_recipe):
    stores = []
    with dg.DagsterInstance.ephemeral() as instance:
        alone = Deployment(tmp_path / "alone", instance, hasty_recipe)
        alone.publish(1)
        assert alone.update(look=True).success
        made = alone.made()
        assert set(made.values()) == {1}
        assert alone.update(look=True).success
        assert alone.made()["raw_wr_json"] == 1
        assert len(alone.store.adapters()) == 1
        stores.append(alone.store)
    with dg.DagsterInstance.ephemeral() as instance:
        other = Deployment(tmp_path / "other", instance, hasty_recipe)
        other.publish(1)
        update(Order(other.resources, [NflWeek(2025, 1)]), instance)
        assert other.made() == made
        stores.append(other.store)
    one, two = ({str(file.relative_to(store.root)) for file in store.root.rglob("*")} for store in stores)
    assert one - {"locks/season"} == two, "`update` leaves it to its callers to take turns"
    assert stores[0].latest() == stores[1].latest()
