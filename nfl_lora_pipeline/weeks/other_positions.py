"""Real people whom nobody taught anything about: tight ends and running backs of the same week."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from nfl_lora_pipeline.weeks.names import plain_names
from nfl_lora_pipeline.weeks.players import BadWeek, parse_week
from nfl_lora_pipeline.weeks.source import SourceError, is_there, read_file
from nfl_lora_pipeline.weeks.week import NflWeek

POSITIONS = {"tight_ends": "TE.json", "running_backs": "RB.json"}


def names_beside(
    week_file: Path, week: NflWeek, *, known_ids: frozenset[str] = frozenset()
) -> tuple[Mapping[str, list[str]], list[str]]:
    """Who plays what, from the files that may lie beside a week's wide receivers.

    They serve the exam alone, so that one that cannot be read costs its questions and nothing else.

    Args:
        week_file: `{folder}/2025/1/WR.json`.
        week: the week.
        known_ids: who is taught, and left out under whatever name.

    Returns:
        Sorted names by a key of `POSITIONS`, and for each file that is not there or cannot be read a line that says so.
    """
    found: dict[str, list[str]] = {}
    lacking: list[str] = []
    for position, name in POSITIONS.items():
        file = week_file.with_name(name)
        if not is_there(file):
            lacking.append(f"{week}: no {name} beside WR.json")
            continue
        try:
            players, _ = parse_week(read_file(file), week=week, origin=name)
            others = players.filter(~pl.col("player_id").is_in(known_ids)).select(plain_names()).to_series()
            found[position] = sorted(others.unique())
        except (BadWeek, SourceError, OSError) as error:
            lacking.append(f"{week}: {name} cannot be read: {str(error).removeprefix(f'{file}: ')}")
    return found, lacking
