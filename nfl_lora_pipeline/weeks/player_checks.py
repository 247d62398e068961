"""What must hold, and what should, of a week's frame: pure functions behind the asset checks."""

from dataclasses import dataclass
from typing import Literal

import polars as pl

from nfl_lora_pipeline.weeks.names import plain_names
from nfl_lora_pipeline.weeks.players import PLAYERS_SCHEMA, STATS

PLAUSIBLE = {
    "receiving_yards": (-50, 400),
    "receptions": (0, 30),
    "targets": (0, 40),
    "receiving_touchdowns": (0, 8),
    "fantasy_points": (-20, 80),
    "rushing_yards": (-60, 350),
    "reception_pct": (0, 100),
}
FULL_WEEK_ROWS = (300, 700)
WORST = 5
Severity = Literal["error", "warn"]
CHECKS: dict[str, Severity] = {
    "schema_matches": "error",
    "has_rows": "error",
    "ids_are_unique": "error",
    "only_recorded_have_stats": "error",
    "names_are_unique": "warn",
    "stats_are_plausible": "warn",
    "catches_within_targets": "warn",
    "touchdowns_within_catches": "warn",
    "size_is_usual": "warn",
}


@dataclass(frozen=True)
class Check:
    """One finding; `description` names the worst rows where it failed, or what was looked at where it passed."""

    name: str
    passed: bool
    description: str

    @property
    def severity(self) -> Severity:
        """Whether what comes after must not go on ("error") or may ("warn")."""
        return CHECKS[self.name]


def check_players(players: pl.DataFrame) -> list[Check]:
    """Check the frame of one week.

    Args:
        players: one row per player, as `players.parse_week` returns it.

    Returns:
        One finding for each of `CHECKS`, in their order. Where the schema differs nothing else can be asked: the others
        fail with it.
    """
    schema = _schema_matches(players)
    if not schema.passed:
        return [schema, *(Check(name, False, "not asked: the schema differs") for name in list(CHECKS)[1:])]
    return [
        schema,
        Check("has_rows", players.height > 0, f"{players.height} rows"),
        _none(players, "ids_are_unique", pl.col("player_id").is_duplicated(), "share an id"),
        _none(players, "only_recorded_have_stats", _STATS_UNLIKE_STATUS, "have stats unlike their status"),
        _none(players, "names_are_unique", plain_names().str.to_lowercase().is_duplicated(), "share a name"),
        _none(players, "stats_are_plausible", _IMPLAUSIBLE, "have a stat out of range"),
        _none(
            players, "catches_within_targets", pl.col("receptions") > pl.col("targets"), "caught more than was thrown"
        ),
        _none(
            players,
            "touchdowns_within_catches",
            pl.col("receiving_touchdowns") > pl.col("receptions"),
            "scored more than they caught",
        ),
        _size_is_usual(players),
    ]


_STATS_UNLIKE_STATUS = (
    pl.when(pl.col("status") == "recorded")
    .then(pl.any_horizontal(pl.col([stat for stat in STATS if stat != "reception_pct"]).is_null()))
    .otherwise(pl.any_horizontal(pl.col(STATS).is_not_null()))
)
_IMPLAUSIBLE = pl.any_horizontal(
    ~pl.col(stat).is_between(*bounds).fill_null(True) for stat, bounds in PLAUSIBLE.items()
)


def _schema_matches(players: pl.DataFrame) -> Check:
    found, wanted = dict(players.schema), dict(PLAYERS_SCHEMA)
    lacking = [f"lacks {name}" for name in wanted if name not in found]
    extra = [f"has unknown {name}" for name in found if name not in wanted]
    wrong = [f"{n} is {found[n]}, not {wanted[n]}" for n in wanted if n in found and found[n] != wanted[n]]
    differences = lacking + extra + wrong
    if not differences and list(found) != list(wanted):
        differences = [f"columns in another order: {list(found)}"]
    return Check("schema_matches", not differences, "; ".join(differences) or f"{len(wanted)} columns")


def _none(players: pl.DataFrame, name: str, bad: pl.Expr, problem: str) -> Check:
    worst = players.filter(bad.fill_null(False)).sort("player", "player_id")
    if worst.is_empty():
        return Check(name, True, f"none of {players.height} rows")
    shown = [f"{row['player']} ({row['player_id']}): {_stats_text(row)}" for row in worst.head(WORST).to_dicts()]
    return Check(name, False, f"{worst.height} of {players.height} {problem}: {', '.join(shown)}")


def _stats_text(row: dict[str, object]) -> str:
    return " ".join(f"{stat}={row[stat]}" for stat in STATS[:4])


def _size_is_usual(players: pl.DataFrame) -> Check:
    fewest, most = FULL_WEEK_ROWS
    usual = fewest <= players.height <= most
    return Check("size_is_usual", usual, f"{players.height} rows; a full week has {fewest} to {most}")
