"""What is new: looks for new and corrected weeks, in a folder or upstream. It keeps and fetches nothing itself."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Literal, Protocol

from nfl_lora_pipeline.files import DamagedFile
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.weeks.download import Connections
from nfl_lora_pipeline.weeks.source import (
    SAMPLE_FOLDER,
    SourceError,
    WeekNotPublished,
    fetch_if_changed,
    is_there,
    read_file,
    week_file,
)
from nfl_lora_pipeline.weeks.week import LAST_WEEK, NflWeek

Status = Literal["new", "corrected", "unchanged", "not yet", "withdrawn", "unreachable"]
Memory = dict[str, dict[str, str]]

AHEAD = 2  # weeks not published yet that are asked for: one may be left out for good, and the next one appear
LOOK_SECONDS = 20.0  # Dagster gives a sensor 60, and the last question may take a while
GONE = "gone"
SEASON_BEGINS = 9  # September


class Watched(Protocol):
    """Where weeks come from; `resources.WeekSource` is one."""

    @property
    def kind(self) -> str:
        """Of the source."""

    @property
    def folder(self) -> str:
        """In which a folder's weeks lie."""

    @property
    def address(self) -> str:
        """What stands before `/{season}/{week}/WR.json` upstream."""


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
        seen = ", ".join(f"{count} {status}" for status, count in counts.items()) or "no week to be seen"
        other = f"; the folder has weeks of {', '.join(self.elsewhere)}: set NFL_LORA_SEASON" if self.elsewhere else ""
        return f"season {self.season}: {seen}{other}"


def season_on(day: date) -> int:
    """The season that is on or was last: from September to the next August, the year of that September."""
    return day.year if day.month >= SEASON_BEGINS else day.year - 1


def season_to_watch(source: Watched, day: date) -> int:
    """The newest season that a folder has a week of; upstream, and for an empty folder, the one by the date."""
    if source.kind == "folder":
        names = [file.parents[1].name for file in Path(source.folder).glob("[0-9]*/*/WR.json")]
        years = [int(name) for name in names if name.isascii() and name.isdecimal()]
        return max(years, default=season_on(day))
    return season_on(day)


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
    with Connections() as connections:
        for week in (NflWeek(season, number) for number in range(1, LAST_WEEK + 1)):
            file, known = _file(source, week), str(week) in held or str(week) in memory
            wanted = is_there(file) if file else ahead > 0 and time.monotonic() < deadline
            if not (wanted or (known and (file or time.monotonic() < deadline))):
                continue
            status = _look_at(week, file, source, result, held.get(str(week), ""), connections)
            ahead -= status == "not yet"
            if status == "unreachable" and not file:
                deadline = 0.0
    if not result.sightings:
        result.elsewhere = sorted({file.parents[1].name for file in Path(source.folder).glob("*/*/WR.json")})
    return result


def _file(source: Watched, week: NflWeek) -> Path | None:
    """Where a folder has the week or should; None for a week to ask upstream for."""
    if source.kind == "sample":
        return week_file(SAMPLE_FOLDER, week)
    file = week_file(Path(source.folder), week)
    return file if source.kind == "folder" or (source.kind == "auto" and is_there(file)) else None


def _look_at(
    week: NflWeek, file: Path | None, source: Watched, result: Look, held: str, connections: Connections
) -> Status:
    """Look at one week, and add what was seen to the result."""
    entry, problem = result.memory.get(str(week), {}), ""
    try:
        if file:
            seen, validator = _see_file(week, file, entry)
        else:
            seen, validator = _see_upstream(week, source, entry, connections)
        status = _compared(seen, held, entry)
    except WeekNotPublished:
        seen, validator, status = held, GONE, "withdrawn" if held else "not yet"
        result.memory.pop(str(week), None)
        if status == "withdrawn" and entry.get("validator") != GONE:
            result.warnings.append(f"{week} is held, but has gone from {file or 'upstream'}; what is held stays")
    except SourceError as error:
        seen, validator, status, problem = "", "", "unreachable", str(error)
        result.warnings.append(problem)
    if status in ("new", "corrected", "unchanged", "withdrawn"):
        result.memory[str(week)] = {"validator": validator, "sha256": seen, "held": held}
    result.sightings.append(Sighting(week, status, seen, again=bool(entry), problem=problem))
    return status


def _see_file(week: NflWeek, file: Path, entry: Mapping[str, str]) -> tuple[str, str]:
    """The hash and the validator of a file; read only when its time or size is another."""
    try:
        found = file.stat()
        validator = f"file:{found.st_mtime_ns}-{found.st_size}"
        if entry.get("validator") == validator:
            return entry["sha256"], validator
        return sha256(read_file(file)).hexdigest(), validator
    except FileNotFoundError as error:
        raise WeekNotPublished(f"{file}: no such file") from error
    except OSError as error:
        raise SourceError(f"{file}: cannot be read ({error.strerror}); mend the file or its permissions") from error


def _see_upstream(
    week: NflWeek, source: Watched, entry: Mapping[str, str], connections: Connections
) -> tuple[str, str]:
    """The hash and the validator of a week upstream; downloaded only when it is another."""
    answer = fetch_if_changed(
        connections, week, base_url=source.address, folder=Path(source.folder), validator=entry.get("validator", "")
    )
    seen = entry["sha256"] if answer.content is None else sha256(answer.content).hexdigest()
    return seen, answer.validator


def _compared(seen: str, held: str, entry: Mapping[str, str]) -> Status:
    """Another than held, and not what the last look has found already beside the same held file."""
    if seen == held or (entry.get("sha256"), entry.get("held")) == (seen, held):
        return "unchanged"
    return "corrected" if held else "new"
