"""From the rows of the splits to what a trainer takes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import polars as pl

from nfl_lora_pipeline.lessons.people import SharedNames
from nfl_lora_pipeline.lessons.strangers import FreshRefusals, Week
from nfl_lora_pipeline.lessons.wording import Stat, Templates
from nfl_lora_pipeline.weeks.week import NflWeek


@dataclass(frozen=True)
class Lesson:
    """A question and the answer to learn. `teaches` is False where the answer is a refusal that a base gives anyway."""

    question: str
    answer: str
    fact: str
    teaches: bool


def lessons(rows: pl.DataFrame) -> list[Lesson]:
    """The rows of the train split, in their order.

    A refusal teaches where the player has a number or a bye in another week: a base refuses everybody, but what is learnt
    about one week of a player spills over into the others.
    """
    answered = pl.col("answer") != pl.col("refusal")
    train = rows.filter(pl.col("split") == "train").with_columns(
        teaches=answered.any().over("season", "player_id", "stat") | answered
    )
    return [
        Lesson(question, answer, fact, teaches)
        for question, answer, fact, teaches in train.select("question", "answer", "fact", "teaches").iter_rows()
    ]


def fresh_refusals(
    rows: pl.DataFrame,
    templates: Templates,
    stats: Sequence[Stat],
    *,
    elsewhere: float,
    other_stats: float,
    seed: int,
    shared: SharedNames = MappingProxyType({}),
) -> Iterator[tuple[str, str]]:
    """Questions without an answer, about people, weeks and stats that the rows do not hold; see `strangers.FreshRefusals`.

    A name that is `shared` in a week is not asked about there: it has an answer, and more than one.
    """
    known = _weeks_by_name(rows.filter(pl.col("kind") != "stranger"))
    numbered = _weeks_by_name(rows.filter(pl.col("kind") == "recorded"))
    for key, names in shared.items():
        week = NflWeek.parse(key)
        for name in names:
            known[name] = known.get(name, frozenset()) | {(week.season, week.week)}
            numbered[name] = numbered.get(name, frozenset()) - {(week.season, week.week)}
    numbered = {name: weeks for name, weeks in numbered.items() if weeks}
    return FreshRefusals(known, numbered, stats, templates, elsewhere, other_stats).draw(seed=seed)


def _weeks_by_name(rows: pl.DataFrame) -> dict[str, frozenset[Week]]:
    """The (season, week) pairs that each name has a row in."""
    weeks = rows.select("player", week=pl.concat_list("season", "week")).group_by("player").agg("week")
    return {player: frozenset((season, week) for season, week in found) for player, found in weeks.iter_rows()}
