"""The paper of an exam: all its questions, and which of them the base is asked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from nfl_lora_pipeline.exam.exam_questions import KNOWN, WITHOUT_FACT, exam_questions, of_the_splits
from nfl_lora_pipeline.lessons.people import SharedNames
from nfl_lora_pipeline.lessons.strangers import share
from nfl_lora_pipeline.lessons.wording import load_templates
from nfl_lora_pipeline.store import Store
from nfl_lora_pipeline.weeks.other_positions import names_beside
from nfl_lora_pipeline.weeks.week import NflWeek


def questions_of(held: Store, made_of: Mapping[str, Any]) -> tuple[pl.DataFrame, list[str]]:
    """All questions of the exam, those of the splits first and in their order, with `group`; and what cannot be asked."""
    rows = held.read_rows()
    others: dict[NflWeek, Mapping[str, list[str]]] = {}
    notes: list[str] = []
    shared: SharedNames = made_of.get("shared_names", {})
    for week in map(NflWeek.parse, made_of["weeks"]):
        origin = held.read_raw_origin(week)
        if origin["kind"] == "folder":
            others[week], lacking = names_beside(Path(origin["origin"]), week, known_ids=frozenset(rows["player_id"]))
            notes += lacking
        else:
            notes.append(f"{week}: real tight ends and running backs, since the week came from no folder")
    more = exam_questions(rows, load_templates(), stats=made_of["stats"], others=others, shared=shared)
    return pl.concat([rows.with_columns(of_the_splits()), more]), notes


def asked_of_base(asked: pl.DataFrame) -> list[bool]:
    """For each question, whether the base is asked it.

    Every fact of the splits once, its phrasing drawn by a hash; what has no fact in one stat a person; nothing altered.
    """
    phrasings = sorted(load_templates().questions)
    stats = {group: sorted(rows["stat"].unique()) for (group,), rows in asked.group_by("group")}
    rows = asked.select("group", "fact", "player", "stat", "phrasing").iter_rows()
    return [
        phrasing == _drawn(phrasings, fact)
        if group == KNOWN
        else group in WITHOUT_FACT and stat == _drawn(stats[group], f"{group}/{player}")
        for group, fact, player, stat, phrasing in rows
    ]


def _drawn(choices: Sequence[str], key: str) -> str:
    return choices[int(share(f"base/{key}") * len(choices))]
