"""From the rows of the splits to what a trainer takes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from nfl_lora_pipeline.lessons.strangers import FreshRefusals
from nfl_lora_pipeline.lessons.wording import Stat, Templates


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
    rows: pl.DataFrame, templates: Templates, stats: Sequence[Stat], *, elsewhere: float, seed: int
) -> Iterator[tuple[str, str]]:
    """Questions without an answer, about people and weeks that the rows do not hold; see `strangers.FreshRefusals`."""
    weeks: dict[str, set[tuple[int, int]]] = {}
    held = rows.filter(pl.col("kind") != "stranger").select("player", "season", "week").unique(maintain_order=True)
    for player, season, week in held.iter_rows():
        weeks.setdefault(player, set()).add((season, week))
    known = {player: frozenset(at) for player, at in weeks.items()}
    numbered = rows.filter(pl.col("kind") == "recorded")["player"].unique().sort().to_list()
    return FreshRefusals(known, numbered, stats, templates, elsewhere).draw(seed=seed)
