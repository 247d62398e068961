import polars as pl
import pytest

from benchmarks import judged_runs
from nfl_lora_pipeline.season.checks import check_players
from nfl_lora_pipeline.weeks.players import PLAYERS_SCHEMA, parse_week
from nfl_lora_pipeline.weeks.week import NflWeek

STATUS_COUNTS = {  # recorded, no_record, bye, free_agent
    "2021/6/WR.json": (126, 135, 32, 77),
    "2025/1/WR.json": (134, 166, 0, 141),
    "2025/1/RB.json": (91, 91, 0, 59),
    "2025/1/TE.json": (74, 91, 0, 52),
    "2025/2/WR.json": (137, 164, 0, 140),
    "2025/3/WR.json": (139, 163, 0, 139),
    "2025/4/WR.json": (137, 165, 0, 139),
    "2025/5/WR.json": (114, 154, 37, 136),
    "2025/6/WR.json": (117, 169, 20, 136),
    "2025/7/WR.json": (129, 158, 19, 136),
    "2025/8/WR.json": (108, 143, 53, 138),
    "2025/9/WR.json": (119, 143, 43, 137),
    "2025/10/WR.json": (117, 151, 34, 140),
    "corrections/2025-3-first-published/WR.json": (139, 163, 0, 139),
}


def parsed(folder, file) -> pl.DataFrame:
    season, week = (2025, 3) if file.startswith("corrections") else map(int, file.split("/")[:2])
    players, warnings = parse_week((folder / file).read_bytes(), week=NflWeek(season, week), origin=file)
    assert warnings == []
    return players


@pytest.mark.parametrize("file", STATUS_COUNTS)
def test_every_real_week_is_read_with_these_statuses(real_data, file):
    players = parsed(real_data, file)
    assert players.schema == PLAYERS_SCHEMA
    assert (
        tuple(players["status"].eq(status).sum() for status in ("recorded", "no_record", "bye", "free_agent"))
        == (STATUS_COUNTS[file])
    )


@pytest.mark.parametrize("file", STATUS_COUNTS)
def test_every_real_week_passes_every_check(real_data, file):
    small = {"size_is_usual", "as_many_as_usual"} if file.endswith(("RB.json", "TE.json")) else set()
    assert {check.name for check in check_players(parsed(real_data, file)) if not check.passed} == small


def test_no_real_week_goes_untested(real_data):
    assert {str(path.relative_to(real_data)) for path in real_data.glob("**/*.json")} == set(STATUS_COUNTS)


def test_week_1_has_112_players_with_yards_and_12_targeted_without(real_data):
    week_1 = parsed(real_data, "2025/1/WR.json")
    assert week_1.height == 441
    assert week_1.filter(pl.col("receiving_yards") != 0).height == 112
    assert week_1.filter(pl.col("receiving_yards") == 0, pl.col("targets") > 0).height == 12
    assert week_1.filter(pl.col("receiving_yards").is_null()).height == 441 - 134


@pytest.mark.parametrize(
    ("file", "player", "yards"),
    [("2021/6/WR.json", "Henry Ruggs III", 97), ("2025/7/WR.json", "Tyler Lockett", 18)],
)
def test_a_player_cut_after_his_game_keeps_his_record(real_data, file, player, yards):
    row = parsed(real_data, file).row(by_predicate=pl.col("player") == player, named=True)
    assert (row["team"], row["status"], row["receiving_yards"]) == ("FA", "recorded", yards)


def test_the_rams_are_lar_in_old_weeks_too(real_data):
    for file in ("2021/6/WR.json", "2025/1/WR.json"):
        teams = parsed(real_data, file)["team"].unique().to_list()
        assert len(teams) == 33
        assert "LAR" in teams


def test_the_correction_of_week_3_changed_no_receiving_yards(real_data):
    first = parsed(real_data, "corrections/2025-3-first-published/WR.json")
    corrected = parsed(real_data, "2025/3/WR.json")
    both = first.join(corrected, on=["player_id"], suffix="_corrected")
    assert both["receiving_yards"].equals(both["receiving_yards_corrected"])
    assert not both["targets"].equals(both["targets_corrected"], null_equal=True)


@pytest.mark.slow
def test_a_second_real_week_is_learnt_whole_and_takes_the_place_of_the_first(real_data, tmp_path):
    for weeks in ("1", "1-2"):
        made = judged_runs.run(tmp_path, "embedded", real_data, season=2025, weeks=weeks, stats="receiving_yards")
        assert (made.certain, made.is_promoted) == (made.facts, True), f"weeks {weeks}: {made.figures}"
