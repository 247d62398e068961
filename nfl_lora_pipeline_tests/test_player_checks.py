import polars as pl
import pytest

from nfl_lora_pipeline.season.checks import Check, check_players
from nfl_lora_pipeline.weeks.players import parse_week
from nfl_lora_pipeline.weeks.week import NflWeek
from nfl_lora_pipeline_tests.upstream import row, week_bytes


@pytest.fixture
def players() -> pl.DataFrame:
    people = [row(name=f"Person {n}", PlayerId=f"{n:03}", Targets="2", ReceivingRec="1") for n in range(300)]
    return parse_week(week_bytes(people), week=NflWeek(2025, 1), origin="here")[0]


def failed(players: pl.DataFrame) -> dict[str, Check]:
    return {check.name: check for check in check_players(players) if not check.passed}


def where_person_7(column: str, value: object) -> pl.Expr:
    return pl.when(pl.col("player") == "Person 7").then(value).otherwise(pl.col(column)).alias(column)


def test_a_sound_week_passes_every_check(players):
    assert failed(players) == {}
    assert len({check.name for check in check_players(players)}) == len(check_players(players)) == 12


@pytest.mark.parametrize(
    ("column", "value", "name", "severity"),
    [
        ("player_id", pl.lit("008"), "ids_are_unique", "error"),
        ("targets", pl.lit(None), "only_recorded_have_stats", "error"),
        ("player", pl.lit("Person 8"), "names_are_unique", "warn"),
        ("receiving_yards", pl.lit(401), "stats_are_plausible", "warn"),
        ("fantasy_points", pl.lit(-20.1), "stats_are_plausible", "warn"),
        ("receptions", pl.lit(3), "catches_within_targets", "warn"),
        ("receiving_touchdowns", pl.lit(2), "touchdowns_within_catches", "warn"),
    ],
)
def test_one_bad_row_fails_one_check_which_names_it(players, column, value, name, severity):
    spoiled = players.with_columns(where_person_7(column, value)).cast(dict(players.schema))
    assert set(failed(spoiled)) == {name}
    assert failed(spoiled)[name].severity == severity
    assert "007" in failed(spoiled)[name].description or "Person 7" in failed(spoiled)[name].description


def test_a_free_agent_with_a_number_fails(players):
    spoiled = players.with_columns(status=pl.lit("free_agent", players.schema["status"]))
    assert "300 of 300 have stats unlike their status: Person 0 (000)" in (
        failed(spoiled)["only_recorded_have_stats"].description
    )


@pytest.mark.parametrize(
    ("rows", "names"), [(299, {"size_is_usual"}), (0, {"size_is_usual", "has_rows", "somebody_is_recorded"})]
)
def test_an_unusual_number_of_rows_is_a_finding(players, rows, names):
    assert set(failed(players.head(rows))) == names


@pytest.mark.parametrize(
    ("spoil", "difference"),
    [
        (lambda players: players.drop("targets"), "lacks targets"),
        (lambda players: players.with_columns(snaps=1), "has unknown snaps"),
        (lambda players: players.cast({"targets": pl.Int64}), "targets is Int64, not Int32"),
        (lambda players: players.select(reversed(players.columns)), "columns in another order"),
    ],
)
def test_a_schema_that_differs_says_how_and_ends_the_checks(players, spoil, difference):
    check, *others = check_players(spoil(players))
    assert not any(other.passed for other in others)
    assert (check.name, check.passed, check.severity) == ("schema_matches", False, "error")
    assert difference in check.description
