import json

import polars as pl
import pytest

from nfl_lora_pipeline.base_pretraining.sample_weeks import write_sample
from nfl_lora_pipeline.season.checks import check_players
from nfl_lora_pipeline.weeks.players import UPSTREAM_KEYS, parse_week
from nfl_lora_pipeline.weeks.sources import Place, open_source
from nfl_lora_pipeline.weeks.sources.folder import SAMPLE_FOLDER, week_file
from nfl_lora_pipeline.weeks.week import NflWeek
from nfl_lora_pipeline_tests.conftest import REAL_DATA

WEEKS = [NflWeek(2025, number) for number in (1, 2, 3)]
QUESTIONED = {"Nico Collins": 25, "Ladd McConkey": 74, "Rome Odunze": 37}


def parsed(week: NflWeek) -> pl.DataFrame:
    raw = open_source("sample", Place(SAMPLE_FOLDER)).fetch(week)
    players, warnings = parse_week(raw.content, week=week, origin=raw.origin)
    assert warnings == []
    return players


def test_making_the_sample_again_gives_the_bundled_bytes(tmp_path):
    for made, week in zip(write_sample(tmp_path), WEEKS, strict=True):
        assert made == week_file(tmp_path, week)
        assert made.read_bytes() == week_file(SAMPLE_FOLDER, week).read_bytes()


def test_another_seed_gives_other_people(tmp_path):
    assert write_sample(tmp_path, seed=1)[0].read_bytes() != week_file(SAMPLE_FOLDER, WEEKS[0]).read_bytes()


@pytest.mark.parametrize("week", WEEKS, ids=str)
def test_the_sample_has_upstreams_fields_in_upstreams_order_and_types(week):
    for row in json.loads(week_file(SAMPLE_FOLDER, week).read_bytes()):
        assert list(row) == list(UPSTREAM_KEYS)
        assert {type(value) for key, value in row.items() if key != "Rank"} == {str}
        assert type(row["Rank"]) is int


@pytest.mark.parametrize(
    ("week", "counts"),
    [
        (WEEKS[0], {"recorded": 53, "no_record": 62, "free_agent": 45}),
        (WEEKS[1], {"recorded": 47, "no_record": 65, "free_agent": 45}),
        (WEEKS[2], {"recorded": 46, "no_record": 59, "bye": 7, "free_agent": 45}),
    ],
    ids=str,
)
def test_the_sample_has_people_of_every_status(week, counts):
    assert dict(parsed(week)["status"].value_counts().iter_rows()) == counts


@pytest.mark.parametrize("week", WEEKS, ids=str)
def test_the_sample_passes_every_check_but_the_size_of_a_full_week(week):
    assert [check.name for check in check_players(parsed(week), invented=True) if not check.passed] == ["size_is_usual"]


def test_rosters_stay_the_same_but_for_the_real_three_of_week_1():
    first, second, third = (parsed(week).select("player", "player_id", "team") for week in WEEKS)
    assert second.equals(third)
    assert first.join(second, on=["player", "player_id", "team"], how="anti")["player"].to_list() == sorted(
        QUESTIONED, key=["Ladd McConkey", "Nico Collins", "Rome Odunze"].index
    )


def test_the_three_players_of_the_first_questions_have_their_real_yards():
    asked = parsed(WEEKS[0]).filter(pl.col("player").is_in(list(QUESTIONED)))
    assert dict(asked.select("player", "receiving_yards").iter_rows()) == QUESTIONED


def test_the_real_lines_are_upstreams_but_for_the_rank(real_data):
    def lines(content: bytes) -> dict[str, dict[str, object]]:
        rows = json.loads(content)
        return {row["PlayerName"]: row | {"Rank": 0} for row in rows if row["PlayerName"] in QUESTIONED}

    real = lines(week_file(real_data, WEEKS[0]).read_bytes())
    assert lines(week_file(SAMPLE_FOLDER, WEEKS[0]).read_bytes()) == real


def test_nobody_else_bears_a_real_players_name(real_data):
    real = {row["PlayerName"] for file in real_data.glob("**/*.json") for row in json.loads(file.read_bytes())}
    sample = {name for week in WEEKS for name in parsed(week)["player"]}
    assert sample & real == set(QUESTIONED), f"compared with {REAL_DATA}"
