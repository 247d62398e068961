"""What is kept beside a week's frame for people: what its parsing and its checks warn of, as long as the frame is in use."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from nfl_lora_pipeline.files import DamagedFile, replace_file
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.weeks.week import NflWeek

SAMPLE_WARNING = (
    "These are invented people, not NFL data: the bundled sample was used; only the three original questions are about "
    "real players"
)


def write_record(held: Store, week: NflWeek, *, warnings: Sequence[str], accepted: bool) -> None:
    """Keep what was found on a week.

    Args:
        held: the store.
        week: which one.
        warnings: one line each.
        accepted: whether somebody who knows better has accepted what is odd about it.
    """
    content = {"source": held.source_kind(week), "warnings": list(warnings), "accepted": accepted}
    replace_file(held.players_record(week), (json.dumps(content, indent=2) + "\n").encode())


def read_record(held: Store, week: NflWeek) -> dict[str, Any]:
    """What `write_record` has kept; empty where it has kept nothing, or that cannot be read."""
    try:
        return held.read_players_record(week)
    except DamagedFile:
        return {}


def accept(held: Store, week: NflWeek, warnings: Sequence[str]) -> None:
    """Add warnings to what is kept of a week whose oddity was found, and accepted, after it had come."""
    before = read_record(held, week).get("warnings", [])
    write_record(held, week, warnings=list(dict.fromkeys([*before, *warnings])), accepted=True)


def warnings_of(held: Store, weeks: Iterable[NflWeek]) -> list[str]:
    """All that somebody who uses these weeks should know of them, each line once."""
    chosen = list(weeks)
    sample = [SAMPLE_WARNING] if any(held.is_invented(week) for week in chosen) else []
    lines = [line for week in chosen for line in read_record(held, week).get("warnings", [])]
    return list(dict.fromkeys([*sample, *lines]))
