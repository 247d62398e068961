"""What is new: looks for new and corrected weeks, in a folder or upstream. It keeps and fetches nothing itself."""

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date
from hashlib import sha256
from typing import Literal, Protocol

from nfl_lora_pipeline.files import DamagedFile
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.weeks.sources import Source, SourceError, WeekNotPublished
from nfl_lora_pipeline.weeks.week import LAST_WEEK, NflWeek

Status = Literal["new", "corrected", "unchanged", "not yet", "withdrawn", "unreachable"]
Memory = dict[str, dict[str, str]]

AHEAD = 2  # so many weeks beyond the last one are asked for, since one may be left out for good and the next one appear
LOOK_SECONDS = 20.0  # Dagster gives a sensor 60 seconds, and the last question may take a while
GONE = "gone"
SEASON_BEGINS = 9  # September


class Watched(Protocol):
    """Where weeks come from; `resources.WeekSource` is one."""

    def open(self) -> Source:
        """The source, to be closed after use."""


@dataclass(frozen=True)
class Sighting:
    """What one week looked like.

    Attributes:
        week: which one.
        status: "new" and "corrected" want fetching; "not yet" is a 404 of a week never held, "withdrawn" of one held.
        sha256: the hash of the content seen; empty where none was.
        again: whether the week was seen before.
        problem: why it is unreachable; empty otherwise.
    """

    week: NflWeek
    status: Status
    sha256: str = ""
    again: bool = False
    problem: str = ""


@dataclass
class Look:
    """One look at the weeks of a season.

    Attributes:
        season: the season looked at.
        sightings: the weeks looked at, in order.
        memory: to be handed to the next look; JSON-able.
        warnings: what somebody should read, each said once.
        elsewhere: other seasons that there are in the folder; filled in where nothing was seen.
    """

    season: int
    memory: Memory
    sightings: list[Sighting] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    @property
    def changed(self) -> list[Sighting]:
        """The new and the corrected weeks."""
        return [sighting for sighting in self.sightings if sighting.status in ("new", "corrected")]

    def in_short(self) -> str:
        """One line, such as "season 2025: 3 unchanged, 2 not yet"."""
        counts = Counter(sighting.status for sighting in self.sightings)
        summary = ", ".join(f"{count} {status}" for status, count in counts.items()) or "no week to be seen"
        other = f"; the folder has weeks of {', '.join(self.elsewhere)}: set NFL_LORA_SEASON" if self.elsewhere else ""
        return f"season {self.season}: {summary}{other}"


def season_on(day: date) -> int:
    """The season that is on or was last: from September to the next August, the year of that September."""
    return day.year if day.month >= SEASON_BEGINS else day.year - 1


def season_to_watch(source: Watched, day: date) -> int:
    """The newest season that a folder has a week of; upstream, and for an empty folder, the one by the date."""
    return max(source.open().seasons(), default=season_on(day))


def held_hashes(store: Store) -> dict[str, str]:
    """The hash of every raw week in the store, by partition key."""
    return {str(week): _hash_of(store, week) for week in store.weeks_with("raw.json")}


def _hash_of(store: Store, week: NflWeek) -> str:
    """Empty, and so another than upstream's, where the file is damaged."""
    try:
        return sha256(store.read_raw(week)).hexdigest()
    except DamagedFile:
        return ""


def look(
    source: Watched, season: int, memory: Memory, held: Mapping[str, str], *, seconds: float = LOOK_SECONDS
) -> Look:
    """See which weeks of a season are new or corrected.

    Of a folder every week is looked at: its time and size first, its content only when these changed. Upstream is asked
    conditionally, for the weeks known and for those after them until two are not there yet; where it gives no answer,
    the weeks left are not asked, and their memory stays.

    Args:
        source: where weeks come from.
        season: the year that the season begins in.
        memory: of the look before; empty is as good, but fetches every file once.
        held: the hash of every week held, by partition key (`held_hashes`).
        seconds: when to stop asking upstream. The weeks left have their turn in the next look, which is quicker.
    """
    result, ahead, deadline = Look(season, dict(memory)), AHEAD, time.monotonic() + seconds
    with closing(source.open()) as weeks:
        for week in (NflWeek(season, number) for number in range(1, LAST_WEEK + 1)):
            there, familiar = weeks.has(week), str(week) in held or str(week) in memory
            in_time = there is not None or time.monotonic() < deadline
            worth_asking = familiar or there or (there is None and ahead > 0)
            if not (worth_asking and in_time):
                continue
            status = _look_at(week, weeks, result, held.get(str(week), ""))
            ahead -= status == "not yet"
            if status == "unreachable" and there is None:
                deadline = 0.0
        if not result.sightings:
            result.elsewhere = [str(found) for found in weeks.seasons()]
    return result


def _look_at(week: NflWeek, source: Source, result: Look, held: str) -> Status:
    """Look at one week, and add what was seen to the result."""
    entry, problem = result.memory.get(str(week), {}), ""
    try:
        found = source.changed(week, entry.get("validator", ""))
        content_hash, validator = found.sha256 or entry["sha256"], found.validator
        status = _compared(content_hash, held, entry)
    except WeekNotPublished:
        content_hash, validator, status = held, GONE, "withdrawn" if held else "not yet"
        result.memory.pop(str(week), None)
        if status == "withdrawn" and entry.get("validator") != GONE:
            result.warnings.append(f"{week} is held, but has gone from {source.where(week)}; what is held stays")
    except SourceError as error:
        content_hash, validator, status, problem = "", "", "unreachable", str(error)
        result.warnings.append(problem)
    if status in ("new", "corrected", "unchanged", "withdrawn"):
        result.memory[str(week)] = {"validator": validator, "sha256": content_hash, "held": held}
    result.sightings.append(Sighting(week, status, content_hash, again=bool(entry), problem=problem))
    return status


def _compared(content_hash: str, held: str, entry: Mapping[str, str]) -> Status:
    """Another than held, and not what the last look has found already beside the same held file."""
    if content_hash == held or (entry.get("sha256"), entry.get("held")) == (content_hash, held):
        return "unchanged"
    return "corrected" if held else "new"
