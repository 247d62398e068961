"""A week of an NFL season, and the partition key that stands for it."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby

from nfl_lora_pipeline.stats import Position

_KEY = re.compile(r"([0-9]{4})-W([0-9]{2})")
FIRST_SEASON, LAST_SEASON = 2000, 2099
LAST_WEEK = 18


@dataclass(frozen=True, order=True)
class NflWeek:
    """`NflWeek(2025, 1)`; sorts by season, then week. `str()` gives the partition key "2025-W01"."""

    season: int
    week: int

    def __post_init__(self) -> None:
        if not FIRST_SEASON <= self.season <= LAST_SEASON:
            raise ValueError(f"season {self.season}: expected a year from {FIRST_SEASON} to {LAST_SEASON}")
        if not 1 <= self.week <= LAST_WEEK:
            raise ValueError(f"week {self.week}: a regular season has weeks 1 to {LAST_WEEK}")

    def __str__(self) -> str:
        return f"{self.season}-W{self.week:02d}"

    @classmethod
    def parse(cls, key: str) -> "NflWeek":
        """Read a partition key.

        Raises:
            ValueError: `key` is not of the form 2025-W01.
        """
        match = _KEY.fullmatch(key)
        if match is None:
            raise ValueError(f"week {key!r}: expected a partition key such as 2025-W01")
        return cls(int(match[1]), int(match[2]))


def file_name(position: Position) -> str:
    """What upstream calls the file of a week's players of a position."""
    return f"{position}.json"


def is_key(text: str) -> bool:
    """Whether a text is a partition key of a week that can be."""
    try:
        return bool(NflWeek.parse(text))
    except ValueError:
        return False


def parse_weeks(text: str) -> list[int]:
    """Week numbers from "1", "1-3" or "1,4-6", sorted, each once.

    Raises:
        ValueError: a part is not a number or a rising range from 1 to 18.
    """
    weeks: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]+)(?:-([0-9]+))?\s*", part)
        if match is None:
            raise ValueError(f"weeks {text!r}: {part!r} is not a week; write 1, 1-3 or 1,4-6")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= LAST_WEEK:
            raise ValueError(f"weeks {text!r}: {part.strip()!r} is not within 1 to {LAST_WEEK}")
        weeks.update(range(first, last + 1))
    return sorted(weeks)


def weeks_named(text: str, season: int | None) -> list[NflWeek]:
    """The weeks that somebody names: numbers in a season ("1-3"), or partition keys ("2025-W01,2025-W02"), sorted.

    Raises:
        ValueError: a part is neither, or is a number and no season is named.
    """
    parts = [part.strip() for part in text.split(",")]
    if any(_KEY.fullmatch(part) for part in parts):
        return sorted({NflWeek.parse(part) for part in parts})
    numbers = parse_weeks(text)
    if season is None:
        raise ValueError(f"weeks {text!r}: of which season? Add --season, or write 2025-W{numbers[0]:02d}")
    return [NflWeek(season, number) for number in numbers]


def spoken_weeks(keys: Sequence[str]) -> str:
    """Partition keys in short: "2025 1-9", "2024 17-18, 2025 1, 3"."""
    weeks = sorted(NflWeek.parse(key) for key in keys)
    seasons = []
    for season, of_season in groupby(weeks, key=lambda week: week.season):
        runs = groupby(enumerate(week.week for week in of_season), key=lambda pair: pair[1] - pair[0])
        spans = [[number for _, number in run] for _, run in runs]
        spans_text = ", ".join(str(span[0]) if len(span) == 1 else f"{span[0]}-{span[-1]}" for span in spans)
        seasons.append(f"{season} {spans_text}")
    return ", ".join(seasons)


def choose_weeks(
    wanted: Sequence[str], available: Sequence[NflWeek], *, invented: Collection[NflWeek] = ()
) -> list[NflWeek]:
    """The weeks to train on: those of the partition keys in `wanted`, or all held of the newest season.

    Args:
        wanted: partition keys; empty for the real weeks, or where none is real, those of the bundled sample.
        held: all weeks that there are.
        invented: those of them that are of the bundled sample. They are never chosen beside real ones.

    Raises:
        ValueError: no week is held, a key is malformed, its week is not held, or invented and real weeks are both named.
    """
    if not available:
        raise ValueError("no week is held yet: materialise `raw_wr_json`, `players` and `qa_pairs` for one first")
    if not wanted:
        usable = [week for week in available if week not in invented] or available
        return sorted(week for week in usable if week.season == max(usable).season)
    weeks = sorted({NflWeek.parse(key) for key in wanted})
    if missing := set(weeks) - set(available):
        raise ValueError(f"week {min(missing)} is not held: materialise its `qa_pairs` first")
    made_up, real = [week for week in weeks if week in invented], [week for week in weeks if week not in invented]
    if made_up and real:
        raise ValueError(
            f"{_listed(made_up)}: invented people of the bundled sample, not to be taught beside the real {_listed(real)}; "
            "fetch the former from a folder or upstream (--source), or name the latter alone (--weeks)"
        )
    return weeks


def _listed(weeks: Sequence[NflWeek]) -> str:
    return ", ".join(map(str, weeks))
