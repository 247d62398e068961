"""What runs when something changes: the assets' real conditions, evaluated as the daemon does, and real runs of what they ask.

Only the training itself is shortened, to a folder that says how often it was asked for: what is taught is tested elsewhere.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from nfl_lora_pipeline.defs import adapter as model
from nfl_lora_pipeline.defs import report
from nfl_lora_pipeline.defs.common import nfl_week
from nfl_lora_pipeline.defs.resources import Resources
from nfl_lora_pipeline.defs.update import assets_of
from nfl_lora_pipeline.evaluation.gates import GATES, Gate
from nfl_lora_pipeline.reports.evaluate import Evaluation
from nfl_lora_pipeline.settings import Settings
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.weeks.players import parse_week
from nfl_lora_pipeline.weeks.sources.folder import week_file
from nfl_lora_pipeline.weeks.week import NflWeek
from nfl_lora_pipeline_tests import upstream
from nfl_lora_pipeline_tests.evaluations import pairs_of, perfect, summary_of
from nfl_lora_pipeline_tests.fakes import put_adapter

W1, W2, W3 = (NflWeek(2025, number) for number in (1, 2, 3))
ASSETS = list(assets_of(Resources.of(Settings())).values())
UNJUDGED = {"nothing_is_forgotten", "coverage_is_kept"}  # as of a first adapter: their checks are skipped
SEASON = ["dataset_splits", "adapter", "evaluation_report", "promoted_adapter"]


@dataclass
class Daemon:
    """The conditions' sensor, without its clock: what a tick asks for is run at once."""

    folder: Path
    instance: dg.DagsterInstance
    assets: list[Any] = field(default_factory=lambda: list(ASSETS))
    cursor: Any = None
    now: datetime = datetime(2025, 9, 10, 12, 0)
    trainings: list[list[str]] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return Store(self.folder / "data")

    @property
    def resources(self) -> dict[str, Any]:
        settings = Settings(store=str(self.store.root), source="folder", data_dir=str(self.folder / "raw"))
        return Resources.of(settings).by_name()

    def publish(self, at: NflWeek, content: bytes) -> None:
        file = week_file(self.folder / "raw", at)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def fetch(self, *weeks: NflWeek) -> None:
        """What the sensor for new weeks has run."""
        for at in weeks:
            self.instance.add_dynamic_partitions(str(nfl_week.name), [str(at)])
            assert self._run("raw_wr_json", str(at))

    def settle(self, *, ticks: int = 12) -> list[str]:
        """Tick until nothing is asked for; what ran, in order, as "players 2025-W01" or "adapter"."""
        ran: list[str] = []
        idle = 0
        for _ in range(ticks):
            asked = self.tick()
            idle = 0 if asked else idle + 1
            if idle == 2 and ran:
                break
            for name, key in asked:
                self._run(name, key)
                ran.append(f"{name} {key}" if key else name)
        return ran

    def tick(self) -> list[tuple[str, str | None]]:
        self.now += timedelta(seconds=30)
        found = dg.evaluate_automation_conditions(
            dg.Definitions(assets=self.assets, resources=self.resources),
            self.instance,
            cursor=self.cursor,
            evaluation_time=self.now,
        )
        self.cursor = found.cursor
        asked: list[tuple[str, str | None]] = []
        for result in found.results:
            keys = found.get_requested_partitions(result.key)
            asked += [(result.key.to_user_string(), key) for key in sorted(keys, key=str)]
        return asked

    def _run(self, name: str, key: str | None) -> bool:
        job = dg.Definitions(assets=self.assets, resources=self.resources).get_implicit_global_asset_job_def()
        result = job.execute_in_process(
            instance=self.instance,
            partition_key=key,
            asset_selection=[dg.AssetKey(name)],
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        return bool(result.success)


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    with dg.DagsterInstance.ephemeral() as instance:
        made = Daemon(tmp_path, instance)

        def train(held, recipe, provenance, fingerprint, tell):
            made.trainings.append(provenance.weeks)
            put_adapter(held, fingerprint, **provenance.content())

        def evaluate(held, recipe, *, evaluation_code, say, replace):
            summary = dataclasses.replace(
                summary_of(perfect(pairs_of())), adapter=held.latest(), recall={"trained": 1.0}, warnings=[]
            )
            gates = [Gate(name, name not in UNJUDGED or None, 1.0, 0.99, "passed", []) for name in GATES]
            return Evaluation(summary, gates, reused=False)

        monkeypatch.setattr(model, "_train", train)
        monkeypatch.setattr(model, "_figures", lambda log: {})
        monkeypatch.setattr("nfl_lora_pipeline.reports.evaluate.evaluate_latest", evaluate)
        monkeypatch.setattr(report, "_passed", lambda held, trainer: held.latest())
        yield made


ROWS = upstream.tiny_week()


def with_change(**fields: str) -> bytes:
    """The tiny week with fields of its first row changed."""
    return upstream.week_bytes([ROWS[0] | fields, *ROWS[1:]])


PLAIN = with_change()


@pytest.fixture
def settled(daemon):
    """Two weeks held and everything made of them."""
    daemon.publish(W1, PLAIN)
    daemon.publish(W2, with_change(ReceivingYDS="7"))
    daemon.tick()
    daemon.fetch(W1, W2)
    ran = daemon.settle()
    assert set(SEASON) <= set(ran)
    assert daemon.trainings[-1] == ["2025-W01", "2025-W02"]
    daemon.trainings.clear()
    return daemon


def test_the_first_week_of_a_season_is_carried_to_a_promoted_adapter(daemon):
    daemon.publish(W1, PLAIN)
    daemon.tick()
    daemon.fetch(W1)
    ran = daemon.settle()
    assert ran == ["base_model", "players 2025-W01", "qa_pairs 2025-W01", *SEASON] or sorted(ran) == sorted(
        ["base_model", "players 2025-W01", "qa_pairs 2025-W01", *SEASON]
    )
    assert daemon.trainings == [["2025-W01"]]
    assert daemon.store.promoted() == daemon.store.latest()


def test_what_was_missing_before_the_first_tick_is_made_too(daemon):
    daemon.publish(W1, PLAIN)
    daemon.fetch(W1)
    assert set(SEASON) <= set(daemon.settle())


def test_an_identical_file_runs_nothing_after_it(settled):
    settled.fetch(W2)
    assert settled.settle() == []


def test_a_correction_of_a_column_that_is_not_in_use_stops_at_the_players(settled):
    settled.publish(W2, with_change(ReceivingYDS="7", Targets="9", Team="SEA"))
    settled.fetch(W2)
    assert settled.settle() == ["players 2025-W02"]
    frame = pl.read_parquet(settled.store.players(W2))
    assert frame.filter(pl.col("player") == ROWS[0]["PlayerName"])["targets"].to_list() == [9]


def test_one_yard_corrected_runs_that_week_and_the_season_and_no_other_week(settled):
    settled.publish(W2, with_change(ReceivingYDS="8"))
    settled.fetch(W2)
    assert settled.settle() == ["players 2025-W02", "qa_pairs 2025-W02", *SEASON]
    assert settled.trainings == [["2025-W01", "2025-W02"]]


def test_a_new_week_runs_itself_and_the_season_and_no_other_week(settled):
    settled.publish(W3, with_change(ReceivingYDS="30"))
    settled.fetch(W3)
    assert settled.settle() == ["players 2025-W03", "qa_pairs 2025-W03", *SEASON]
    assert settled.trainings == [["2025-W01", "2025-W02", "2025-W03"]]


def test_a_raised_code_version_of_the_questions_runs_them_and_stops_where_nothing_changed(settled):
    def raised(spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.replace_attributes(code_version="raised") if spec.key.path == ["qa_pairs"] else spec

    settled.assets = [asset.map_asset_specs(raised) for asset in settled.assets]
    assert sorted(settled.settle()) == ["qa_pairs 2025-W01", "qa_pairs 2025-W02"]


def test_a_raised_code_version_of_the_splits_stops_at_the_splits_when_the_rows_are_the_same(settled):
    def raised(spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.replace_attributes(code_version="raised") if spec.key.path == ["dataset_splits"] else spec

    settled.assets = [asset.map_asset_specs(raised) for asset in settled.assets]
    assert settled.settle() == ["dataset_splits"]


def test_a_training_that_failed_is_picked_up_again_after_an_hour_and_not_before(settled, monkeypatch):
    train = model._train

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model, "_train", fail)
    settled.publish(W3, with_change(ReceivingYDS="30"))
    settled.fetch(W3)
    assert settled.settle()[-1] == "adapter"
    assert settled.settle(ticks=4) == []
    monkeypatch.setattr(model, "_train", train)
    settled.now += timedelta(hours=1)
    assert settled.settle() == ["adapter", "evaluation_report", "promoted_adapter"]
    assert settled.trainings == [["2025-W01", "2025-W02", "2025-W03"]]


def test_a_week_withdrawn_upstream_stays_and_runs_nothing(settled):
    week_file(settled.folder / "raw", W2).unlink()
    assert settled.settle(ticks=3) == []
    assert settled.store.weeks() == [W1, W2]
    with pytest.raises(AssertionError):
        settled.fetch(W2)  # the run fails, and says that there is no such file
    assert settled.settle(ticks=3) == []
    assert parse_week(settled.store.raw(W2).read_bytes(), week=W2, origin="")[0].height == len(ROWS)


def test_a_hundred_and_ten_weeks_are_one_season_of_splits_and_a_change_of_one_is_seen(daemon):
    weeks = [NflWeek(2019 + number // 18, 1 + number % 18) for number in range(110)]
    daemon.instance.add_dynamic_partitions(str(nfl_week.name), [str(at) for at in weeks])
    for at in weeks:
        daemon.publish(at, PLAIN)
    for at in weeks[:-1]:  # as if these had been made long ago
        for name in ("raw_wr_json", "players", "qa_pairs"):
            daemon.instance.report_runless_asset_event(
                dg.AssetMaterialization(name, partition=str(at), tags={"dagster/data_version": "old"})
            )
    daemon.tick()
    daemon.fetch(weeks[-1])
    ran = daemon.settle(ticks=20)
    assert [name for name in ran if name.startswith(("players", "qa_pairs"))] == [
        f"players {weeks[-1]}",
        f"qa_pairs {weeks[-1]}",
    ]
    assert set(SEASON) <= set(ran)
    made_of = json.loads((daemon.store.splits / "splits.json").read_text())
    assert str(weeks[-1]) in made_of["weeks"]
