"""What must hold, and what should, of a week's frame alone and beside other weeks: pure functions behind the asset checks.

Where there is nothing to compare a week with, nothing is odd about it. The limits were set by real weeks: ten of 2025 have 441
or 442 rows and 108 to 139 players with a record, one of 2021 has 370 and 126, and of the players recorded in any two weeks at
most 3.8% have the same line in both. What people should know of a week is kept beside its frame (`write_record`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from types import MappingProxyType
from typing import Literal

import polars as pl

from nfl_lora_pipeline.files import DamagedFile, replace_file
from nfl_lora_pipeline.stats import COLUMNS, STATS, TEACHABLE, Position
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import WeekRecord, json_bytes
from nfl_lora_pipeline.weeks.names import plain_names
from nfl_lora_pipeline.weeks.players import PLAYERS_SCHEMA
from nfl_lora_pipeline.weeks.week import NflWeek

SAMPLE_WARNING = (
    "These are invented people, not NFL data: the bundled sample was used; only the three original questions are about "
    "real players"
)


def write_record(store: Store, week: NflWeek, *, warnings: Sequence[str], accepted: bool) -> None:
    """Keep what was found on a week.

    Args:
        held: the store.
        week: which one.
        warnings: one line each.
        accepted: whether somebody who knows better has accepted what is odd about it.
    """
    record = WeekRecord(
        schema_version=WeekRecord.SCHEMA, source=store.source_kind(week), warnings=list(warnings), accepted=accepted
    )
    replace_file(store.players_record(week), json_bytes(record.content()))


def read_record(store: Store, week: NflWeek) -> WeekRecord | None:
    """What `write_record` has kept; None where it has kept nothing, or that cannot be read."""
    try:
        return store.read_players_record(week)
    except DamagedFile:
        return None


def is_accepted(store: Store, week: NflWeek) -> bool:
    """Whether somebody has accepted what is odd about a week."""
    record = read_record(store, week)
    return record is not None and record.accepted


def accept(store: Store, week: NflWeek, warnings: Sequence[str]) -> None:
    """Add warnings to what is kept of a week whose oddity was found, and accepted, after it had come."""
    record = read_record(store, week)
    before = record.warnings if record else []
    write_record(store, week, warnings=list(dict.fromkeys([*before, *warnings])), accepted=True)


def warnings_of(store: Store, weeks: Iterable[NflWeek]) -> list[str]:
    """All that somebody who uses these weeks should know of them, each line once."""
    every_week = list(weeks)
    sample = [SAMPLE_WARNING] if any(store.is_invented(week) for week in every_week) else []
    records = [record for week in every_week if (record := read_record(store, week))]
    lines = [line for record in records for line in record.warnings]
    return list(dict.fromkeys([*sample, *lines]))


LINE = list(TEACHABLE)
WHOLE_ROWS = 100  # a frame of fewer rows is somebody's choice of people, and no whole week
FEWEST_RECORDED_SHARE = 0.1  # at least this share of a whole week's rows has a record
COMPARABLE_ROWS, COMPARABLE_LINES = 50, 20  # a share of fewer rows, or of fewer lines, means nothing
SMALLEST_REAL_WEEKS: Mapping[Position, tuple[int, int]] = {"WR": (370, 108), "RB": (202, 73), "TE": (182, 59)}
"""Rows, and those with a record; used where the store has nothing to compare with. Of wide receivers eleven weeks have been
seen; of the others week 1 of 2025 alone (241 and 91, 217 and 74), from which theirs are as far as those of wide receivers."""
FEWEST_ROWS_SHARE, FEWEST_RECORDED_OF_USUAL = 0.75, 0.5
MOST_LINES_AGAIN = 0.25

Finding = tuple[bool, str]  # whether all is well, and what was found in words


def somebody_is_recorded(players: pl.DataFrame) -> Finding:
    """Whether anybody has a record, and in a whole week one in ten: one game of sixteen is not a week."""
    recorded, rows = _recorded(players).height, players.height
    fewest = FEWEST_RECORDED_SHARE * rows if rows >= WHOLE_ROWS else 1
    finding = f"{recorded:,} of {rows:,} players have anything recorded"
    return recorded >= fewest, finding if recorded >= fewest else f"{finding}: was the week played to its end?"


def as_many_as_usual(
    players: pl.DataFrame, others: Sequence[pl.DataFrame], *, invented: bool = False, position: Position = "WR"
) -> Finding:
    """Whether rows, and players with a record, are about as many as in the median of the other weeks.

    A first week is held against the smallest real one of its position, unless none is known or its people are `invented` or
    chosen by somebody.
    """
    usual_rows = median(other.height for other in others) if others else 0
    recorded, usual = _recorded(players).height, median(_recorded(other).height for other in others) if others else 0
    if usual_rows < COMPARABLE_ROWS:
        if invented or players.height < WHOLE_ROWS or position not in SMALLEST_REAL_WEEKS:
            return True, "no whole week to compare with"
        usual_rows, usual = SMALLEST_REAL_WEEKS[position]
    passed = players.height >= FEWEST_ROWS_SHARE * usual_rows and recorded >= FEWEST_RECORDED_OF_USUAL * usual
    return passed, (
        f"{players.height:,} rows, {recorded:,} of them with a record; usual are {usual_rows:,.0f} rows, "
        f"{usual:,.0f} with one"
    )


def numbers_are_its_own(players: pl.DataFrame, others: Mapping[NflWeek, pl.DataFrame]) -> Finding:
    """Whether the players' numbers are others than in any other week."""
    lines = _lines(players)
    worst, finding = 0.0, "no week to compare with"
    for week, other in others.items():
        both = lines.join(_lines(other), on="player_id", suffix="_other")
        if both.height < COMPARABLE_LINES:
            continue
        same = both.filter(pl.all_horizontal(pl.col(stat) == pl.col(f"{stat}_other") for stat in LINE)).height
        if same / both.height >= worst:
            worst = same / both.height
            finding = f"{same:,} of {both.height:,} players have the same numbers as in {week}"
    return worst < MOST_LINES_AGAIN, finding


def weeks_beside(store: Store, week: NflWeek) -> dict[NflWeek, pl.DataFrame]:
    """The frames in the store to hold a week against: of its season or, where there are none, of all seasons.

    Weeks of invented people are held against such weeks only, and real ones against real ones. A frame that cannot be read
    is left out, and a week that is odd itself and was accepted.
    """
    weeks_in_store = store.weeks_with("players.parquet")
    alike = [
        one
        for one in weeks_in_store
        if one != week and store.is_invented(one) == store.is_invented(week) and not is_accepted(store, one)
    ]
    season = [one for one in alike if one.season == week.season]
    frames = {one: read_lines(store, one) for one in season or alike}
    return {one: frame for one, frame in frames.items() if frame is not None}


def read_lines(store: Store, week: NflWeek) -> pl.DataFrame | None:
    """What of a week's frame in the store is compared; None where there is none, or it cannot be read."""
    try:
        return store.read_players(week).select("player_id", "status", *LINE)
    except DamagedFile:
        return None


def _recorded(players: pl.DataFrame) -> pl.DataFrame:
    return players.filter(pl.col("status") == "recorded")


def _lines(players: pl.DataFrame) -> pl.DataFrame:
    """The numbers of all who have one other than 0."""
    return _recorded(players).select("player_id", *LINE).filter(pl.any_horizontal(pl.col(LINE) != 0))


FULL_WEEK_ROWS: Mapping[Position, tuple[int, int]] = {"WR": (300, 700), "RB": (160, 380), "TE": (150, 350)}
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
    position: Position = "WR",
) -> list[Check]:
    """Check the frame of one week.

    Args:
        players: one row per player, as `players.parse_week` returns it.
        others: the frames of other weeks to hold it against (`weeks_beside`).
        earlier: the frame of the same week as it was before.
        accept_odd: whether what is odd beside other weeks (`ODD`) is no more than a warning.
        invented: whether it is of the bundled sample, whose weeks are smaller than real ones.
        position: whose week it is; of some more players are usual than of others.

    Returns:
        One finding for each of `CHECKS`, in their order. Where the schema differs nothing else can be asked: the others
        fail with it.
    """
    findings = {check.name: check for check in _found(players, others, earlier, invented, position)}
    checks = [findings[name] for name in CHECKS]
    return [replace(check, severity="warn") if accept_odd and check.name in ODD else check for check in checks]


def check_week(store: Store, week: NflWeek, players: pl.DataFrame, *, accept_odd: bool) -> list[Check]:
    """Check a week's new frame beside the other weeks of the store, and beside what the store holds of this week."""
    record = read_record(store, week)
    same_people = record is not None and (record.source == "sample") == store.is_invented(week)
    earlier = read_lines(store, week) if same_people else None
    beside, invented, position = weeks_beside(store, week), store.is_invented(week), store.position_of(week) or "WR"
    return check_players(players, beside, earlier=earlier, accept_odd=accept_odd, invented=invented, position=position)


def odd_by_now(store: Store, weeks: Iterable[NflWeek]) -> dict[NflWeek, list[str]]:
    """Weeks of the store that are odd beside weeks that came after them: what was found, one line each.

    A week is checked when it comes, and the first one has nothing to be held against. What was accepted is left out.
    """
    findings: dict[NflWeek, list[str]] = {}
    for week in weeks:
        frame, others = read_lines(store, week), weeks_beside(store, week)
        if frame is None or is_accepted(store, week):
            continue
        invented, position = store.is_invented(week), store.position_of(week) or "WR"
        looks = {
            "as_many_as_usual": as_many_as_usual(frame, list(others.values()), invented=invented, position=position),
            "numbers_are_its_own": numbers_are_its_own(frame, others),
        }
        if lines := [f"{week}: {look} ({name})" for name, (passed, look) in looks.items() if not passed]:
            findings[week] = lines
    return findings


def _found(
    players: pl.DataFrame,
    others: Mapping[NflWeek, pl.DataFrame],
    earlier: pl.DataFrame | None,
    invented: bool,
    position: Position,
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
        _check("as_many_as_usual", *as_many_as_usual(players, beside, invented=invented, position=position)),
        _check("numbers_are_its_own", *numbers_are_its_own(players, others)),
        _size_is_usual(players, position),
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


def _size_is_usual(players: pl.DataFrame, position: Position) -> Check:
    if position not in FULL_WEEK_ROWS:
        return _check("size_is_usual", True, f"{players.height} rows; how many a full week has is not known")
    fewest, most = FULL_WEEK_ROWS[position]
    usual = fewest <= players.height <= most
    return _check("size_is_usual", usual, f"{players.height} rows; a full week has {fewest} to {most}")
