"""A week's bytes to a typed frame: one row per player, with what he did and why there may be nothing to tell."""

import polars as pl

from nfl_lora_pipeline.weeks.names import plain_names
from nfl_lora_pipeline.weeks.upstream_format import COUNTS, NAMES, POINTS, TEAMS, BadWeek, read_rows
from nfl_lora_pipeline.weeks.week import NflWeek

__all__ = ["PLAYERS_SCHEMA", "STATS", "STATUS", "BadWeek", "parse_week"]

STATUS = pl.Enum(["recorded", "no_record", "bye", "free_agent"])

PLAYERS_SCHEMA = pl.Schema(
    {
        "season": pl.Int32(),
        "week": pl.Int8(),
        "player_id": pl.String(),
        "player": pl.String(),
        "team": pl.String(),
        "opponent": pl.String(),
        "is_home": pl.Boolean(),
        "status": STATUS,
        "receptions": pl.Int32(),
        "receiving_yards": pl.Int32(),
        "receiving_touchdowns": pl.Int32(),
        "targets": pl.Int32(),
        "reception_pct": pl.Int32(),
        "fantasy_points": pl.Float64(),
        "rushing_yards": pl.Int32(),
        "rushing_touchdowns": pl.Int32(),
        "carries": pl.Int32(),
        "fumbles": pl.Int32(),
        "return_touchdowns": pl.Int32(),
        "two_point_conversions": pl.Int32(),
    }
)
STATS = tuple((COUNTS | POINTS).values())


def parse_week(content: bytes, *, week: NflWeek, origin: str) -> tuple[pl.DataFrame, list[str]]:
    """Read a week's file.

    `status` says what is known of a player, by the first rule that holds:

    - `recorded`: any of his stats is other than 0, fantasy points among them (the points of a punt returner are his
      only trace). It comes first: somebody cut or traded after his game is `FA` or on a bye in the file, with numbers.
    - `free_agent`: his team is `FA`.
    - `bye`: his opponent is `Bye`.
    - `no_record`: he had a game, and nothing is recorded for him.

    A blank stat of a recorded player is 0. Everybody else's stats are null, also the points, which upstream gives as
    "0.00" to free agents too. `reception_pct` is null for a recorded player without a target.

    Args:
        content: the file as upstream publishes it.
        week: the week that the file is about; the file does not say.
        origin: the file's path or URL, as messages show it.

    Returns:
        A frame of `PLAYERS_SCHEMA`, one row per player, sorted by `player`, then `player_id`: `team` is one of 32 codes
        or `FA` (the Rams are always `LAR`), `opponent` and `is_home` are null without a game. And warnings: unknown or
        missing fields that are not in use, unknown team codes, and a name that players share (both rows stand).

    Raises:
        BadWeek: see `upstream_format.read_rows`.

    Source: https://github.com/hvpkod/NFL-Data
    """
    rows, warnings = read_rows(content, origin=origin)
    has_game = pl.col("opponent") != "Bye"
    stats = pl.col(STATS)
    nothing_to_divide = (pl.col("targets") == 0) & (pl.col("reception_pct") == 0)
    players = (
        rows.lazy()
        .rename(NAMES)
        .with_columns(pl.col(list(COUNTS.values())).cast(pl.Int32), pl.col("fantasy_points").cast(pl.Float64))
        .with_columns(stats.fill_null(0) + 0)  # + 0 turns "-0.00" into 0
        .with_columns(
            season=pl.lit(week.season, pl.Int32),
            week=pl.lit(week.week, pl.Int8),
            team=pl.col("team").replace("LA", "LAR"),
            opponent=pl.when(has_game).then(pl.col("opponent").str.strip_prefix("@").replace("LA", "LAR")),
            is_home=pl.when(has_game).then(~pl.col("opponent").str.starts_with("@")),
            status=pl.when(pl.any_horizontal(stats != 0))
            .then(pl.lit("recorded"))
            .when(pl.col("team") == "FA")
            .then(pl.lit("free_agent"))
            .when(~has_game)
            .then(pl.lit("bye"))
            .otherwise(pl.lit("no_record"))
            .cast(STATUS),
        )
        .with_columns(reception_pct=pl.when(~nothing_to_divide).then(pl.col("reception_pct")))
        .with_columns(pl.when(pl.col("status") == "recorded").then(stats))
        .select(list(PLAYERS_SCHEMA))
        .sort("player", "player_id")
        .collect()
    )
    return players, warnings + _oddities(players, origin)


def _oddities(players: pl.DataFrame, origin: str) -> list[str]:
    codes = pl.concat([players["team"], players["opponent"].drop_nulls()]).unique().sort().to_list()
    unknown = [f"{origin}: unknown team {code!r}" for code in codes if code not in {*TEAMS, "FA"}]
    bears_it_too = plain_names().str.to_lowercase().is_duplicated()
    names = players.filter(bears_it_too)["player"].unique().sort().to_list()
    shared = [
        f"{origin}: more than one player is called {name!r}: what is asked about them is ambiguous" for name in names
    ]
    return unknown + shared
