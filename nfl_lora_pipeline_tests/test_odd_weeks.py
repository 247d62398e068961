"""Weeks in which nobody played, of which rows are missing, or that have the numbers of another week."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from nfl_lora_pipeline.defs.common import nfl_week
from nfl_lora_pipeline.defs.dataset import dataset_splits, players, qa_pairs, raw_wr_json
from nfl_lora_pipeline.defs.resources import DatasetResource, Resources, StoreResource, WeekSource
from nfl_lora_pipeline.season.checks import ODD, check_players, warnings_of
from nfl_lora_pipeline.settings import Settings
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.weeks.players import parse_week
from nfl_lora_pipeline.weeks.week import NflWeek
from nfl_lora_pipeline_tests import upstream

W1, W2 = NflWeek(2025, 1), NflWeek(2025, 2)
Rows = list[dict[str, Any]]
BLANK = dict.fromkeys(("ReceivingRec", "Targets", "ReceivingYDS"), "") | {"TotalPoints": "0.00"}
ODD_WEEKS: dict[str, tuple[Rows, str]] = {
    "nobody": ([row | BLANK for row in upstream.large_week(2)], "0 of 300 players have anything recorded"),
    "one game": (upstream.large_week(2, recorded=5), "5 of 300 players have anything recorded"),
    "half a day": (
        upstream.large_week(2, recorded=40),
        "300 rows, 40 of them with a record; usual are 300 rows, 110 with one",
    ),
    "cut": (upstream.large_week(2)[:200], "200 rows, 110 of them with a record; usual are 300 rows, 110 with one"),
    "the week before": (upstream.large_week(1), "110 of 110 players have the same numbers as in 2025-W01"),
}


def frame_of(rows: Rows, week: NflWeek = W2) -> pl.DataFrame:
    return parse_week(upstream.week_bytes(rows), week=week, origin="test")[0]


def odd(*args: Any, **options: Any) -> list[str]:
    return [check.name for check in check_players(*args, **options) if check.name in ODD and not check.passed]


def test_no_real_week_is_odd_beside_the_others(real_data):
    weeks = {NflWeek(2025, number): real_data / "2025" / str(number) / "WR.json" for number in range(1, 11)}
    weeks[NflWeek(2021, 6)] = real_data / "2021" / "6" / "WR.json"
    frames = {week: parse_week(file.read_bytes(), week=week, origin="")[0] for week, file in weeks.items()}
    for week, frame in frames.items():
        assert odd(frame, {other: one for other, one in frames.items() if other != week}) == []


def test_a_correction_is_not_taken_for_another_weeks_numbers(real_data):
    file = real_data / "corrections" / "2025-3-first-published" / "WR.json"
    first = parse_week(file.read_bytes(), week=NflWeek(2025, 3), origin="")[0]
    corrected = parse_week((real_data / "2025/3/WR.json").read_bytes(), week=NflWeek(2025, 3), origin="")[0]
    assert odd(corrected, {}, earlier=first) == []


def test_a_real_week_cut_to_200_rows_is_odd_beside_one_other_week_or_itself(real_data):
    first, second = (
        parse_week((real_data / f"2025/{week.week}/WR.json").read_bytes(), week=week, origin="")[0] for week in (W1, W2)
    )
    cut = second.sort("fantasy_points", descending=True, nulls_last=True).head(200)
    assert odd(cut, {W1: first}) == odd(cut, {}, earlier=second) == ["as_many_as_usual"]
    assert odd(cut) == ["as_many_as_usual"], "beside the smallest real week, where the store has no other"


def test_a_tiny_week_is_compared_with_nothing():
    frame = frame_of(upstream.tiny_week())
    assert odd(frame, {W1: frame}, earlier=frame) == []
    assert odd(frame.head(3), {W1: frame}) == []


@dataclass
class Weeks:
    """The weeks' assets on one instance, with a store and a folder of raw weeks."""

    folder: Path
    instance: dg.DagsterInstance

    @property
    def store(self) -> Store:
        return Store(self.folder / "data")

    def publish(self, week: NflWeek, rows: Rows) -> None:
        upstream.write_week(self.folder / "raw", upstream.week_bytes(rows), week.week)

    def materialise(
        self, assets: Sequence[Any], week: NflWeek | None = None, *, accept: bool = False
    ) -> dg.ExecuteInProcessResult:
        source = WeekSource(kind="folder", folder=str(self.folder / "raw"), accept_odd_weeks=accept)
        return dg.materialize_to_memory(
            assets,
            instance=self.instance,
            partition_key=str(week) if week else None,
            raise_on_error=False,
            resources={
                "store": StoreResource(root=str(self.store.root)),
                "week_source": source,
                "dataset": DatasetResource(),
            },
        )

    def read(self, week: NflWeek, rows: Rows, *, accept: bool = False) -> dg.ExecuteInProcessResult:
        self.publish(week, rows)
        self.instance.add_dynamic_partitions(str(nfl_week.name), [str(week)])
        return self.materialise([raw_wr_json, players, qa_pairs], week, accept=accept)


@pytest.fixture
def weeks(tmp_path):
    with dg.DagsterInstance.ephemeral() as instance:
        made = Weeks(tmp_path, instance)
        assert made.read(W1, upstream.large_week(1)).success
        yield made


def failure_of(result: dg.ExecuteInProcessResult, step: str) -> str:
    (event,) = [event for event in result.get_step_failure_events() if event.step_key == step]
    data = event.step_failure_data
    assert data.user_failure_data is not None
    return str(data.user_failure_data.description)


@pytest.mark.parametrize("kind", ODD_WEEKS)
def test_an_odd_week_fails_with_what_is_odd_and_the_way_out_and_nothing_is_made_of_it(weeks, kind):
    rows, found = ODD_WEEKS[kind]
    result = weeks.read(W2, rows)
    assert not result.success
    message = failure_of(result, "players")
    assert f"2025-W02 is not taken, and what was made of it before stays: {found}" in message
    assert "--accept-odd-weeks" in message
    failed = {check.check_name for check in result.get_asset_check_evaluations() if not check.passed and check.blocking}
    assert failed and failed <= set(ODD)
    assert not weeks.store.players(W2).exists()
    assert weeks.store.weeks() == [W1]


@pytest.mark.parametrize("kind", ODD_WEEKS)
def test_an_odd_correction_leaves_the_last_good_frame(weeks, kind):
    assert weeks.read(W2, upstream.large_week(2)).success
    before = {file: file.read_bytes() for file in (weeks.store.players(W2), weeks.store.qa_pairs(W2))}
    assert not weeks.read(W2, ODD_WEEKS[kind][0]).success
    assert {file: file.read_bytes() for file in before} == before


@pytest.mark.parametrize("kind", ODD_WEEKS)
def test_whoever_knows_better_accepts_an_odd_week_and_is_warned_as_long_as_it_is_used(weeks, kind):
    rows, found = ODD_WEEKS[kind]
    result = weeks.read(W2, rows, accept=True)
    assert result.success
    (line,) = [line for line in warnings_of(weeks.store, [W1, W2]) if found in line]
    assert line.startswith("2025-W02: ")
    assert weeks.read(NflWeek(2025, 3), upstream.large_week(3)).success, "an odd week is no standard for others"


def test_a_first_week_that_was_cut_is_found_when_a_whole_one_comes(tmp_path):
    with dg.DagsterInstance.ephemeral() as instance:
        weeks = Weeks(tmp_path, instance)
        assert weeks.read(W1, upstream.large_week(1)[:99]).success, "taken for somebody's choice of people"
        assert weeks.read(W2, upstream.large_week(2)).success
        refused = weeks.materialise([dataset_splits])
        assert not refused.success
        assert "2025-W01: 99 rows, 99 of them with a record; usual are 300 rows" in failure_of(
            refused, "dataset_splits"
        )
        assert weeks.materialise([dataset_splits], accept=True).success
        assert weeks.materialise([dataset_splits]).success, "once accepted, it stays so"
        assert any("99 rows" in line for line in warnings_of(weeks.store, [W1]))


def test_a_week_of_the_sample_is_not_held_against_real_ones(tmp_path):
    with dg.DagsterInstance.ephemeral() as instance:
        weeks = Weeks(tmp_path, instance)
        assert weeks.read(W1, upstream.large_week(1)).success
        instance.add_dynamic_partitions(str(nfl_week.name), [str(W2)])
        result = dg.materialize_to_memory(
            [raw_wr_json, players],
            instance=instance,
            partition_key=str(W2),
            resources={
                "store": StoreResource(root=str(weeks.store.root)),
                "week_source": WeekSource(kind="sample"),
                "dataset": DatasetResource(),
            },
        )
        assert result.success


def command(folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    words = [sys.executable, "-m", "nfl_lora_pipeline.cli.main", "run", "--weeks", "1-2", "--source", "folder"]
    words += ["--data-dir", str(folder / "raw"), "--store", str(folder / "data"), *options]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_the_command_refuses_an_odd_week_in_one_line_again_and_again_until_it_is_accepted(tmp_path):
    for number in (1, 2):
        upstream.write_week(tmp_path / "raw", upstream.week_bytes(upstream.large_week(1)), number)
    for _ in range(2):
        done = command(tmp_path)
        assert done.returncode == 1
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
        assert "2025-W02 is not taken" in line
        assert "110 of 110 players have the same numbers as in 2025-W01 (numbers_are_its_own)" in line
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "data" / "splits").exists()
    accepted = command(tmp_path, "--accept-odd-weeks", "--base-model", "nowhere")  # which ends it before a training
    assert "base model 'nowhere'" in accepted.stderr
    assert Store(tmp_path / "data").weeks() == [W1, W2]


def test_a_deployment_accepts_odd_weeks_and_replaces_by_its_settings(monkeypatch):
    resources = Resources.of(Settings.read())
    assert (resources.week_source.accept_odd_weeks, resources.trainer.replace) == (False, False)
    for name, value in Settings(accept_odd_weeks=True, replace=True).to_environment().items():
        monkeypatch.setenv(name, value)
    resources = Resources.of(Settings.read())
    assert (resources.week_source.accept_odd_weeks, resources.trainer.replace) == (True, True)
