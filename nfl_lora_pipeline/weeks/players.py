"""A week's bytes to a typed frame: one row per player, with what he did and why there may be nothing to tell."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import polars as pl

from nfl_lora_pipeline.stats import COLUMNS, STATS, Position
from nfl_lora_pipeline.weeks.names import plain_names
from nfl_lora_pipeline.weeks.sources import SourceError
from nfl_lora_pipeline.weeks.sources.folder import is_there, read_file
from nfl_lora_pipeline.weeks.week import NflWeek, file_name

TEXTS = {"PlayerId": "player_id", "PlayerName": "player", "Team": "team", "PlayerOpponent": "opponent"}
NUMBERS = {stat.upstream: stat for stat in STATS if stat.upstream}
NAMES = TEXTS | {key: stat.column for key, stat in NUMBERS.items()}
"""Every field in use, by upstream's name for it: the texts of a player, and the stats of the table in `stats.py`."""

UPSTREAM_KEYS = """PlayerName PlayerId Pos Team PlayerOpponent PassingYDS PassingTD PassingInt RushingYDS RushingTD
ReceivingRec ReceivingYDS ReceivingTD RetTD FumTD 2PT Fum FanPtsAgainst-pts TouchCarries TouchReceptions Touches
TargetsReceptions Targets ReceptionPercentage RzTarget RzTouch RzG2G Rank TotalPoints""".split()
TEAMS = """ARI ATL BAL BUF CAR CHI CIN CLE DAL DEN DET GB HOU IND JAX KC LAC LAR LV MIA MIN NE NO NYG NYJ PHI PIT SEA SF
TB TEN WAS""".split()

WHOLE_NUMBER, NUMBER = r"^-?[0-9]{1,6}$", r"^-?[0-9]{1,6}(\.[0-9]+)?$"
LONGEST = 100
UNKNOWN_NAMED = 20
# These are control characters (C0, C1), separators of lines and paragraphs, marks that turn the direction of a text, and
# halves of characters.
_NOT_IN_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
FETCH_AGAIN = "fetch the week again"
MEND = "fetch the week again, or correct the file"

Entry = dict[str, object]


class _Twice(Entry):
    """An object in which a key stands twice."""

    key: str


class BadWeek(ValueError):
    """A week's file cannot be read; the message names the file, the row and field where there is one, and the mend."""


def read_rows(content: bytes, *, origin: str) -> tuple[pl.DataFrame, list[str]]:
    """Read the bytes of a week's file.

    Args:
        content: the file, UTF-8 JSON.
        origin: the file's path or URL, as messages show it.

    Returns:
        A frame with one row per object, in the file's order: `row` (UInt32, from 1) and the fields in use under
        upstream's names, all String, stripped, null where blank. And warnings: fields unknown, and fields not in use
        that are missing.

    Raises:
        BadWeek: the file is not a list of objects, a key stands twice in one, a field in use is missing, a name, an id, a
            team or an opponent is blank, a value has the wrong type, is longer than 100 characters, holds characters that
            no text has (`_NOT_IN_TEXT`) or is no number, or an id stands twice.

    Source: https://github.com/hvpkod/NFL-Data
    """
    entries = _entries(content, origin)
    warnings = _check_keys(entries, origin)
    values = {field: [_text(entry, field, row, origin) for row, entry in enumerate(entries, 1)] for field in NAMES}
    rows = (
        pl.LazyFrame(values, schema=dict.fromkeys(NAMES, pl.String()))
        .with_columns(pl.all().str.strip_chars())
        .with_columns(pl.when(pl.all() != "").then(pl.all()))
        .with_row_index("row", offset=1)
        .collect()
    )
    for field in TEXTS:
        _refuse_first(rows, field, pl.col(field).is_null(), "is blank", origin)
    for field, stat in NUMBERS.items():
        pattern, allowed = (WHOLE_NUMBER, "a whole number") if stat.whole else (NUMBER, "a number")
        _refuse_first(rows, field, ~pl.col(field).str.contains(pattern), f"is not {allowed}", origin)
    _refuse_first(rows, "PlayerId", ~pl.col("PlayerId").is_first_distinct(), "stands in an earlier row too", origin)
    return rows, warnings


def _refuse(origin: str, problem: str, mend: str = MEND) -> NoReturn:
    raise BadWeek(f"{origin}: {problem}; {mend}")


def _entries(content: bytes, origin: str) -> list[Entry]:
    if not content.strip():
        _refuse(origin, "the file is empty", FETCH_AGAIN)
    if content.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        _refuse(origin, "this is a web page (HTML), not a week's JSON", "check the address, then fetch the week again")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        value = content[error.start : error.start + 1]
        _refuse(origin, f"not UTF-8: byte {error.start} is {value!r}", FETCH_AGAIN)
    try:
        entries = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        if text.lstrip().startswith("[") and not text.rstrip().endswith("]"):
            line = text.count("\n") + 1
            _refuse(origin, f"the file ends early, at byte {len(content)} (line {line})", FETCH_AGAIN)
        place = f"byte {len(text[: error.pos].encode())} (line {error.lineno})"
        _refuse(origin, f"not JSON at {place}: {error.msg}, near {text[error.pos : error.pos + 20]!r}")
    except (ValueError, RecursionError) as error:
        _refuse(origin, f"not a week's JSON: {error}")
    if not isinstance(entries, list):
        _refuse(origin, f"expected a list of players, found {_kind(entries)}")
    if not entries:
        _refuse(origin, "the list of players is empty", "the week may not be published yet: fetch it again later")
    for row, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            _refuse(origin, f"row {row}: expected an object, found {_kind(entry)} {entry!r:.40}")
        twice = next((value for value in (entry, *entry.values()) if isinstance(value, _Twice)), None)
        if twice is not None:
            _refuse(origin, f"{_row(row, entry)}: the field {_shown(twice.key)} stands twice")
    return entries


def _object(pairs: list[tuple[str, object]]) -> Entry:
    entry = dict(pairs)
    if len(entry) == len(pairs):
        return entry
    twice = _Twice(entry)
    counts = Counter(key for key, _ in pairs)
    twice.key = next(key for key, count in counts.items() if count > 1)
    return twice


def _check_keys(entries: list[Entry], origin: str) -> list[str]:
    fields = set().union(*entries)
    for field in NAMES:
        if field not in fields:
            _refuse(origin, f"no row has the field {field}", "upstream's format may have changed: see weeks/players.py")
        for row, entry in enumerate(entries, 1):
            if field not in entry:
                _refuse(origin, f"{_row(row, entry)} lacks the field {field}")
    unused = [key for key in UPSTREAM_KEYS if key not in NAMES]
    missing = [key for key in unused if any(key not in entry for entry in entries)]
    unknown = sorted(fields - set(UPSTREAM_KEYS))
    more = len(unknown) - UNKNOWN_NAMED
    return [
        *(f"{origin}: unknown field {_shown(key)} is left out" for key in unknown[:UNKNOWN_NAMED]),
        *([f"{origin}: {more:,} more unknown fields are left out"] if more > 0 else []),
        *(f"{origin}: field {key} is missing; it is not in use" for key in missing),
    ]


def _text(entry: Entry, field: str, row: int, origin: str) -> str | None:
    value = entry[field]
    allowed: tuple[type, ...] = (str,) if field in TEXTS else (str, int, float)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, allowed):
        _refuse(origin, f"{_row(row, entry)}: {field}: expected a string, found {_kind(value)} {json.dumps(value):.40}")
    text = str(value)
    if len(text) > LONGEST:
        _refuse(
            origin, f"{_row(row, entry)}: {field}: {_shown(text)} has more than {LONGEST} characters ({len(text):,})"
        )
    if found := _NOT_IN_TEXT.search(text):
        _refuse(origin, f"{_row(row, entry)}: {field}: {_shown(text)} holds {found[0]!a}, which no text in use may")
    return text


def _refuse_first(rows: pl.DataFrame, field: str, bad: pl.Expr, problem: str, origin: str) -> None:
    found = rows.filter(bad.fill_null(False)).head(1)
    if not found.is_empty():
        entry = found.row(0, named=True)
        _refuse(origin, f"{_row(entry['row'], entry)}: {field}: {entry[field] or ''!r} {problem}")


def _row(row: int, entry: Entry) -> str:
    name = entry.get("PlayerName")
    if not isinstance(name, str) or not name.strip():
        return f"row {row}"
    plain = len(name) <= LONGEST and not _NOT_IN_TEXT.search(name)
    return f"row {row} ({name if plain else _shown(name)})"


def _shown(text: str) -> str:
    """A text of the file for a message: short, in quotes, with escapes for what is not to be seen."""
    return f"{text[:60]!a}…" if len(text) > 60 else repr(text) if text.isprintable() else ascii(text)


def _kind(value: object) -> str:
    kinds = {bool: "true/false", type(None): "null", str: "a string", list: "a list", dict: "an object"}
    return kinds.get(type(value), "a number")


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
        **{stat.column: pl.Int32() if stat.whole else pl.Float64() for stat in NUMBERS.values()},
    }
)


def parse_week(content: bytes, *, week: NflWeek, origin: str) -> tuple[pl.DataFrame, list[str]]:
    """Read a week's file; `status` is that of `player_status`.

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
        BadWeek: see `read_rows`.

    Source: https://github.com/hvpkod/NFL-Data
    """
    rows, warnings = read_rows(content, origin=origin)
    stats, has_game = pl.col(COLUMNS), pl.col("opponent") != "Bye"
    nothing_to_divide = (pl.col("targets") == 0) & (pl.col("reception_pct") == 0)
    players = (
        rows.lazy()
        .rename(NAMES)
        .with_columns(pl.col(column).cast(PLAYERS_SCHEMA[column]) for column in COLUMNS)
        .with_columns(stats.fill_null(0) + 0)  # + 0 turns "-0.00" into 0
        .with_columns(
            season=pl.lit(week.season, pl.Int32),
            week=pl.lit(week.week, pl.Int8),
            team=pl.col("team").replace("LA", "LAR"),
            opponent=pl.when(has_game).then(pl.col("opponent").str.strip_prefix("@").replace("LA", "LAR")),
            is_home=pl.when(has_game).then(~pl.col("opponent").str.starts_with("@")),
            status=player_status(has_game),
        )
        .with_columns(reception_pct=pl.when(~nothing_to_divide).then(pl.col("reception_pct")))
        .with_columns(pl.when(pl.col("status") == "recorded").then(stats))
        .select(list(PLAYERS_SCHEMA))
        .sort("player", "player_id")
        .collect()
    )
    return players, warnings + _oddities(players, origin)


def player_status(has_game: pl.Expr) -> pl.Expr:
    """What is known of a player, by the first rule that holds.

    - `recorded`: any of his stats is other than 0, fantasy points among them (the points of a punt returner are his
      only trace). It comes first: somebody cut or traded after his game is `FA` or on a bye in the file, with numbers.
    - `free_agent`: his team is `FA`.
    - `bye`: his opponent is `Bye`.
    - `no_record`: he had a game, and nothing is recorded for him.
    """
    return (
        pl.when(pl.any_horizontal(pl.col(COLUMNS) != 0))
        .then(pl.lit("recorded"))
        .when(pl.col("team") == "FA")
        .then(pl.lit("free_agent"))
        .when(~has_game)
        .then(pl.lit("bye"))
        .otherwise(pl.lit("no_record"))
        .cast(STATUS)
    )


def _oddities(players: pl.DataFrame, origin: str) -> list[str]:
    codes = pl.concat([players["team"], players["opponent"].drop_nulls()]).unique().sort().to_list()
    unknown = [f"{origin}: unknown team {code!r}" for code in codes if code not in {*TEAMS, "FA"}]
    bears_it_too = plain_names().str.to_lowercase().is_duplicated()
    names = players.filter(bears_it_too)["player"].unique().sort().to_list()
    shared = [
        f"{origin}: more than one player is called {name!r}: what is asked about them is ambiguous" for name in names
    ]
    return unknown + shared


OTHER_POSITIONS: Mapping[str, Position] = {"wide_receivers": "WR", "tight_ends": "TE", "running_backs": "RB"}
"""Whose files may lie beside a week's, by the name of the group of questions about them."""


def strangers_to(position: Position) -> dict[str, Position]:
    """Those of `OTHER_POSITIONS` who play another position."""
    return {group: other for group, other in OTHER_POSITIONS.items() if other != position}


def names_beside(
    week_file: Path, week: NflWeek, *, position: Position = "WR", known_ids: frozenset[str] = frozenset()
) -> tuple[Mapping[str, list[str]], list[str]]:
    """Who plays another position, from the files that may lie beside a week's.

    They serve the evaluation alone, so that one that cannot be read costs its questions and nothing else.

    Args:
        week_file: `{folder}/2025/1/WR.json`.
        week: the week.
        position: whose file that is.
        known_ids: who is taught, and left out under whatever name.

    Returns:
        Sorted names by a key of `OTHER_POSITIONS`, and for each file that is not there or cannot be read a line that says so.
    """
    found: dict[str, list[str]] = {}
    missing: list[str] = []
    for group, other in strangers_to(position).items():
        name = file_name(other)
        file = week_file.with_name(name)
        if not is_there(file):
            missing.append(f"{week}: no {name} beside {week_file.name}")
            continue
        try:
            players, _ = parse_week(read_file(file), week=week, origin=name)
            others = players.filter(~pl.col("player_id").is_in(known_ids)).select(plain_names()).to_series()
            found[group] = sorted(others.unique())
        except (BadWeek, SourceError, OSError) as error:
            missing.append(f"{week}: {name} cannot be read: {str(error).removeprefix(f'{file}: ')}")
    return found, missing
