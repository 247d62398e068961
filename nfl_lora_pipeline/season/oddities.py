"""What is odd about a week beside other weeks: nobody played, rows are missing, or the numbers are those of another week.

Each function looks at frames of `players.parse_week` and says what it found. Where there is nothing to compare with, nothing
is odd. The limits were set by real weeks: ten of 2025 have 441 or 442 rows and 108 to 139 players with a record, one of 2021
has 370 and 126, and of the players recorded in any two weeks at most 3.8% have the same line in both.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

import polars as pl

from nfl_lora_pipeline.files import DamagedFile, replace_file
from nfl_lora_pipeline.stats import TAUGHT
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.stored import WeekRecord, json_bytes
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


LINE = list(TAUGHT)
WHOLE_ROWS = 100  # a frame of fewer rows is somebody's choice of people, and no whole week
FEWEST_RECORDED_SHARE = 0.1  # at least this share of a whole week's rows has a record
COMPARABLE_ROWS, COMPARABLE_LINES = 50, 20  # a share of fewer rows, or of fewer lines, means nothing
SMALLEST_REAL_WEEK = (370, 108)  # its rows, and those with a record; used where the store has nothing to compare with
FEWEST_ROWS_SHARE, FEWEST_RECORDED_OF_USUAL = 0.75, 0.5
MOST_LINES_AGAIN = 0.25

Finding = tuple[bool, str]  # whether all is well, and what was found in words


def somebody_is_recorded(players: pl.DataFrame) -> Finding:
    """Whether anybody has a record, and in a whole week one in ten: one game of sixteen is not a week."""
    recorded, rows = _recorded(players).height, players.height
    fewest = FEWEST_RECORDED_SHARE * rows if rows >= WHOLE_ROWS else 1
    finding = f"{recorded:,} of {rows:,} players have anything recorded"
    return recorded >= fewest, finding if recorded >= fewest else f"{finding}: was the week played to its end?"


def as_many_as_usual(players: pl.DataFrame, others: Sequence[pl.DataFrame], *, invented: bool = False) -> Finding:
    """Whether rows, and players with a record, are about as many as in the median of the other weeks.

    A first week is held against the smallest real one, unless its people are `invented` or chosen by somebody.
    """
    usual_rows = median(other.height for other in others) if others else 0
    recorded, usual = _recorded(players).height, median(_recorded(other).height for other in others) if others else 0
    if usual_rows < COMPARABLE_ROWS:
        if invented or players.height < WHOLE_ROWS:
            return True, "no whole week to compare with"
        usual_rows, usual = SMALLEST_REAL_WEEK
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
