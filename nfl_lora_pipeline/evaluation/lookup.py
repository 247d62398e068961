"""Answers without a model: the player, the stat and the week that a question names, looked up in a table."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from nfl_lora_pipeline.dataset.templates import NOUNS
from nfl_lora_pipeline.stats import TAUGHT
from nfl_lora_pipeline.weeks.names import as_typed

NOT_FOUND = "There is no record of that."
_WEEK = re.compile(r"\bweek\s+(\d{1,2})\b", re.IGNORECASE)
_SEASON = re.compile(r"\b(20\d\d)\b")


@dataclass(frozen=True)
class Asked:
    """What a question names; None for what it does not, or what the table does not know."""

    player: str | None
    stat: str | None
    season: int | None
    week: int | None


class FactTable:
    """The facts of some weeks, found by the words of a question.

    Attributes:
        facts: one row a fact: `season`, `week`, `player`, `stat`, `kind` and `answer` (the reference answer).
    """

    def __init__(self, rows: pl.DataFrame):
        """Take the rows of the splits: the columns of `questions.qa_pairs`, strangers or not."""
        self.facts = (
            rows.filter(pl.col("kind") != "stranger")
            .unique("fact", keep="first", maintain_order=True)
            .select("season", "week", "player", "stat", "kind", "answer")
        )
        self.players = {name.lower(): name for name in self.facts["player"].unique().sort()}
        self.stats: dict[str, str] = {
            word: stat
            for stat, noun in ((stat, NOUNS[stat]) for stat in TAUGHT)
            for word in (noun.singular, noun.plural)
        }
        self._player, self._stat = _any_of(self.players), _any_of(self.stats)

    def asked(self, question: str) -> Asked:
        """Read a question; capitals do not matter, spelling does."""
        words = as_typed(question).lower()
        player, stat = self._player.search(words), self._stat.search(words)
        season, week = _SEASON.search(words), _WEEK.search(words)
        return Asked(
            self.players[player[0]] if player else None,
            self.stats[stat[0]] if stat else None,
            int(season[1]) if season else None,
            int(week[1]) if week else None,
        )

    def answer(self, question: str) -> str:
        """The one fact that a question asks for, in the words of the reference answers, or `NOT_FOUND`."""
        found = self.sentences(question)
        return found[0] if len(found) == 1 else NOT_FOUND

    def sentences(self, question: str, *, every_stat: bool = False) -> list[str]:
        """What the table says of the player in the week, of the stat asked for or of every one."""
        asked = self.asked(question)
        wanted = {"player": asked.player, "season": asked.season, "week": asked.week}
        return self._answers(wanted if every_stat else wanted | {"stat": asked.stat})

    def week(self, question: str) -> list[str]:
        """What there is to tell of everybody in the week that a question asks about."""
        asked = self.asked(question)
        return self._answers({"season": asked.season, "week": asked.week}, pl.col("kind") != "no_record")

    def _answers(self, wanted: Mapping[str, str | int | None], *more: pl.Expr) -> list[str]:
        if None in wanted.values():
            return []
        return self.facts.filter(*more, **wanted)["answer"].to_list()


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    """Any of these words, standing by itself; the longest where several fit."""
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])")
