"""What must hold, and what should, of a week's frame: pure functions behind the asset checks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import polars as pl

from nfl_lora_pipeline.season.oddities import (
    as_many_as_usual,
    is_accepted,
    numbers_are_its_own,
    read_lines,
    read_record,
    somebody_is_recorded,
    weeks_beside,
)
from nfl_lora_pipeline.stats import COLUMNS, STATS
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.weeks.names import plain_names
from nfl_lora_pipeline.weeks.players import PLAYERS_SCHEMA
from nfl_lora_pipeline.weeks.week import NflWeek

FULL_WEEK_ROWS = (300, 700)
WORST = 5
Severity = Literal["error", "warn"]
CHECKS: dict[str, Severity] = {
    "schema_matches": "error",
    "has_rows": "error",
    "ids_are_unique": "error",
    "only_recorded_have_stats": "error",
    "somebody_is_recorded": "error",
    "as_many_as_usual": "error",
    "numbers_are_its_own": "error",
    "names_are_unique": "warn",
    "stats_are_plausible": "warn",
    "catches_within_targets": "warn",
    "touchdowns_within_catches": "warn",
    "size_is_usual": "warn",
}
ODD = ("somebody_is_recorded", "as_many_as_usual", "numbers_are_its_own")  # somebody who knows better may accept these
ACCEPT = (
    "fetch the week again when it is whole, or take it as it is: --accept-odd-weeks, accept_odd_weeks of `week_source`"
)
NO_OTHERS: Mapping[NflWeek, pl.DataFrame] = MappingProxyType({})


@dataclass(frozen=True)
class Check:
    """One finding; `description` names the worst rows where it failed, or what was looked at where it passed.

    Attributes:
        severity: whether what comes after must not go on ("error") or may ("warn").
    """

    name: str
    passed: bool
    description: str
    severity: Severity

    @property
    def blocks(self) -> bool:
        """Whether what comes after must not go on."""
        return not self.passed and self.severity == "error"


def check_players(
    players: pl.DataFrame,
    others: Mapping[NflWeek, pl.DataFrame] = NO_OTHERS,
    *,
    earlier: pl.DataFrame | None = None,
    accept_odd: bool = False,
    invented: bool = False,
) -> list[Check]:
    """Check the frame of one week.

    Args:
        players: one row per player, as `players.parse_week` returns it.
        others: the frames of other weeks to hold it against (`oddities.weeks_beside`).
        earlier: the frame of the same week as it was before.
        accept_odd: whether what is odd beside other weeks (`ODD`) is no more than a warning.
        invented: whether it is of the bundled sample, whose weeks are smaller than real ones.

    Returns:
        One finding for each of `CHECKS`, in their order. Where the schema differs nothing else can be asked: the others
        fail with it.
    """
    findings = {check.name: check for check in _found(players, others, earlier, invented=invented)}
    checks = [findings[name] for name in CHECKS]
    return [replace(check, severity="warn") if accept_odd and check.name in ODD else check for check in checks]


def check_week(store: Store, week: NflWeek, players: pl.DataFrame, *, accept_odd: bool) -> list[Check]:
    """Check a week's new frame beside the other weeks of the store, and beside what the store holds of this week."""
    record = read_record(store, week)
    same_people = record is not None and (record.source == "sample") == store.is_invented(week)
    earlier = read_lines(store, week) if same_people else None
    beside, invented = weeks_beside(store, week), store.is_invented(week)
    return check_players(players, beside, earlier=earlier, accept_odd=accept_odd, invented=invented)


def odd_by_now(store: Store, weeks: Iterable[NflWeek]) -> dict[NflWeek, list[str]]:
    """Weeks of the store that are odd beside weeks that came after them: what was found, one line each.

    A week is checked when it comes, and the first one has nothing to be held against. What was accepted is left out.
    """
    findings: dict[NflWeek, list[str]] = {}
    for week in weeks:
        frame, others = read_lines(store, week), weeks_beside(store, week)
        if frame is None or is_accepted(store, week):
            continue
        looks = {
            "as_many_as_usual": as_many_as_usual(frame, list(others.values()), invented=store.is_invented(week)),
            "numbers_are_its_own": numbers_are_its_own(frame, others),
        }
        if lines := [f"{week}: {look} ({name})" for name, (passed, look) in looks.items() if not passed]:
            findings[week] = lines
    return findings


def _found(
    players: pl.DataFrame, others: Mapping[NflWeek, pl.DataFrame], earlier: pl.DataFrame | None, *, invented: bool
) -> list[Check]:
    schema = _schema_matches(players)
    if not schema.passed:
        return [schema, *(_check(name, False, "not asked: the schema differs") for name in list(CHECKS)[1:])]
    beside = [*others.values(), *([] if earlier is None else [earlier])]
    return [
        schema,
        _check("has_rows", players.height > 0, f"{players.height} rows"),
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
        _check("somebody_is_recorded", *somebody_is_recorded(players)),
        _check("as_many_as_usual", *as_many_as_usual(players, beside, invented=invented)),
        _check("numbers_are_its_own", *numbers_are_its_own(players, others)),
        _size_is_usual(players),
    ]


def _check(name: str, passed: bool, description: str) -> Check:
    return Check(name, passed, description, CHECKS[name])


_STATS_UNLIKE_STATUS = (
    pl.when(pl.col("status") == "recorded")
    .then(pl.any_horizontal(pl.col([stat for stat in COLUMNS if stat != "reception_pct"]).is_null()))
    .otherwise(pl.any_horizontal(pl.col(COLUMNS).is_not_null()))
)
_IMPLAUSIBLE = pl.any_horizontal(
    ~pl.col(stat.column).is_between(*stat.plausible).fill_null(True)
    for stat in STATS
    if stat.upstream and stat.plausible
)


def _schema_matches(players: pl.DataFrame) -> Check:
    actual, expected = dict(players.schema), dict(PLAYERS_SCHEMA)
    missing = [f"lacks {name}" for name in expected if name not in actual]
    extra = [f"has unknown {name}" for name in actual if name not in expected]
    wrong = [f"{n} is {actual[n]}, not {expected[n]}" for n in expected if n in actual and actual[n] != expected[n]]
    differences = missing + extra + wrong
    if not differences and list(actual) != list(expected):
        differences = [f"columns in another order: {list(actual)}"]
    return _check("schema_matches", not differences, "; ".join(differences) or f"{len(expected)} columns")


def _none(players: pl.DataFrame, name: str, bad: pl.Expr, problem: str) -> Check:
    worst = players.filter(bad.fill_null(False)).sort("player", "player_id")
    if worst.is_empty():
        return _check(name, True, f"none of {players.height} rows")
    examples = [f"{row['player']} ({row['player_id']}): {_stats_text(row)}" for row in worst.head(WORST).to_dicts()]
    return _check(name, False, f"{worst.height} of {players.height} {problem}: {', '.join(examples)}")


def _stats_text(row: dict[str, object]) -> str:
    return " ".join(f"{stat}={row[stat]}" for stat in COLUMNS[:4])


def _size_is_usual(players: pl.DataFrame) -> Check:
    fewest, most = FULL_WEEK_ROWS
    usual = fewest <= players.height <= most
    return _check("size_is_usual", usual, f"{players.height} rows; a full week has {fewest} to {most}")
